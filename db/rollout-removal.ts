/**
 * Takes rollouts out of the log that a resumed training run makes again: their trajectories, and
 * the steps that nothing else uses. In small pieces, so that other writes get their turn. Knows
 * nothing of live conversations: steps that one of them shares stay.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type BetterSqlite3 from 'better-sqlite3';
import { LIMITS } from '../core/limits.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';

const CHOSEN = `
  SELECT id, leaf_step_id AS leaf FROM trajectories
  WHERE training_run_id = @runId AND training_step > @step LIMIT @limit`;

// From the leaf up: a step goes only after its children.
const PATH = `
  WITH RECURSIVE path (id, parent_id, position) AS (
    SELECT id, parent_id, position FROM steps WHERE id = ?
    UNION ALL SELECT s.id, s.parent_id, s.position
      FROM path CROSS JOIN steps s ON s.id = path.parent_id)
  SELECT id FROM path ORDER BY position DESC`;

const DELETE_UNUSED = `
  DELETE FROM steps WHERE id = @id
    AND NOT EXISTS (SELECT 1 FROM steps child WHERE child.parent_id = @id)
    AND NOT EXISTS (SELECT 1 FROM trajectories WHERE leaf_step_id = @id)
    AND NOT EXISTS (SELECT 1 FROM trajectories WHERE branched_from_step_id = @id)
    AND NOT EXISTS (SELECT 1 FROM feedback WHERE step_id = @id)`;

interface Chosen {
  id: string;
  leaf: string;
}

export class RolloutRemoval {
  private readonly commits: GroupCommit;
  private readonly chosen: BetterSqlite3.Statement<[Record<string, unknown>], Chosen>;
  private readonly path: BetterSqlite3.Statement<[string], { id: string }>;
  private readonly deleteTrajectory: BetterSqlite3.Statement<[string]>;
  private readonly deleteStep: BetterSqlite3.Statement<[{ id: string }]>;

  constructor(db: Database, commits: GroupCommit) {
    this.commits = commits;
    this.chosen = db.sqlite.prepare(CHOSEN);
    this.path = db.sqlite.prepare(PATH);
    this.deleteTrajectory = db.sqlite.prepare('DELETE FROM trajectories WHERE id = ?');
    this.deleteStep = db.sqlite.prepare(DELETE_UNUSED);
  }

  /**
   * Removes the rollouts of a run's training steps after `step`; returns how many trajectories.
   * @throws AppError storage_failed
   */
  async removeAfter(runId: string, step: number): Promise<number> {
    const limit: number = LIMITS.rolloutRowsPerWrite;
    let removed = 0;
    // Every round removes what it finds, so it ends when nothing is found.
    for (let found = limit; found === limit; await nextTurn()) {
      found = await this.commits.run(limit, () => {
        const rows = this.chosen.all({ runId, step, limit });
        for (const { id } of rows) this.deleteTrajectory.run(id);
        for (const { leaf } of rows) {
          for (const id of this.path.all(leaf)) this.deleteStep.run(id);
        }
        return rows.length;
      });
      removed += found;
    }
    return removed;
  }
}
