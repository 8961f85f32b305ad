/**
 * Reading the log: pages of trajectories, one with its steps, the tree that it is part of, and how
 * many scored ones are new. Writing is the step log's and the feedback store's business.
 */
import type BetterSqlite3 from 'better-sqlite3';
import {
  and,
  asc,
  count,
  desc,
  eq,
  getTableColumns,
  gt,
  gte,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
} from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type {
  LiveOutcomes,
  StepRecord,
  TrajectoryRecord,
  TrajectorySource,
} from '../core/records.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { trajectories, trajectoryTools } from './schema.ts';
import type { StepRow } from './step-row.ts';
import { STEP_COLUMNS, stepFromRow } from './step-row.ts';

/** All given conditions must hold. */
export interface TrajectoryFilter {
  policyVersion?: number;
  source?: TrajectorySource;
  taskId?: string;
  trainingRunId?: string;
  groupId?: string;
  conversationId?: string;
  /** A tool that was called on its path. */
  toolName?: string;
  /** Bounds are inclusive; a bound leaves out what has no reward. */
  rewardMin?: number;
  rewardMax?: number;
  /** Whether it has a reward. */
  scored?: boolean;
  /** Milliseconds, inclusive. */
  createdFrom?: number;
  /** Milliseconds, exclusive. */
  createdBefore?: number;
}

export interface TrajectoryWithSteps {
  trajectory: TrajectoryRecord;
  /** From the root to the leaf. */
  steps: StepRecord[];
}

export interface TrajectoryTree {
  /** By id, oldest first. */
  trajectories: TrajectoryRecord[];
  /** Every step of those trajectories, once; parents before children. */
  steps: StepRecord[];
  /** True when LIMITS.treeTrajectoriesMax cut the answer. */
  truncated: boolean;
}

// CROSS JOIN fixes the order of a join: SQLite cannot know that these walks are short, and would
// otherwise scan the whole table and look each row up in the walk.
const PATH_STEPS = `
  WITH RECURSIVE path (id, parent_id) AS (
    SELECT id, parent_id FROM steps WHERE id IN (SELECT value FROM json_each(?))
    UNION SELECT s.id, s.parent_id FROM path CROSS JOIN steps s ON s.id = path.parent_id)
  SELECT ${STEP_COLUMNS} FROM path CROSS JOIN steps s ON s.id = path.id
    LEFT JOIN tool_calls c ON c.step_id = s.id
  ORDER BY s.position, s.id`;

// The asked trajectory comes first, so that a cut never loses it.
const TREE_IDS = `
  WITH RECURSIVE up (id, parent_id) AS (
      SELECT id, parent_id FROM steps WHERE id = @leafStepId
      UNION ALL SELECT s.id, s.parent_id FROM up CROSS JOIN steps s ON s.id = up.parent_id),
    down (id) AS (
      SELECT id FROM up WHERE parent_id IS NULL
      UNION ALL SELECT s.id FROM down CROSS JOIN steps s ON s.parent_id = down.id),
    member (id) AS (
      SELECT t.id FROM down CROSS JOIN trajectories t ON t.leaf_step_id = down.id
      UNION SELECT id FROM trajectories WHERE group_id = @groupId)
  SELECT id FROM member ORDER BY id <> @id, id LIMIT @limit`;

const NEWEST_THROUGH_STEP = `
  WITH RECURSIVE down (id) AS (
    SELECT id FROM steps WHERE id = ?
    UNION ALL SELECT s.id FROM down CROSS JOIN steps s ON s.parent_id = down.id)
  SELECT max(t.id) AS id FROM down CROSS JOIN trajectories t ON t.leaf_step_id = down.id`;

const NEWEST_BY_CONTINUATION_KEY = `
  SELECT id FROM trajectories WHERE continuation_key = ? ORDER BY id DESC LIMIT 1`;

// A conversation counts once: its requests are not independent of each other.
const LIVE_OUTCOMES = `
  WITH newest AS (
    SELECT coalesce(conversation_id, id) AS conversation, reward, status, format_ok
    FROM trajectories
    WHERE policy_version = @version AND source = 'live' AND status <> 'cancelled'
      AND created_at >= @since
    ORDER BY id DESC LIMIT @limit)
  SELECT count(*) AS trajectories, avg(reward) AS reward,
    max(status = 'failed' OR (status = 'completed' AND NOT format_ok)) AS wrong
  FROM newest GROUP BY conversation`;

export class TrajectoryStore {
  private readonly orm: Database['orm'];
  private readonly pathSteps: BetterSqlite3.Statement<[string], StepRow>;
  private readonly treeIds: BetterSqlite3.Statement<[Record<string, unknown>], { id: string }>;
  private readonly newestThroughStep: BetterSqlite3.Statement<[string], { id: string | null }>;
  private readonly newestByKey: BetterSqlite3.Statement<[string], { id: string }>;
  private readonly outcomes: BetterSqlite3.Statement<
    [Record<string, number>],
    { trajectories: number; reward: number | null; wrong: number }
  >;

  constructor(db: Database) {
    this.orm = db.orm;
    this.pathSteps = db.sqlite.prepare(PATH_STEPS);
    this.treeIds = db.sqlite.prepare(TREE_IDS);
    this.newestThroughStep = db.sqlite.prepare(NEWEST_THROUGH_STEP);
    this.newestByKey = db.sqlite.prepare(NEWEST_BY_CONTINUATION_KEY);
    this.outcomes = db.sqlite.prepare(LIVE_OUTCOMES);
  }

  /** Newest first, or oldest. @throws AppError invalid_request for a limit out of range. */
  list(
    filter: TrajectoryFilter = {},
    page: PageRequest & { oldestFirst?: boolean } = {},
  ): Page<TrajectoryRecord> {
    const limit = pageLimit(page);
    const conditions = this.conditions(filter);
    const id = filter.toolName === undefined ? trajectories.id : trajectoryTools.trajectoryId;
    const [after, order] = page.oldestFirst === true ? [gt, asc] : [lt, desc];
    if (page.cursor !== undefined) conditions.push(after(id, page.cursor));
    const select = this.orm.select(getTableColumns(trajectories));
    // With a tool, its index leads (CROSS JOIN), so that a page is read from the index's end.
    const source =
      filter.toolName === undefined
        ? select.from(trajectories)
        : select.from(trajectoryTools).crossJoin(trajectories);
    const rows = source
      .where(and(...conditions))
      .orderBy(order(id))
      .limit(limit + 1)
      .all();
    return toPage(rows.map(trajectoryFromRow), limit, ({ id }) => id);
  }

  find(id: string): TrajectoryRecord | null {
    const row = this.orm.select().from(trajectories).where(eq(trajectories.id, id)).get();
    return row === undefined ? null : trajectoryFromRow(row);
  }

  /** The trajectory and its path. @throws AppError trajectory_not_found */
  get(id: string): TrajectoryWithSteps {
    const trajectory = this.must(id);
    return { trajectory, steps: this.path(trajectory.leafStepId) };
  }

  /** The steps from the root to the given one; empty when there is no such step. */
  path(leafStepId: string): StepRecord[] {
    return this.pathSteps.all(JSON.stringify([leafStepId])).map(stepFromRow);
  }

  /**
   * The forest around a trajectory: all that start from its root or belong to its group.
   * @throws AppError trajectory_not_found
   */
  tree(id: string): TrajectoryTree {
    const { leafStepId, groupId } = this.must(id);
    const limit = LIMITS.treeTrajectoriesMax;
    const ids = this.treeIds
      .all({ id, leafStepId, groupId, limit: limit + 1 })
      .map((row) => row.id);
    const members = this.orm
      .select()
      .from(trajectories)
      .where(inArray(trajectories.id, ids.slice(0, limit)))
      .orderBy(trajectories.id)
      .all()
      .map(trajectoryFromRow);
    const leaves = JSON.stringify(members.map((member) => member.leafStepId));
    return {
      trajectories: members,
      steps: this.pathSteps.all(leaves).map(stepFromRow),
      truncated: ids.length > limit,
    };
  }

  /** The newest trajectory whose path holds the step, for feedback that names only a step. */
  findByStep(stepId: string): TrajectoryRecord | null {
    const id = this.newestThroughStep.get(stepId)?.id ?? null;
    return id === null ? null : this.find(id);
  }

  /** The newest trajectory that was logged with the key. */
  newestByContinuationKey(key: string): TrajectoryRecord | null {
    const row = this.newestByKey.get(key);
    return row === undefined ? null : this.find(row.id);
  }

  /**
   * Live trajectories whose reward was set or changed after the time (ms): what training waits for.
   */
  countNewScored(sinceMs: number): number {
    const row = this.orm
      .select({ rows: count() })
      .from(trajectories)
      .where(and(eq(trajectories.source, 'live'), gt(trajectories.rewardedAt, sinceMs)))
      .get();
    return row?.rows ?? 0;
  }

  /**
   * What a version did in live conversations since a time (ms), from its newest
   * LIMITS.liveTrajectoriesMax trajectories.
   */
  liveOutcomes(version: number, since: number): LiveOutcomes {
    const rows = this.outcomes.all({ version, since, limit: LIMITS.liveTrajectoriesMax });
    return {
      version,
      trajectories: rows.reduce((sum, { trajectories }) => sum + trajectories, 0),
      conversations: rows.length,
      errors: rows.reduce((sum, { wrong }) => sum + wrong, 0),
      rewards: rows.flatMap(({ reward }) => (reward === null ? [] : [reward])),
    };
  }

  private must(id: string): TrajectoryRecord {
    const trajectory = this.find(id);
    if (trajectory === null) {
      throw new AppError('trajectory_not_found', `no trajectory has the id ${id}`);
    }
    return trajectory;
  }

  private conditions(filter: TrajectoryFilter): SQL[] {
    const all: SQL[] = [];
    const add = <V>(value: V | undefined, condition: (value: V) => SQL): void => {
      if (value !== undefined) all.push(condition(value));
    };
    const t = trajectories;
    add(filter.policyVersion, (version) => eq(t.policyVersion, version));
    add(filter.source, (source) => eq(t.source, source));
    add(filter.taskId, (id) => eq(t.taskId, id));
    add(filter.trainingRunId, (id) => eq(t.trainingRunId, id));
    add(filter.groupId, (id) => eq(t.groupId, id));
    add(filter.conversationId, (id) => eq(t.conversationId, id));
    add(filter.rewardMin, (reward) => gte(t.reward, reward));
    add(filter.rewardMax, (reward) => lte(t.reward, reward));
    add(filter.scored, (scored) => (scored ? isNotNull(t.reward) : isNull(t.reward)));
    add(filter.createdFrom, (ms) => gte(t.createdAt, ms));
    add(filter.createdBefore, (ms) => lt(t.createdAt, ms));
    add(filter.toolName, (name) => eq(trajectoryTools.toolName, name));
    if (filter.toolName !== undefined) all.push(eq(trajectoryTools.trajectoryId, t.id));
    return all;
  }
}

function trajectoryFromRow(row: typeof trajectories.$inferSelect): TrajectoryRecord {
  const record: TrajectoryRecord & { rewardedAt?: number | null } = { ...row };
  delete record.rewardedAt;
  delete record.continuationKey;
  delete record.trainingStep;
  return record;
}
