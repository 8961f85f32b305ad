/**
 * What clients say about answers. Rows are history and never change; the latest numeric `reward` is
 * also the trajectory's reward, which is what training reads.
 */
import { isDeepStrictEqual } from 'node:util';
import { and, asc, eq, inArray, isNotNull, isNull, sql } from 'drizzle-orm';
import type { Clock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Feedback } from '../core/records.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage, wrongCursor } from './page.ts';
import { feedback as table, steps, trajectories } from './schema.ts';

/** The metric whose number is a reward. */
export const REWARD_METRIC = 'reward';

export interface StoredFeedback {
  feedback: Feedback;
  /** False when the same feedback was stored before. */
  created: boolean;
}

export class FeedbackStore {
  private readonly orm: Database['orm'];
  private readonly commits: GroupCommit;
  private readonly clock: Clock;

  constructor(db: Database, commits: GroupCommit, clock: Clock) {
    this.orm = db.orm;
    this.commits = commits;
    this.clock = clock;
  }

  /**
   * Stores feedback durably. The same id with the same content (its time apart) is answered with
   * what is stored and changes nothing, not even a reward that came later.
   * @throws AppError trajectory_not_found; step_not_found (no such step on the trajectory's path);
   *   feedback_conflict (same id, other content); invalid_request (a reward that is no finite
   *   number).
   */
  record(feedback: Feedback): Promise<StoredFeedback> {
    const snapshot = structuredClone(feedback);
    return this.commits.run(2, () => this.write(snapshot));
  }

  /**
   * Remembers that a training run was fed with live trajectories: what is said of them from here on
   * is late. The first run counts.
   */
  async markConsumed(trajectoryIds: readonly string[], runId: string): Promise<void> {
    const size: number = LIMITS.rolloutRowsPerWrite;
    for (let i = 0; i < trajectoryIds.length; i += size) {
      const ids = trajectoryIds.slice(i, i + size);
      await this.commits.run(ids.length, () =>
        this.orm
          .update(trajectories)
          .set({ consumedBy: runId })
          .where(and(inArray(trajectories.id, ids), isNull(trajectories.consumedBy)))
          .run(),
      );
    }
  }

  /** The history of a trajectory, oldest first. */
  list(trajectoryId: string, page: PageRequest = {}): Page<Feedback> {
    const limit = pageLimit(page);
    // By rowid, because a client may choose the id: the order of arrival is the order of history.
    const { cursor = '0' } = page;
    if (!/^\d{1,15}$/.test(cursor)) throw wrongCursor(cursor);
    const after = Number(cursor);
    const rows = this.orm
      .select({ row: sql<number>`rowid`, feedback: table })
      .from(table)
      .where(sql`${table.trajectoryId} = ${trajectoryId} AND rowid > ${after}`)
      .orderBy(asc(sql`rowid`))
      .limit(limit + 1)
      .all();
    const { items, nextCursor } = toPage(rows, limit, ({ row }) => String(row));
    return { items: items.map((item) => item.feedback), nextCursor };
  }

  /** The latest reward of each step of a trajectory that got one. */
  stepRewards(trajectoryId: string): Map<string, number> {
    // Beside max() SQLite takes the other columns from the row that has it.
    const rows = this.orm
      .select({ stepId: table.stepId, value: table.value, row: sql<number>`max(rowid)` })
      .from(table)
      .where(
        and(
          eq(table.trajectoryId, trajectoryId),
          isNotNull(table.stepId),
          eq(table.metricName, REWARD_METRIC),
        ),
      )
      .groupBy(table.stepId)
      .all();
    return new Map(rows.map(({ stepId, value }) => [stepId as string, value as number]));
  }

  private write(feedback: Feedback): StoredFeedback {
    const stored = this.orm.select().from(table).where(eq(table.id, feedback.id)).get();
    if (stored !== undefined) {
      const same = { createdAt: 0, late: false };
      if (isDeepStrictEqual({ ...stored, ...same }, { ...feedback, ...same })) {
        return { feedback: stored, created: false };
      }
      throw new AppError(
        'feedback_conflict',
        `feedback ${feedback.id} was stored before with other content`,
        { param: 'id' },
      );
    }
    const late = this.checkTarget(feedback);
    if (feedback.metricName === REWARD_METRIC) this.setReward(feedback);
    const created = this.orm
      .insert(table)
      .values({ ...feedback, late })
      .returning()
      .get();
    return { feedback: created, created: true };
  }

  /** Whether it comes late: after a training run has had the trajectory, or made it. */
  private checkTarget({ trajectoryId, stepId }: Feedback): boolean {
    const trajectory = this.orm
      .select({
        leafStepId: trajectories.leafStepId,
        run: sql<
          string | null
        >`coalesce(${trajectories.consumedBy}, ${trajectories.trainingRunId})`,
      })
      .from(trajectories)
      .where(eq(trajectories.id, trajectoryId))
      .get();
    if (trajectory === undefined) {
      throw new AppError('trajectory_not_found', `no trajectory has the id ${trajectoryId}`, {
        param: 'trajectory_id',
      });
    }
    const late = trajectory.run !== null;
    if (stepId === null) return late;
    const onPath = this.orm.get(sql`
      WITH RECURSIVE path (id, parent_id) AS (
        SELECT id, parent_id FROM ${steps} WHERE id = ${trajectory.leafStepId}
        UNION ALL SELECT s.id, s.parent_id FROM path CROSS JOIN ${steps} s ON s.id = path.parent_id)
      SELECT 1 FROM path WHERE id = ${stepId}`);
    if (onPath === undefined) {
      throw new AppError('step_not_found', `trajectory ${trajectoryId} has no step ${stepId}`, {
        param: 'step_id',
      });
    }
    return late;
  }

  private setReward({ trajectoryId, value }: Feedback): void {
    if (typeof value !== 'number' || !Number.isFinite(value)) {
      throw new AppError(
        'invalid_request',
        `a ${REWARD_METRIC} is a finite number, not ${JSON.stringify(value)}`,
        { param: 'value' },
      );
    }
    this.orm
      .update(trajectories)
      .set({ reward: value, rewardedAt: this.clock.now() })
      .where(eq(trajectories.id, trajectoryId))
      .run();
  }
}
