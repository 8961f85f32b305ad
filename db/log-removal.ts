/**
 * Takes old trajectories out of the log, with all that belongs to them alone: steps, calls,
 * feedback, the agent run or response that made them, lists of offered tools, conversations that
 * nothing names any more. Which ones go, and that they are exported before, is the business of
 * api/log-retention.ts.
 *
 * Never removed: what is under way or waits, or shares its conversation with such; what a request
 * goes on from (recent-use.ts); what live traffic has shown of a version that it may still take
 * back, as the judgement is over all of it; anything while a training run is queued, running or to
 * be resumed, as that may read any of it.
 */
import { isDeepStrictEqual } from 'node:util';
import type BetterSqlite3 from 'better-sqlite3';
import { LIMITS } from '../core/limits.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import type { PolicyStore } from './policy-store.ts';
import type { RecentUse } from './recent-use.ts';
import type { ResponseStore } from './response-store.ts';
import { StepRemoval } from './step-removal.ts';
import type { RemovedTrajectory } from './step-removal.ts';
import type { TrainingStore } from './training-store.ts';

/** An old trajectory as it was when it was chosen. One that has changed since is not removed. */
export interface OldTrajectory extends RemovedTrajectory {
  createdAt: number;
  conversation: string | null;
  offeredTools: string | null;
  source: string;
  policyVersion: number;
  status: string;
  reward: number | null;
  rewardedAt: number | null;
  newestFeedback: number | null;
}

/** A place in the order of (creation, id). */
export type Place = Pick<OldTrajectory, 'createdAt' | 'id'>;

const COLUMNS = `
  id, leaf_step_id AS leaf, created_at AS createdAt, conversation_id AS conversation,
  offered_tools AS offeredTools, source, policy_version AS policyVersion, status, reward, rewarded_at AS rewardedAt,
  (SELECT max(rowid) FROM feedback WHERE trajectory_id = t.id) AS newestFeedback`;

const OLDEST = `
  SELECT ${COLUMNS} FROM trajectories t
  WHERE (created_at, id) > (@createdAt, @id) AND created_at < @before
  ORDER BY created_at, id LIMIT @limit`;

const NOW = `SELECT ${COLUMNS} FROM trajectories t WHERE id = ?`;

const OLDEST_AT = 'SELECT min(created_at) FROM trajectories';

// Few: both are bounded, and have an index; what is asked of the id makes SQLite take that.
const BUSY = `
  SELECT trajectory_id, conversation_id FROM agent_runs
  WHERE status IN ('queued', 'in_progress', 'requires_action')
  UNION ALL SELECT trajectory_id, conversation_id FROM responses
  WHERE status = 'in_progress' AND id > ''`;

/** About what a trajectory, and a step, uses besides its figures and text, indexes included. */
const [TRAJECTORY_BYTES, STEP_BYTES] = [1_000, 450];

// Lengths are in the head of a row: the figures themselves are not read.
const STEP_SIZE = `
  SELECT parent_id AS parent, ${STEP_BYTES} + length(tokens) + octet_length(text)
    + ifnull(length(logprobs), 0) + ifnull(length(behaviour_logprobs), 0)
    + ifnull(length(entropies), 0) AS bytes
  FROM steps WHERE id = ?`;

const RUNS_GONE = `
  DELETE FROM agent_runs WHERE trajectory_id = ? AND ended_at IS NOT NULL
  RETURNING conversation_id`;

const RESPONSES_OF = 'SELECT id FROM responses WHERE trajectory_id = ?';

const TOOLS_UNNAMED = `
  DELETE FROM offered_tools WHERE digest = @digest
    AND NOT EXISTS (SELECT 1 FROM trajectories WHERE offered_tools = @digest)`;

const UNNAMED = `
  NOT EXISTS (SELECT 1 FROM trajectories WHERE conversation_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM responses WHERE conversation_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM agent_runs WHERE conversation_id = c.id)`;

const CONVERSATION_UNNAMED = `DELETE FROM conversations AS c WHERE id = ? AND ${UNNAMED}`;

/** Rows that may be left over, in the order of their ids and so of their creation. */
const LEFT_OVER = {
  agentRun: `
    SELECT id, created_at AS createdAt, leaf_step_id AS leaf, ended_at IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM trajectories WHERE id = r.trajectory_id) AS over
    FROM agent_runs r WHERE id > @after ORDER BY id LIMIT @limit`,
  response: `
    SELECT id, created_at AS createdAt, NULL AS leaf, status <> 'in_progress' AND leaf_step_id IS NULL
      AND deleted_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM trajectories WHERE id = p.trajectory_id) AS over
    FROM responses p WHERE id > @after ORDER BY id LIMIT @limit`,
  conversation: `
    SELECT id, created_at AS createdAt, NULL AS leaf, updated_at < @before AND ${UNNAMED} AS over
    FROM conversations c WHERE id > @after ORDER BY id LIMIT @limit`,
} as const;

export type LeftOverKind = keyof typeof LEFT_OVER;
export const LEFT_OVER_KINDS = Object.keys(LEFT_OVER) as readonly LeftOverKind[];

interface LeftOver {
  id: string;
  createdAt: number;
  /** The last step that it alone may name. */
  leaf: string | null;
  over: number;
}

interface Busy {
  ids: ReadonlySet<string | null>;
  version: number | null;
}

type Named = Record<string, unknown>;
type Statement<Row> = BetterSqlite3.Statement<[string], Row>;

export interface LogRemovalParts {
  commits: GroupCommit;
  responses: ResponseStore;
  policies: Pick<PolicyStore, 'watched'>;
  training: TrainingStore;
  recentUse: RecentUse;
}

export class LogRemoval {
  private readonly sqlite: BetterSqlite3.Database;
  private readonly parts: LogRemovalParts;
  private readonly steps: StepRemoval;
  private readonly select: {
    oldest: BetterSqlite3.Statement<[Named], OldTrajectory>;
    now: Statement<OldTrajectory>;
    oldestAt: BetterSqlite3.Statement<[], number | null>;
    busy: BetterSqlite3.Statement<[], [string | null, string | null]>;
    stepSize: Statement<{ parent: string | null; bytes: number }>;
    responsesOf: Statement<string>;
    leftOver: Record<LeftOverKind, BetterSqlite3.Statement<[Named], LeftOver>>;
  };
  private readonly delete: {
    runsOf: Statement<string | null>;
    run: Statement<never>;
    tools: BetterSqlite3.Statement<[Named]>;
    conversation: Statement<never>;
  };

  constructor({ sqlite }: Database, parts: LogRemovalParts) {
    this.sqlite = sqlite;
    this.parts = parts;
    this.steps = new StepRemoval({ sqlite });
    this.select = {
      oldest: sqlite.prepare(OLDEST),
      now: sqlite.prepare(NOW),
      oldestAt: sqlite.prepare<[], number | null>(OLDEST_AT).pluck(),
      busy: sqlite.prepare<[], [string | null, string | null]>(BUSY).raw(),
      stepSize: sqlite.prepare(STEP_SIZE),
      responsesOf: sqlite.prepare<[string], string>(RESPONSES_OF).pluck(),
      leftOver: {
        agentRun: sqlite.prepare(LEFT_OVER.agentRun),
        response: sqlite.prepare(LEFT_OVER.response),
        conversation: sqlite.prepare(LEFT_OVER.conversation),
      },
    };
    this.delete = {
      runsOf: sqlite.prepare<[string], string | null>(RUNS_GONE).pluck(),
      run: sqlite.prepare('DELETE FROM agent_runs WHERE id = ?'),
      tools: sqlite.prepare(TOOLS_UNNAMED),
      conversation: sqlite.prepare(CONVERSATION_UNNAMED),
    };
  }

  /** Whether a training run needs the log as it is. */
  get isRead(): boolean {
    return this.parts.training.unfinished().length > 0;
  }

  /** Bytes of the database that rows use; what is free in it, the next rows take. */
  get usedBytes(): number {
    const pages = this.number('page_count') - this.number('freelist_count');
    return pages * this.number('page_size');
  }

  /** When the oldest trajectory was created; null: there is none. */
  get oldestAt(): number | null {
    return this.select.oldestAt.get() ?? null;
  }

  /** The oldest trajectories behind a place that may go; `last`: where to go on, null: no more. */
  oldest(
    after: Place,
    before: number,
    limit: number,
  ): { old: OldTrajectory[]; last: Place | null } {
    const { id, createdAt } = after;
    const found = this.select.oldest.all({ id, createdAt, before, limit });
    const busy = this.busy();
    const old = found.filter((one) => !this.isBusy(one, busy));
    return { old, last: found.length < limit ? null : (found.at(-1) ?? null) };
  }

  /** About as many bytes as a trajectory uses, but for steps that were counted already. */
  bytesOf({ leaf }: Pick<OldTrajectory, 'leaf'>, counted: Set<string>): number {
    let bytes = TRAJECTORY_BYTES;
    for (let id: string | null = leaf; id !== null && !counted.has(id);) {
      const step = this.select.stepSize.get(id);
      counted.add(id);
      bytes += step?.bytes ?? 0;
      id = step?.parent ?? null;
    }
    return bytes;
  }

  /**
   * Removes those that still are as they were chosen and still may go. Resolves with their number
   * when that is durable.
   * @throws AppError storage_failed
   */
  remove(chosen: readonly OldTrajectory[], nowMs: number): Promise<number> {
    return this.parts.commits.run(chosen.length, () => {
      if (this.isRead) return 0;
      const busy = this.busy();
      const going = chosen.filter(
        (one) =>
          !this.isBusy(one, busy) && isDeepStrictEqual(this.select.now.get(one.id) ?? null, one),
      );
      this.steps.remove(going);
      const conversations = new Set<string | null>();
      for (const { id, conversation } of going) {
        conversations.add(conversation);
        for (const one of this.delete.runsOf.all(id)) conversations.add(one);
        for (const response of this.select.responsesOf.all(id)) {
          for (const one of this.parts.responses.removeNow(response, nowMs)) conversations.add(one);
        }
      }
      for (const id of conversations) this.removeConversation(id);
      const lists = new Set(going.map(({ offeredTools }) => offeredTools));
      for (const digest of lists) if (digest !== null) this.delete.tools.run({ digest });
      return going.length;
    });
  }

  /**
   * Looks at some rows of before a time that have lost their trajectory, or never had one, and
   * removes them. Resolves with the last id that was looked at; null: there are no more.
   * @throws AppError storage_failed
   */
  removeLeftOver(
    kind: LeftOverKind,
    { after, before, limit }: { after: string; before: number; limit: number },
    nowMs: number,
  ): Promise<string | null> {
    return this.parts.commits.run(limit, () => {
      if (this.isRead) return null;
      const rows = this.select.leftOver[kind].all({ after, before, limit });
      const old = rows.filter(({ createdAt }) => createdAt < before);
      for (const { id, over, leaf } of old) {
        if (over === 0) continue;
        if (leaf !== null) this.steps.removePath(leaf);
        if (kind === 'agentRun') this.delete.run.run(id);
        else if (kind === 'response') this.parts.responses.removeNow(id, nowMs);
        else this.removeConversation(id);
      }
      return old.length < limit ? null : (old.at(-1)?.id ?? null);
    });
  }

  /**
   * Gives free pages back to the file system, some at a time: all but an eighth of the file, which
   * the next rows will take. Resolves with whether there are more. Not of a file of old versions.
   */
  shrink(): Promise<boolean> {
    const { freedPagesPerWrite: pages } = LIMITS;
    const tooMany = (): boolean => this.number('freelist_count') > this.number('page_count') / 8;
    return this.parts.commits.run(pages, () => {
      const before = this.number('freelist_count');
      if (tooMany()) this.sqlite.pragma(`incremental_vacuum(${pages})`);
      return this.number('freelist_count') < before && tooMany();
    });
  }

  private number(pragma: string): number {
    return this.sqlite.pragma(pragma, { simple: true }) as number;
  }

  private removeConversation(id: string | null): void {
    if (id !== null && !this.parts.recentUse.has(id)) this.delete.conversation.run(id);
  }

  /** Trajectories and conversations of what is under way or waits, and the watched version. */
  private busy(): Busy {
    return {
      ids: new Set(this.select.busy.all().flat()),
      version: this.parts.policies.watched()?.version ?? null,
    };
  }

  private isBusy({ id, conversation, ...one }: OldTrajectory, { ids, version }: Busy): boolean {
    const { recentUse } = this.parts;
    if (ids.has(id) || recentUse.has(id)) return true;
    const isLive = one.source === 'live' && one.status !== 'cancelled';
    if (isLive && one.policyVersion === version) return true;
    return conversation !== null && (ids.has(conversation) || recentUse.has(conversation));
  }
}
