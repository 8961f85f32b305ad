/**
 * Reading the log: pages of trajectories, one with its steps, the tree that it is part of, and how
 * many scored ones are new. Writing is the step log's and the feedback store's business.
 */
import type BetterSqlite3 from 'better-sqlite3';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { ClientOffer, LiveOutcomes, StepRecord, TrajectoryRecord } from '../core/records.ts';
import { ClientOffers } from './client-offers.ts';
import type { Database } from './open.ts';
import type { Page } from './page.ts';
import type { StepRow } from './step-row.ts';
import { STEP_COLUMNS, stepFromRow } from './step-row.ts';
import { seenBy } from './trajectory-filter.ts';
import type { TrajectoryFilter } from './trajectory-filter.ts';
import { TRAJECTORY_COLUMNS, trajectoryFromRow, TrajectoryPages } from './trajectory-pages.ts';
import type { TrajectoryPageRequest, TrajectoryRow } from './trajectory-pages.ts';

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
  /** True when LIMITS.treeTrajectoriesMax or treeStepsMax cut the answer. */
  truncated: boolean;
}

interface TreeMember {
  id: string;
  leaf: string;
  /** Steps looked at below the root. */
  walked: number;
}

const byId = (a: TrajectoryRecord, b: TrajectoryRecord): number => (a.id < b.id ? -1 : 1);

// CROSS JOIN fixes the order of a join: SQLite cannot know that these walks are short, and would
// otherwise scan the whole table and look each row up in the walk.
const PATH_STEPS = `
  WITH RECURSIVE path (id, parent_id) AS (
    SELECT id, parent_id FROM steps WHERE id IN (SELECT value FROM json_each(?))
    UNION SELECT s.id, s.parent_id FROM path CROSS JOIN steps s ON s.id = path.parent_id)
  SELECT ${STEP_COLUMNS} FROM path CROSS JOIN steps s ON s.id = path.id
    LEFT JOIN tool_calls c ON c.step_id = s.id
  ORDER BY s.position, s.id`;

/** Null: all. */
const SEEN = `(@tenant IS NULL OR ${seenBy('@tenant')})`;

// The asked trajectory comes first, so that a cut never loses it.
const TREE_MEMBERS = `
  WITH RECURSIVE up (id, parent_id) AS (
      SELECT id, parent_id FROM steps WHERE id = @leafStepId
      UNION ALL SELECT s.id, s.parent_id FROM up CROSS JOIN steps s ON s.id = up.parent_id),
    down (id) AS (
      SELECT id FROM up WHERE parent_id IS NULL
      UNION ALL SELECT s.id FROM down CROSS JOIN steps s ON s.parent_id = down.id
      LIMIT @steps),
    mate (id, leaf) AS (
      SELECT id, leaf_step_id FROM trajectories t WHERE group_id = @groupId AND ${SEEN}
      ORDER BY created_at, id LIMIT @limit),
    member (id, leaf) AS (
      SELECT id, leaf_step_id FROM trajectories WHERE id = @id
      UNION SELECT t.id, t.leaf_step_id FROM down CROSS JOIN trajectories t
        ON t.leaf_step_id = down.id AND ${SEEN}
      UNION SELECT id, leaf FROM mate)
  SELECT id, leaf, (SELECT count(*) FROM down) AS walked FROM member
  ORDER BY id <> @id, id LIMIT @limit`;

const PATH_IDS = `
  WITH RECURSIVE path (id, parent_id) AS (
    SELECT id, parent_id FROM steps WHERE id = ?
    UNION ALL SELECT s.id, s.parent_id FROM path CROSS JOIN steps s ON s.id = path.parent_id)
  SELECT id FROM path`;

const NEWEST_THROUGH_STEP = `
  WITH RECURSIVE down (id) AS (
    SELECT id FROM steps WHERE id = @stepId
    UNION ALL SELECT s.id FROM down CROSS JOIN steps s ON s.parent_id = down.id)
  SELECT max(t.id) AS id FROM down CROSS JOIN trajectories t ON t.leaf_step_id = down.id
  WHERE ${SEEN}`;

const NEWEST_BY_CONTINUATION_KEY = `
  SELECT id FROM trajectories WHERE continuation_key = ? AND tenant = ? ORDER BY id DESC LIMIT 1`;

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

// Only conversations of an agent are trained on (live-samples.ts).
const NEW_SCORED = `
  SELECT count(*) FROM trajectories t
  WHERE source = 'live' AND rewarded_at > ?
    AND EXISTS (SELECT 1 FROM agent_runs r WHERE r.trajectory_id = t.id)`;

export class TrajectoryStore {
  private readonly pages: TrajectoryPages;
  private readonly byId: BetterSqlite3.Statement<[Record<string, unknown>], TrajectoryRow>;
  private readonly pathSteps: BetterSqlite3.Statement<[string], StepRow>;
  private readonly treeMembers: BetterSqlite3.Statement<[Record<string, unknown>], TreeMember>;
  private readonly pathIds: BetterSqlite3.Statement<[string], string>;
  private readonly newestThroughStep: BetterSqlite3.Statement<
    [Record<string, unknown>],
    { id: string | null }
  >;
  private readonly newestByKey: BetterSqlite3.Statement<[string, string], { id: string }>;
  private readonly offers: ClientOffers;
  private readonly newScored: BetterSqlite3.Statement<[number], number>;
  private readonly outcomes: BetterSqlite3.Statement<
    [Record<string, number>],
    { trajectories: number; reward: number | null; wrong: number }
  >;

  constructor(db: Database) {
    this.pages = new TrajectoryPages(db.sqlite);
    this.byId = db.sqlite.prepare(
      `SELECT ${TRAJECTORY_COLUMNS} FROM trajectories t WHERE t.id = @id AND ${SEEN}`,
    );
    this.pathSteps = db.sqlite.prepare<[string], StepRow>(PATH_STEPS).raw();
    this.treeMembers = db.sqlite.prepare(TREE_MEMBERS);
    this.pathIds = db.sqlite.prepare<[string], string>(PATH_IDS).pluck();
    this.newestThroughStep = db.sqlite.prepare(NEWEST_THROUGH_STEP);
    this.newestByKey = db.sqlite.prepare(NEWEST_BY_CONTINUATION_KEY);
    this.offers = new ClientOffers(db);
    this.newScored = db.sqlite.prepare<[number], number>(NEW_SCORED).pluck();
    this.outcomes = db.sqlite.prepare(LIVE_OUTCOMES);
  }

  /** Newest first, or oldest. @throws AppError invalid_request for a wrong limit or cursor. */
  list(filter: TrajectoryFilter = {}, page: TrajectoryPageRequest = {}): Page<TrajectoryRecord> {
    return this.pages.list(filter, page);
  }

  /** The same in small pieces, so that others get their turn between them. */
  listInTurns(
    filter: TrajectoryFilter,
    page: TrajectoryPageRequest,
  ): Promise<Page<TrajectoryRecord>> {
    return this.pages.listInTurns(filter, page);
  }

  /** With a tenant, only what that one sees; so of all that follow. */
  find(id: string, tenant?: string): TrajectoryRecord | null {
    const row = this.byId.get({ id, tenant: tenant ?? null });
    return row === undefined ? null : trajectoryFromRow(row);
  }

  /** The trajectory and its path. @throws AppError trajectory_not_found */
  get(id: string, tenant?: string): TrajectoryWithSteps {
    const trajectory = this.mustFind(id, tenant);
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
  tree(id: string, tenant?: string): TrajectoryTree {
    const { leafStepId, groupId } = this.mustFind(id, tenant);
    const { treeTrajectoriesMax, treeStepsMax } = LIMITS;
    const [limit, walk] = [treeTrajectoriesMax + 1, treeStepsMax + 1];
    const asked = { id, leafStepId, groupId, tenant: tenant ?? null };
    const found = this.treeMembers.all({ ...asked, limit, steps: walk });
    const fitting = this.withinSteps(found.slice(0, treeTrajectoriesMax));
    const leaves = JSON.stringify(fitting.map(({ leaf }) => leaf));
    const walked = found[0]?.walked ?? 0;
    return {
      trajectories: fitting.map((member) => this.mustFind(member.id)).sort(byId),
      steps: this.pathSteps.all(leaves).map(stepFromRow),
      truncated: fitting.length < found.length || walked > treeStepsMax,
    };
  }

  /** The first members, as many as LIMITS.treeStepsMax allows; one at least. */
  private withinSteps(members: readonly TreeMember[]): TreeMember[] {
    const steps = new Set<string>();
    const fitting: TreeMember[] = [];
    for (const member of members) {
      for (const step of this.pathIds.all(member.leaf)) steps.add(step);
      if (steps.size > LIMITS.treeStepsMax && fitting.length > 0) break;
      fitting.push(member);
    }
    return fitting;
  }

  /** The newest trajectory whose path holds the step, for feedback that names only a step. */
  findByStep(stepId: string, tenant?: string): TrajectoryRecord | null {
    const id = this.newestThroughStep.get({ stepId, tenant: tenant ?? null })?.id ?? null;
    return id === null ? null : this.find(id);
  }

  /** The newest trajectory of the tenant that was logged with the key. */
  newestByContinuationKey(key: string, tenant: string): TrajectoryRecord | null {
    const row = this.newestByKey.get(key, tenant);
    return row === undefined ? null : this.find(row.id);
  }

  /** What the client of a chat completion offered; nothing for other trajectories. */
  offerOf(id: string): ClientOffer {
    return this.offers.of(id);
  }

  /**
   * Live trajectories of agent runs whose reward was set or changed after the time (ms): what
   * training waits for.
   */
  countNewScored(sinceMs: number): number {
    return this.newScored.get(sinceMs) ?? 0;
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

  /** With a tenant, only one that it sees. @throws AppError trajectory_not_found */
  mustFind(id: string, tenant?: string): TrajectoryRecord {
    const trajectory = this.find(id, tenant);
    if (trajectory === null) {
      throw new AppError('trajectory_not_found', `no trajectory has the id ${id}`);
    }
    return trajectory;
  }
}
