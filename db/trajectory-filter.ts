/**
 * What lists of trajectories can be asked for, as SQL: which index each condition can be read from,
 * and the condition itself. Every index goes on with (created_at, id), the order of lists, so a
 * page is read from wherever its cursor points. A range of rewards or of entropy jumps is a few
 * levels (schema.ts), each with a walk of its own, which SQLite merges. The index of creation holds
 * most of what can be asked for: where no condition is rare, all rows are looked at there.
 */
import type { EndReason, TrajectoryRecord, TrajectorySource } from '../core/records.ts';

/** All given conditions must hold. */
export interface TrajectoryFilter {
  /** What the tenant sees: its own live traffic. */
  tenant?: string;
  policyVersion?: number;
  source?: TrajectorySource;
  status?: TrajectoryRecord['status'];
  endReason?: EndReason;
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
  /** Of the largest dH of its steps, inclusive; leaves out what has none. */
  entropyJumpMin?: number;
  /** Milliseconds, inclusive. */
  createdFrom?: number;
  /** Milliseconds, exclusive. */
  createdBefore?: number;
}

export interface Condition {
  /** On `t`, the trajectory, with a `?` for each value. */
  sql: string;
  values: readonly (string | number)[];
}

/** A way to read what fits one condition, or all rows: walks of one index. */
export interface Lead {
  /** The index, or null for the one of tool names, which is another table's. */
  index: string | null;
  /** One walk each; what they find is disjoint. */
  walks: readonly Condition[];
  /** Microseconds of a row that is looked at in vain, as measured by the bench of the log. */
  micros: number;
}

/** A row that the index does not hold, mostly on a page of the file of its own. */
const FAR_ROW = 2;
/** The tool's name is in another table, so two rows are looked up. */
const TOOL_ROW = 4;
/** What is compared lies in the index. */
const COVERED = 0.3;
/** The same, in a merge of levels. */
const COVERED_LEVEL = 0.4;
/** Rows one after the other, in the order in which they were written. */
const NEXT_ROW = 0.6;
/** The name of a tool, by the ids of such rows. */
const NEXT_TOOL = 1.5;

/** Columns that lists can be asked for by value, with their indexes. */
const EQUAL = [
  ['groupId', 'group_id', 'trajectories_group'],
  ['conversationId', 'conversation_id', 'trajectories_conversation'],
  ['taskId', 'task_id', 'trajectories_task'],
  ['trainingRunId', 'training_run_id', 'trajectories_run'],
  ['policyVersion', 'policy_version', 'trajectories_policy'],
  ['endReason', 'end_reason', 'trajectories_end'],
  ['status', 'status', 'trajectories_status'],
  ['source', 'source', 'trajectories_source'],
] as const;

/** On `t`: what a tenant sees. What training and replays made is the operator's. */
export const seenBy = (tenant: string): string => `t.tenant = ${tenant} AND t.source = 'live'`;

/** The same expressions and arithmetic as in schema.ts. */
const REWARD_LEVEL =
  '(CASE WHEN t."reward" < -1 THEN 0 WHEN t."reward" = -1 THEN 1 WHEN t."reward" < 0 ' +
  'THEN CAST(t."reward" * 8 + 10 AS INTEGER) WHEN t."reward" = 0 THEN 10 WHEN t."reward" < 1 ' +
  'THEN CAST(t."reward" * 8 + 11 AS INTEGER) WHEN t."reward" = 1 THEN 19 WHEN t."reward" > 1 ' +
  'THEN 20 END)';
const JUMP_LEVEL =
  '(CASE WHEN t."entropy_jump" <= 0 THEN 0 WHEN t."entropy_jump" > 0.95 THEN 20 ' +
  'ELSE CAST(t."entropy_jump" * 20 + 1 AS INTEGER) END)';
const REWARD_LEVELS = 20;
const JUMP_LEVELS = 20;

export function rewardLevel(reward: number): number {
  if (reward < -1) return 0;
  if (reward === -1) return 1;
  if (reward < 0) return Math.trunc(reward * 8 + 10);
  if (reward === 0) return 10;
  if (reward < 1) return Math.trunc(reward * 8 + 11);
  return reward === 1 ? 19 : REWARD_LEVELS;
}

export function jumpLevel(jump: number): number {
  if (jump <= 0) return 0;
  return jump > 0.95 ? JUMP_LEVELS : Math.trunc(jump * 20 + 1);
}

/**
 * The ways to begin, the most likely one first and that over all rows last; any of them, with the
 * other conditions checked, finds all.
 */
export function leadsOf(filter: TrajectoryFilter): [Lead, ...Lead[]] {
  const [first, ...others] = narrowLeads(filter);
  const last = everything(filter);
  return first === undefined ? [last] : [first, ...others, last];
}

function narrowLeads(filter: TrajectoryFilter): Lead[] {
  const leads: Lead[] = [];
  if (filter.tenant !== undefined) {
    const walks = [{ sql: seenBy('?'), values: [filter.tenant] }];
    leads.push({ index: 'trajectories_tenant', walks, micros: FAR_ROW });
  }
  for (const [field, column, index] of EQUAL) {
    const value = filter[field];
    if (value === undefined) continue;
    const walks = [{ sql: `t.${column} = ?`, values: [value] }];
    leads.push({ index, walks, micros: FAR_ROW });
  }
  if (filter.toolName !== undefined) {
    const walks = [{ sql: 'u.tool_name = ?', values: [filter.toolName] }];
    leads.push({ index: null, walks, micros: TOOL_ROW });
  }
  const { rewardMin, rewardMax, scored, entropyJumpMin } = filter;
  const covered = (names: readonly (keyof TrajectoryFilter)[]): number =>
    holdsOnly(filter, names) ? COVERED_LEVEL : FAR_ROW;
  const rewarded = { index: 'trajectories_reward', micros: covered(REWARD_FIELDS) };
  if (scored === false) {
    leads.push({ ...rewarded, walks: [{ sql: `${REWARD_LEVEL} IS NULL`, values: [] }] });
  } else if (scored === true || rewardMin !== undefined || rewardMax !== undefined) {
    const low = rewardMin === undefined ? 0 : rewardLevel(rewardMin);
    const high = rewardMax === undefined ? REWARD_LEVELS : rewardLevel(rewardMax);
    leads.push({ ...rewarded, walks: levels(REWARD_LEVEL, low, high) });
  }
  if (entropyJumpMin !== undefined) {
    const walks = levels(JUMP_LEVEL, jumpLevel(entropyJumpMin), JUMP_LEVELS);
    leads.push({ index: 'trajectories_jump', walks, micros: covered(['entropyJumpMin']) });
  }
  return leads;
}

const REWARD_FIELDS = ['rewardMin', 'rewardMax', 'scored'] as const;
/** What the index of creation does not hold. */
const UNCOVERED = ['groupId', 'conversationId', 'taskId', 'trainingRunId'] as const;

function everything(filter: TrajectoryFilter): Lead {
  const far = UNCOVERED.some((name) => filter[name] !== undefined);
  const micros = (far ? NEXT_ROW : COVERED) + (filter.toolName === undefined ? 0 : NEXT_TOOL);
  return { index: 'trajectories_created', walks: [{ sql: 'true', values: [] }], micros };
}

/** Besides times, which are in every index. */
function holdsOnly(filter: TrajectoryFilter, names: readonly (keyof TrajectoryFilter)[]): boolean {
  const given = Object.keys(filter) as (keyof TrajectoryFilter)[];
  const allowed = new Set([...names, 'createdFrom', 'createdBefore']);
  return given.every((name) => filter[name] === undefined || allowed.has(name));
}

/** All conditions but the times, which belong to the order; those that the lead implies too. */
export function conditionsOf(filter: TrajectoryFilter): Condition[] {
  const all: Condition[] = [];
  const add = (sql: string, value: string | number | undefined): void => {
    if (value !== undefined) all.push({ sql, values: [value] });
  };
  add(seenBy('?'), filter.tenant);
  for (const [field, column] of EQUAL) add(`t.${column} = ?`, filter[field]);
  add(
    'EXISTS (SELECT 1 FROM trajectory_tools WHERE tool_name = ? AND trajectory_id = t.id)',
    filter.toolName,
  );
  add('t.reward >= ?', filter.rewardMin);
  add('t.reward <= ?', filter.rewardMax);
  add('t.entropy_jump >= ?', filter.entropyJumpMin);
  if (filter.scored !== undefined) {
    all.push({ sql: `t.reward IS ${filter.scored ? 'NOT ' : ''}NULL`, values: [] });
  }
  return all;
}

/** From above to below nothing fits; a walk of no rows stands for that. */
function levels(expression: string, low: number, high: number): Condition[] {
  const all: Condition[] = [];
  for (let level = low; level <= high; level++) {
    all.push({ sql: `${expression} = ?`, values: [level] });
  }
  return all.length === 0 ? [{ sql: `${expression} = ?`, values: [-1] }] : all;
}
