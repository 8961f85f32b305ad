/**
 * The log read from end to end: trajectories with their steps and feedback, oldest first, in one
 * snapshot, a page in memory at a time. Steps are asked for by id, so that who has kept one (a
 * forest shares its prefixes) need not read it again. For a connection of its own: the snapshot is
 * a transaction.
 */
import type BetterSqlite3 from 'better-sqlite3';
import type { ClientOffer, Feedback, StepRecord, TrajectoryRecord } from '../core/records.ts';
import { LIMITS } from '../core/limits.ts';
import { ClientOffers } from './client-offers.ts';
import type { Database } from './open.ts';
import type { StepRow } from './step-row.ts';
import { STEP_COLUMNS, stepFromRow } from './step-row.ts';
import type { TrajectoryFilter } from './trajectory-filter.ts';
import { TrajectoryPages } from './trajectory-pages.ts';

const STEP = `
  SELECT ${STEP_COLUMNS} FROM steps s LEFT JOIN tool_calls c ON c.step_id = s.id WHERE s.id = ?`;

const FEEDBACK = `
  SELECT id, trajectory_id AS trajectoryId, step_id AS stepId, metric_name AS metricName, value,
    tags, created_at AS createdAt
  FROM feedback WHERE trajectory_id = ? ORDER BY rowid`;

type FeedbackRow = Omit<Feedback, 'value' | 'tags'> & { value: string; tags: string };

export class LogReader {
  private readonly sqlite: BetterSqlite3.Database;
  private readonly pages: TrajectoryPages;
  private readonly stepById: BetterSqlite3.Statement<[string], StepRow>;
  private readonly offers: ClientOffers;
  private readonly feedbackOf: BetterSqlite3.Statement<[string], FeedbackRow>;

  constructor({ sqlite }: Database) {
    this.sqlite = sqlite;
    this.pages = new TrajectoryPages(sqlite);
    this.stepById = sqlite.prepare<[string], StepRow>(STEP).raw();
    this.feedbackOf = sqlite.prepare(FEEDBACK);
    this.offers = new ClientOffers({ sqlite });
  }

  /** Runs with everything as it is now, whatever others write meanwhile. */
  *snapshot<T>(read: () => Iterable<T>): Generator<T> {
    this.sqlite.exec('BEGIN');
    try {
      yield* read();
    } finally {
      this.sqlite.exec('ROLLBACK');
    }
  }

  /** Oldest first. */
  *trajectories(filter: TrajectoryFilter): Generator<TrajectoryRecord> {
    let cursor: string | null = null;
    do {
      const page = { limit: LIMITS.pageItemsMax, oldestFirst: true };
      const after: { cursor?: string } = cursor === null ? {} : { cursor };
      const { items, nextCursor } = this.pages.list(filter, { ...page, ...after });
      yield* items;
      cursor = nextCursor;
    } while (cursor !== null);
  }

  /** Null when there is none. */
  step(id: string): StepRecord | null {
    const row = this.stepById.get(id);
    return row === undefined ? null : stepFromRow(row);
  }

  offer(trajectoryId: string): ClientOffer {
    return this.offers.of(trajectoryId);
  }

  /** In the order of arrival. */
  feedback(trajectoryId: string): Feedback[] {
    return this.feedbackOf.all(trajectoryId).map((row) => ({
      ...row,
      value: JSON.parse(row.value) as Feedback['value'],
      tags: JSON.parse(row.tags) as Feedback['tags'],
    }));
  }
}
