/**
 * Every table, with what always holds in it. `npx drizzle-kit generate` turns a change of this file
 * into the next file of migrations/; applied migrations are never edited.
 *
 * Times are milliseconds since the epoch, JSON is text, token arrays are little-endian blobs
 * (db/token-blob.ts). Ids are UUIDv7 with a prefix, so ordering by id is ordering by creation.
 * Facts of the log hold no foreign key to policies, tasks or training runs: they outlive those, and
 * rollouts are sampled by weights that never become a registered version.
 */
import { sql } from 'drizzle-orm';
import type { AnySQLiteColumn } from 'drizzle-orm/sqlite-core';
import {
  blob,
  index,
  integer,
  primaryKey,
  real,
  sqliteTable,
  text,
  uniqueIndex,
} from 'drizzle-orm/sqlite-core';
import { DEFAULT_TENANT } from '../core/records.ts';
import type {
  AgentRunRecord,
  AgentRunStatus,
  ClientTool,
  DecisionFigures,
  EndReason,
  GateReport,
  PolicyDecision,
  PolicyRecord,
  PolicyStatus,
  ResponseItem,
  ResponseRecord,
  ResponseStatus,
  SamplingParams,
  StepKind,
  Task,
  TaskSplit,
  ToolCallRecord,
  TrajectoryRecord,
  TrajectorySource,
} from '../core/records.ts';

export * from './key-schema.ts';
export * from './training-schema.ts';

/**
 * Versions only grow and are never reused; at most one row is `active` and one `canary` (unique
 * indexes hold it). A path is absolute, or one from the data folder.
 */
export const policies = sqliteTable(
  'policies',
  {
    version: integer().primaryKey(),
    parentVersion: integer('parent_version').references((): AnySQLiteColumn => policies.version),
    kind: text().$type<PolicyRecord['kind']>().notNull(),
    path: text().notNull(),
    sha256: text().notNull(),
    sourceRunId: text('source_run_id'),
    status: text().$type<PolicyStatus>().notNull(),
    evaluation: text({ mode: 'json' }).$type<GateReport>(),
    createdAt: integer('created_at').notNull(),
    removedAt: integer('removed_at'),
    /** When live traffic had shown enough of it; null: it may still be taken back for that. */
    settledAt: integer('settled_at'),
  },
  (table) => [
    uniqueIndex('policies_one_active')
      .on(table.status)
      .where(sql`"status" = 'active'`),
    uniqueIndex('policies_one_canary')
      .on(table.status)
      .where(sql`"status" = 'canary'`),
  ],
);

/** Rows are never changed; one is written with the change of status that it explains. */
export const policyDecisions = sqliteTable(
  'policy_decisions',
  {
    id: text().primaryKey(),
    kind: text().$type<PolicyDecision['kind']>().notNull(),
    version: integer()
      .notNull()
      .references(() => policies.version),
    otherVersion: integer('other_version'),
    cause: text().$type<PolicyDecision['cause']>().notNull(),
    reason: text().notNull(),
    figures: text({ mode: 'json' }).$type<DecisionFigures>().notNull(),
    trainingRunId: text('training_run_id'),
    createdAt: integer('created_at').notNull(),
  },
  (table) => [
    index('policy_decisions_version').on(table.version, table.id),
    index('policy_decisions_run').on(table.trainingRunId, table.id),
  ],
);

/**
 * A session key names one conversation of its tenant for as long as anything is of it: one that
 * the log has forgotten begins anew. `last_trajectory_id` is a trajectory of it.
 */
export const conversations = sqliteTable(
  'conversations',
  {
    id: text().primaryKey(),
    sessionKey: text('session_key'),
    lastTrajectoryId: text('last_trajectory_id').references(
      (): AnySQLiteColumn => trajectories.id,
      {
        onDelete: 'set null',
      },
    ),
    createdAt: integer('created_at').notNull(),
    updatedAt: integer('updated_at').notNull(),
    tenant: text().notNull().default(DEFAULT_TENANT),
  },
  // SQLite looks for children of a trajectory at every update of one.
  (table) => [
    index('conversations_last_trajectory').on(table.lastTrajectoryId),
    uniqueIndex('conversations_session').on(table.tenant, table.sessionKey),
  ],
);

/**
 * A forest: a parent exists before its child, and a row never changes, so there are no cycles. A
 * shared prefix is one chain of rows. The three f32 blobs are null or as long as `tokens`.
 */
export const steps = sqliteTable(
  'steps',
  {
    id: text().primaryKey(),
    parentId: text('parent_id').references((): AnySQLiteColumn => steps.id),
    /** StepRecord.index: 0 for a root, the parent's + 1 below. */
    position: integer().notNull(),
    kind: text().$type<StepKind>().notNull(),
    policyVersion: integer('policy_version').notNull(),
    tokens: blob({ mode: 'buffer' }).notNull(),
    logprobs: blob({ mode: 'buffer' }),
    behaviourLogprobs: blob('behaviour_logprobs', { mode: 'buffer' }),
    entropies: blob({ mode: 'buffer' }),
    sampling: text({ mode: 'json' }).$type<SamplingParams>(),
    stepEntropy: real('step_entropy'),
    deltaEntropy: real('delta_entropy'),
    text: text().notNull(),
    startedAt: integer('started_at').notNull(),
    durationMs: real('duration_ms').notNull(),
  },
  (table) => [index('steps_parent').on(table.parentId)],
);

/** At most one call a step. Only `result` and what comes with it may change, once, from null. */
export const toolCalls = sqliteTable('tool_calls', {
  stepId: text('step_id')
    .primaryKey()
    .references(() => steps.id, { onDelete: 'cascade' }),
  id: text().notNull(),
  name: text().notNull(),
  arguments: text().notNull(),
  result: text(),
  error: text(),
  durationMs: real('duration_ms').notNull(),
  effects: text().$type<ToolCallRecord['effects']>().notNull(),
  served: text().$type<ToolCallRecord['served']>().notNull(),
});

/**
 * Ranges cannot be read in the order of creation from an index over the values themselves; over
 * levels they can, as a merge of a few walks. What very many rows have, as verifiers give it, is a
 * level of its own. The same arithmetic is in db/trajectory-filter.ts.
 */
const REWARD_LEVEL = sql.raw(
  '(CASE WHEN "reward" < -1 THEN 0 WHEN "reward" = -1 THEN 1 WHEN "reward" < 0 ' +
    'THEN CAST("reward" * 8 + 10 AS INTEGER) WHEN "reward" = 0 THEN 10 WHEN "reward" < 1 ' +
    'THEN CAST("reward" * 8 + 11 AS INTEGER) WHEN "reward" = 1 THEN 19 WHEN "reward" > 1 ' +
    'THEN 20 END)',
);
const JUMP_LEVEL = sql.raw(
  '(CASE WHEN "entropy_jump" <= 0 THEN 0 WHEN "entropy_jump" > 0.95 THEN 20 ' +
    'ELSE CAST("entropy_jump" * 20 + 1 AS INTEGER) END)',
);

/**
 * The path from a root to `leaf_step_id`. `reward` is null (not scored) or the latest of verifier
 * and feedback, and `rewarded_at` is null exactly when it is. `continuation_key` is set where a
 * chat client may go on: it digests the conversation as the client will send it back.
 * `offered_tools` and `metadata` are of a chat completion, null where it had none.
 */
export const trajectories = sqliteTable(
  'trajectories',
  {
    id: text().primaryKey(),
    source: text().$type<TrajectorySource>().notNull(),
    conversationId: text('conversation_id').references(() => conversations.id),
    leafStepId: text('leaf_step_id')
      .notNull()
      .references(() => steps.id),
    policyVersion: integer('policy_version').notNull(),
    taskId: text('task_id'),
    trainingRunId: text('training_run_id'),
    groupId: text('group_id'),
    branchedFromStepId: text('branched_from_step_id').references(() => steps.id),
    status: text().$type<TrajectoryRecord['status']>().notNull(),
    endReason: text('end_reason').$type<EndReason>().notNull(),
    answer: text(),
    formatOk: integer('format_ok', { mode: 'boolean' }).notNull(),
    reward: real(),
    rewardedAt: integer('rewarded_at'),
    toolCalls: integer('tool_calls').notNull(),
    sampledTokens: integer('sampled_tokens').notNull(),
    createdAt: integer('created_at').notNull(),
    continuationKey: text('continuation_key'),
    trainingStep: integer('training_step'),
    /** Largest dH of the path's steps; null when nothing was sampled. */
    entropyJump: real('entropy_jump'),
    /** The training run that was fed with it first; feedback that comes later is late. */
    consumedBy: text('consumed_by'),
    tenant: text().notNull().default(DEFAULT_TENANT),
    /** A digest of `offered_tools`. */
    offeredTools: text('offered_tools'),
    metadata: text({ mode: 'json' }).$type<Record<string, string>>(),
  },
  (table) => [
    index('trajectories_leaf').on(table.leafStepId),
    // What lists filter by, each in the order of lists (trajectory-pages.ts).
    // With what most lists filter by, so that a scan for several of these needs no rows.
    index('trajectories_created').on(
      table.createdAt,
      table.id,
      table.source,
      table.status,
      table.endReason,
      table.policyVersion,
      table.tenant,
      table.reward,
      table.entropyJump,
    ),
    index('trajectories_policy').on(table.policyVersion, table.createdAt, table.id),
    index('trajectories_source').on(table.source, table.createdAt, table.id),
    index('trajectories_status').on(table.status, table.createdAt, table.id),
    index('trajectories_end').on(table.endReason, table.createdAt, table.id),
    index('trajectories_task').on(table.taskId, table.createdAt, table.id),
    index('trajectories_run').on(table.trainingRunId, table.createdAt, table.id),
    index('trajectories_group').on(table.groupId, table.createdAt, table.id),
    index('trajectories_conversation').on(table.conversationId, table.createdAt, table.id),
    // With the value itself, for the rows of a level that a bound leaves out.
    index('trajectories_reward').on(REWARD_LEVEL, table.createdAt, table.id, table.reward),
    index('trajectories_jump').on(JUMP_LEVEL, table.createdAt, table.id, table.entropyJump),
    index('trajectories_scored').on(table.source, table.rewardedAt),
    // Rollouts, the most of the rows, have no key.
    index('trajectories_continuation')
      .on(table.continuationKey, table.id)
      .where(sql`"continuation_key" IS NOT NULL`),
    // What a version did in live traffic; its rollouts are many more.
    index('trajectories_live')
      .on(table.policyVersion, table.id)
      .where(sql`"source" = 'live'`),
    // What a tenant sees: its own live traffic.
    index('trajectories_tenant')
      .on(table.tenant, table.createdAt, table.id)
      .where(sql`"source" = 'live'`),
    // SQLite looks for branches of a step when it is deleted.
    index('trajectories_branched')
      .on(table.branchedFromStepId)
      .where(sql`"branched_from_step_id" IS NOT NULL`),
    // Whether a list of tools is still named, when a trajectory that named it goes.
    index('trajectories_offered')
      .on(table.offeredTools)
      .where(sql`"offered_tools" IS NOT NULL`),
  ],
);

/**
 * The functions that clients of chat completions offered: each list once, whoever sends it how
 * often. A row is never changed.
 */
export const offeredTools = sqliteTable('offered_tools', {
  digest: text().primaryKey(),
  tools: text({ mode: 'json' }).$type<ClientTool[]>().notNull(),
});

/**
 * Answers to calls with an Idempotency-Key, to be given again (answer-store.ts). `digest` is of
 * what was asked, `bytes` what counts for the tenant's room.
 */
export const keptAnswers = sqliteTable(
  'kept_answers',
  {
    tenant: text().notNull(),
    key: text().notNull(),
    digest: text().notNull(),
    headers: text({ mode: 'json' }).$type<Record<string, string>>().notNull(),
    body: blob({ mode: 'buffer' }).notNull(),
    bytes: integer().notNull(),
    createdAt: integer('created_at').notNull(),
    status: integer().notNull().default(200),
  },
  (table) => [
    primaryKey({ columns: [table.tenant, table.key] }),
    index('kept_answers_age').on(table.tenant, table.createdAt, table.bytes),
  ],
);

/**
 * The names of the tools called on a trajectory's path, kept so that lists can filter by tool;
 * `created_at` is the trajectory's.
 */
export const trajectoryTools = sqliteTable(
  'trajectory_tools',
  {
    toolName: text('tool_name').notNull(),
    trajectoryId: text('trajectory_id')
      .notNull()
      .references(() => trajectories.id, { onDelete: 'cascade' }),
    createdAt: integer('created_at').notNull().default(0),
  },
  (table) => [
    primaryKey({ columns: [table.toolName, table.trajectoryId] }),
    index('trajectory_tools_trajectory').on(table.trajectoryId),
    index('trajectory_tools_created').on(table.toolName, table.createdAt, table.trajectoryId),
  ],
);

/** History: rows are never changed or replaced. A step, when named, lies on the trajectory. */
export const feedback = sqliteTable(
  'feedback',
  {
    id: text().primaryKey(),
    trajectoryId: text('trajectory_id')
      .notNull()
      .references(() => trajectories.id, { onDelete: 'cascade' }),
    stepId: text('step_id').references(() => steps.id),
    metricName: text('metric_name').notNull(),
    value: text({ mode: 'json' }).$type<number | boolean | string>().notNull(),
    tags: text({ mode: 'json' }).$type<Record<string, string>>().notNull(),
    createdAt: integer('created_at').notNull(),
    /** It came after a training run had consumed the trajectory. */
    late: integer({ mode: 'boolean' }).notNull().default(false),
  },
  (table) => [
    index('feedback_trajectory').on(table.trajectoryId),
    // Newest ratings first: within one metric the index is in the order of arrival.
    index('feedback_metric').on(table.metricName),
    index('feedback_step')
      .on(table.stepId)
      .where(sql`"step_id" IS NOT NULL`),
  ],
);

/** One row a question; importing the same id again replaces the row. */
export const tasks = sqliteTable(
  'tasks',
  {
    id: text().primaryKey(),
    family: text().notNull(),
    split: text().$type<TaskSplit>().notNull(),
    question: text().notNull(),
    truths: text({ mode: 'json' }).$type<string[]>().notNull(),
    verifier: text().$type<Task['verifier']>().notNull(),
    tools: text({ mode: 'json' }).$type<string[]>().notNull(),
    metadata: text({ mode: 'json' }).$type<Task['metadata']>().notNull(),
  },
  (table) => [
    index('tasks_split').on(table.split, table.family, table.id),
    index('tasks_family').on(table.family, table.id),
  ],
);

/**
 * `ended_at` is set exactly when the status is completed, failed or cancelled. The path to
 * `leaf_step_id` is stored; a trajectory is there once the run has waited or ended.
 */
export const agentRuns = sqliteTable(
  'agent_runs',
  {
    id: text().primaryKey(),
    status: text().$type<AgentRunStatus>().notNull(),
    model: text().notNull(),
    policyVersion: integer('policy_version'),
    request: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    trajectoryId: text('trajectory_id'),
    answer: text(),
    usage: text({ mode: 'json' }).$type<AgentRunRecord['usage']>(),
    error: text({ mode: 'json' }).$type<AgentRunRecord['error']>(),
    createdAt: integer('created_at').notNull(),
    startedAt: integer('started_at'),
    endedAt: integer('ended_at'),
    conversationId: text('conversation_id'),
    leafStepId: text('leaf_step_id'),
    waitsUntil: integer('waits_until'),
    progress: text({ mode: 'json' }).$type<AgentRunRecord['progress']>(),
    tenant: text().notNull().default(DEFAULT_TENANT),
    keyId: text('key_id'),
  },
  (table) => [
    index('agent_runs_status').on(table.status, table.id),
    index('agent_runs_tenant').on(table.tenant, table.id),
    index('agent_runs_trajectory').on(table.trajectoryId),
    index('agent_runs_conversation')
      .on(table.conversationId)
      .where(sql`"conversation_id" IS NOT NULL`),
  ],
);

/**
 * `completed_at` is null exactly while the status is in_progress. `previous_id` is of the same
 * tenant. A row with `deleted_at` is kept for those that go on from it, and goes with the last one.
 */
export const responses = sqliteTable(
  'responses',
  {
    id: text().primaryKey(),
    tenant: text().notNull(),
    status: text().$type<ResponseStatus>().notNull(),
    policyVersion: integer('policy_version').notNull(),
    settings: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    previousId: text('previous_id'),
    conversationId: text('conversation_id'),
    sessionId: text('session_id'),
    trajectoryId: text('trajectory_id'),
    usage: text({ mode: 'json' }).$type<ResponseRecord['usage']>(),
    error: text({ mode: 'json' }).$type<ResponseRecord['error']>(),
    incompleteReason: text('incomplete_reason').$type<ResponseRecord['incompleteReason']>(),
    createdAt: integer('created_at').notNull(),
    completedAt: integer('completed_at'),
    deletedAt: integer('deleted_at'),
    leafStepId: text('leaf_step_id'),
  },
  (table) => [
    index('responses_previous')
      .on(table.previousId)
      .where(sql`"previous_id" IS NOT NULL`),
    index('responses_conversation')
      .on(table.conversationId, table.id)
      .where(sql`"conversation_id" IS NOT NULL`),
    index('responses_trajectory')
      .on(table.trajectoryId)
      .where(sql`"trajectory_id" IS NOT NULL`),
    index('responses_cut')
      .on(table.id)
      .where(sql`"leaf_step_id" IS NOT NULL`),
    index('responses_unfinished')
      .on(table.id)
      .where(sql`"status" = 'in_progress'`),
  ],
);

/** What a response was given by its request (`output` false), in order, and what it answered. */
export const responseItems = sqliteTable(
  'response_items',
  {
    responseId: text('response_id')
      .notNull()
      .references(() => responses.id, { onDelete: 'cascade' }),
    output: integer({ mode: 'boolean' }).notNull(),
    position: integer().notNull(),
    /** The item's own; a client may send one back, so it is not unique. */
    id: text().notNull(),
    item: text({ mode: 'json' }).$type<ResponseItem>().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.responseId, table.output, table.position] }),
    index('response_items_id').on(table.id),
  ],
);
