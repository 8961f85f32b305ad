/**
 * The log that answers wait for: steps and trajectories, written by prepared statements in group
 * commits. Steps already stored are left alone, so a shared prefix is written once; a trajectory is
 * replaced by its newer state, but a reward that it already has is never taken away.
 */
import type BetterSqlite3 from 'better-sqlite3';
import { assert } from '../core/assert.ts';
import type { Clock } from '../core/clock.ts';
import type { LogBatch, StepLog } from '../core/ports.ts';
import type { TrajectoryRecord } from '../core/records.ts';
import { ClientOffers } from './client-offers.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import { StepWriter, prepareStep } from './step-row.ts';

// CROSS JOIN fixes the order: from the short path to the large tables, never a scan of those.
const PATH = `
  WITH RECURSIVE path (id, parent_id) AS (
    SELECT id, parent_id FROM steps WHERE id = @leafStepId
    UNION ALL SELECT s.id, s.parent_id FROM path CROSS JOIN steps s ON s.id = path.parent_id)`;

const UPSERT_TRAJECTORY = `
  INSERT INTO trajectories (id, source, conversation_id, leaf_step_id, policy_version, task_id,
    training_run_id, group_id, branched_from_step_id, status, end_reason, answer, format_ok, reward,
    rewarded_at, tool_calls, sampled_tokens, created_at, continuation_key, training_step,
    tenant, offered_tools, metadata, entropy_jump)
  VALUES (@id, @source, @conversationId, @leafStepId, @policyVersion, @taskId, @trainingRunId,
    @groupId, @branchedFromStepId, @status, @endReason, @answer, @formatOk, @reward,
    iif(@reward IS NULL, NULL, @now), @toolCalls, @sampledTokens, @createdAt, @continuationKey,
    @trainingStep, @tenant, @offeredTools, @metadata, (${PATH} SELECT max(s.delta_entropy) FROM path CROSS JOIN steps s
      ON s.id = path.id))
  ON CONFLICT (id) DO UPDATE SET source = excluded.source,
    conversation_id = excluded.conversation_id, leaf_step_id = excluded.leaf_step_id,
    policy_version = excluded.policy_version, task_id = excluded.task_id,
    training_run_id = excluded.training_run_id, group_id = excluded.group_id,
    branched_from_step_id = excluded.branched_from_step_id, status = excluded.status,
    end_reason = excluded.end_reason, answer = excluded.answer, format_ok = excluded.format_ok,
    rewarded_at = iif(excluded.reward IS NULL OR excluded.reward IS reward, rewarded_at,
      excluded.rewarded_at),
    reward = coalesce(excluded.reward, reward), tool_calls = excluded.tool_calls,
    sampled_tokens = excluded.sampled_tokens, continuation_key = excluded.continuation_key,
    entropy_jump = excluded.entropy_jump`;

// The time is the stored one: a later state of a trajectory does not change it.
const INSERT_TOOLS = `
  INSERT INTO trajectory_tools (tool_name, trajectory_id, created_at)
  ${PATH}
  SELECT DISTINCT c.name, @id, t.created_at FROM trajectories t CROSS JOIN path
    CROSS JOIN tool_calls c ON c.step_id = path.id WHERE t.id = @id
  ON CONFLICT (tool_name, trajectory_id) DO NOTHING`;

const INSERT_CONVERSATION = `
  INSERT INTO conversations (id, tenant, created_at, updated_at)
  VALUES (@conversationId, @tenant, @now, @now)
  ON CONFLICT (id) DO NOTHING`;

const MOVE_CONVERSATION = `
  UPDATE conversations SET last_trajectory_id = @id, updated_at = @now WHERE id = @conversationId`;

export class SqliteStepLog implements StepLog {
  private readonly commits: GroupCommit;
  private readonly clock: Clock;
  private readonly steps: StepWriter;
  private readonly offers: ClientOffers;
  private readonly statements: Record<
    'trajectory' | 'tools' | 'conversation' | 'moveConversation',
    BetterSqlite3.Statement
  >;

  constructor(db: Database, commits: GroupCommit, clock: Clock) {
    this.commits = commits;
    this.clock = clock;
    this.steps = new StepWriter(db);
    this.offers = new ClientOffers(db);
    this.statements = {
      trajectory: db.sqlite.prepare(UPSERT_TRAJECTORY),
      tools: db.sqlite.prepare(INSERT_TOOLS),
      conversation: db.sqlite.prepare(INSERT_CONVERSATION),
      moveConversation: db.sqlite.prepare(MOVE_CONVERSATION),
    };
  }

  /**
   * Resolves when all rows of the batch are durable, together. Steps may come in any order, as long
   * as each parent is in the batch or was appended before. What the records hold now is written,
   * whatever happens to them afterwards. A live trajectory becomes the newest of its conversation.
   * @throws AppError storage_failed (disk), internal (a parent or leaf that was never appended).
   */
  async append(batch: LogBatch): Promise<void> {
    const records = batch.steps ?? [];
    for (const record of records) {
      for (const figures of [record.logprobs, record.behaviourLogprobs, record.entropies]) {
        const fits = figures === null || figures.length === record.tokens.length;
        assert(fits, `step ${record.id} has ${record.tokens.length} tokens but other figures`);
      }
    }
    // A parent's index is smaller, so this order satisfies the foreign key.
    const steps = [...records].sort((a, b) => a.index - b.index).map(prepareStep);
    const trajectories = (batch.trajectories ?? []).map((record) => ({ ...record }));
    const rows = steps.length + trajectories.length;
    if (rows === 0) return;
    await this.commits.run(rows, () => {
      for (const step of steps) this.steps.write(step);
      for (const trajectory of trajectories) this.writeTrajectory(trajectory);
    });
  }

  /** Commits what waits, now; the promises of `append` settle. */
  flush(): void {
    this.commits.flush();
  }

  /** Commits what waits and refuses everything after. */
  close(): void {
    this.commits.close();
  }

  private writeTrajectory(record: TrajectoryRecord): void {
    const { offer, ...columns } = record;
    const parameters = {
      ...columns,
      ...this.offers.keep(offer ?? { tools: [], metadata: null }),
      formatOk: record.formatOk ? 1 : 0,
      continuationKey: record.continuationKey ?? null,
      trainingStep: record.trainingStep ?? null,
      now: this.clock.now(),
    };
    if (record.conversationId !== null) this.statements.conversation.run(parameters);
    this.statements.trajectory.run(parameters);
    this.statements.tools.run(parameters);
    if (record.conversationId !== null && record.source === 'live') {
      this.statements.moveConversation.run(parameters);
    }
  }
}
