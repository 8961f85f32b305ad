/** Which trajectories a command is about: the flags, and all that fit, page by page. */
import { LIMITS } from '../../core/limits.ts';
import type { TrajectoryRecord } from '../../core/records.ts';
import type { Stores } from '../../db/stores.ts';
import type { TrajectoryFilter } from '../../db/trajectory-filter.ts';
import { choice, integer, moment, number } from './command.ts';
import type { FlagKinds, Words } from './command.ts';

export const FILTER_FLAGS = {
  source: { type: 'string' },
  version: { type: 'string' },
  task: { type: 'string' },
  run: { type: 'string' },
  tool: { type: 'string' },
  since: { type: 'string' },
  until: { type: 'string' },
  'reward-min': { type: 'string' },
  'reward-max': { type: 'string' },
  scored: { type: 'boolean' },
  unscored: { type: 'boolean' },
} as const satisfies FlagKinds;

export const FILTER_HELP = [
  '  --source NAME        live, rollout, replay or eval',
  '  --version N          of the policy that made them',
  '  --since T, --until T created from T on, before T: 2026-05-01, 2026-05-01T12:00Z, or an age (24h)',
  '  --reward-min X, --reward-max X, --scored, --unscored',
  '  --task ID, --run ID (training run), --tool NAME (called on its path)',
].join('\n');

/** @throws AppError invalid_request */
export function readFilter(
  flags: Words<typeof FILTER_FLAGS>['flags'],
  nowMs: number,
): TrajectoryFilter {
  const filter: TrajectoryFilter = {};
  const { source, version, task, run, tool, since, until, scored, unscored } = flags;
  if (source !== undefined) filter.source = choice('--source', source, SOURCES);
  if (version !== undefined) filter.policyVersion = integer('--version', version, 1, 999_999_999);
  if (task !== undefined) filter.taskId = task;
  if (run !== undefined) filter.trainingRunId = run;
  if (tool !== undefined) filter.toolName = tool;
  if (since !== undefined) filter.createdFrom = moment('--since', since, nowMs);
  if (until !== undefined) filter.createdBefore = moment('--until', until, nowMs);
  const { 'reward-min': low, 'reward-max': high } = flags;
  if (low !== undefined) filter.rewardMin = number('--reward-min', low);
  if (high !== undefined) filter.rewardMax = number('--reward-max', high);
  if (scored === true) filter.scored = true;
  if (unscored === true) filter.scored = false;
  return filter;
}

const SOURCES = ['live', 'rollout', 'replay', 'eval'] as const;

/** Oldest first; those that come while it runs are seen too. One page is in memory at a time. */
export function* trajectoriesOf(
  stores: Stores,
  filter: TrajectoryFilter,
): Generator<TrajectoryRecord> {
  const limit = LIMITS.pageItemsMax;
  let cursor: string | null = null;
  do {
    const page = { limit, oldestFirst: true, ...(cursor !== null && { cursor }) };
    const { items, nextCursor } = stores.trajectories.list(filter, page);
    yield* items;
    cursor = nextCursor;
  } while (cursor !== null);
}
