/**
 * Takes trajectories out of the log, and with them the steps that nothing else uses. A part of a
 * write (GroupCommit): the caller chooses, and keeps a piece small. What belongs to a trajectory
 * (tools, feedback) goes with its row; steps that others share, branch from or have feedback on
 * stay.
 */
import type BetterSqlite3 from 'better-sqlite3';
import type { Database } from './open.ts';

export interface RemovedTrajectory {
  id: string;
  /** Its last step. */
  leaf: string;
}

const DELETE_UNUSED = `
  DELETE FROM steps WHERE id = @id
    AND NOT EXISTS (SELECT 1 FROM steps child WHERE child.parent_id = @id)
    AND NOT EXISTS (SELECT 1 FROM trajectories WHERE leaf_step_id = @id)
    AND NOT EXISTS (SELECT 1 FROM trajectories WHERE branched_from_step_id = @id)
    AND NOT EXISTS (SELECT 1 FROM feedback WHERE step_id = @id)
  RETURNING parent_id`;

export class StepRemoval {
  private readonly deleteTrajectory: BetterSqlite3.Statement<[string]>;
  private readonly deleteStep: BetterSqlite3.Statement<[{ id: string }], string | null>;

  constructor({ sqlite }: Pick<Database, 'sqlite'>) {
    this.deleteTrajectory = sqlite.prepare('DELETE FROM trajectories WHERE id = ?');
    this.deleteStep = sqlite.prepare<[{ id: string }], string | null>(DELETE_UNUSED).pluck();
  }

  /** To be called within a write. */
  remove(trajectories: readonly RemovedTrajectory[]): void {
    for (const { id } of trajectories) this.deleteTrajectory.run(id);
    for (const { leaf } of trajectories) this.removePath(leaf);
  }

  /**
   * From the leaf up: a step that stays is used, and so is everything above it. To be called within
   * a write.
   */
  removePath(leaf: string): void {
    // Ends: each round deletes a step.
    for (let id: string | null | undefined = leaf; typeof id === 'string';) {
      id = this.deleteStep.get({ id });
    }
  }
}
