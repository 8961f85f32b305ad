/**
 * Takes rollouts out of the log that a resumed training run makes again: their trajectories, and
 * the steps that nothing else uses (step-removal.ts). In small pieces, so that other writes get
 * their turn. Knows nothing of live conversations: steps that one of them shares stay.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type BetterSqlite3 from 'better-sqlite3';
import { LIMITS } from '../core/limits.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import { StepRemoval } from './step-removal.ts';
import type { RemovedTrajectory } from './step-removal.ts';

const CHOSEN = `
  SELECT id, leaf_step_id AS leaf FROM trajectories
  WHERE training_run_id = @runId AND training_step > @step LIMIT @limit`;

export class RolloutRemoval {
  private readonly commits: GroupCommit;
  private readonly chosen: BetterSqlite3.Statement<[Record<string, unknown>], RemovedTrajectory>;
  private readonly steps: StepRemoval;

  constructor(db: Database, commits: GroupCommit) {
    this.commits = commits;
    this.chosen = db.sqlite.prepare(CHOSEN);
    this.steps = new StepRemoval(db);
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
        this.steps.remove(rows);
        return rows.length;
      });
      removed += found;
    }
    return removed;
  }
}
