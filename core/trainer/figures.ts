/**
 * The figures of one training step that come from its rollouts (arpo.md section 8), by the names
 * under which the database and the API show them. A name with a dot gives the same figure for one
 * family or one tool. A figure over nothing (no branch, no tool call) is left out, because 0 would
 * be a lie.
 *
 * Entropies are as stored: H of a step (mean over its first tokens / ln V) and its difference to
 * the trajectory's first step. Steps that trajectories share count once. Rewards and counts
 * are of what was sampled: logged conversations with which a group began are in neither. Knows
 * nothing of updates.
 */
import type { RolloutGroup, RolloutTrajectory } from '../arpo/rollout.ts';
import { forestSteps } from '../arpo/rollout.ts';
import type { StepRecord, TrainingCounts } from '../records.ts';

export type Figures = Record<string, number>;

/** Figures of the groups of one training step. */
export function rolloutFigures(groups: readonly RolloutGroup[]): Figures {
  const trajectories = groups.flatMap(sampled);
  const counts = countGroups(groups);
  const figures: Figures = {
    rollouts: counts.rollouts,
    root_rollouts: total(groups, 'rootRollouts'),
    branches: counts.branches,
    tool_calls_executed: counts.toolCallsExecuted,
    tool_calls_saved: counts.toolCallsSaved,
    tool_calls_cached: total(groups, 'toolCallsCached'),
    tokens_sampled: counts.tokensSampled,
    tokens_shared: total(groups, 'tokensShared'),
    ...scores(trajectories),
  };
  const families = new Set(groups.map((group) => group.task.family));
  for (const family of families) {
    const members = groups.filter((group) => group.task.family === family);
    const { reward_mean, accuracy } = scores(members.flatMap(sampled));
    put(figures, `reward_mean.${family}`, reward_mean);
    put(figures, `accuracy.${family}`, accuracy);
  }
  return { ...figures, ...entropyFigures(groups) };
}

/** What a step did, summed over its groups. */
export function countGroups(groups: readonly RolloutGroup[]): TrainingCounts {
  return {
    rollouts: groups.flatMap(sampled).length,
    branches: total(groups, 'branches'),
    toolCallsExecuted: total(groups, 'toolCallsExecuted'),
    toolCallsSaved: total(groups, 'toolCallsSaved'),
    tokensSampled: total(groups, 'tokensSampled'),
  };
}

function total(groups: readonly RolloutGroup[], name: keyof RolloutGroup['counts']): number {
  return groups.reduce((sum, { counts }) => sum + counts[name], 0);
}

const sampled = ({ trajectories }: RolloutGroup): RolloutTrajectory[] =>
  trajectories.filter(({ given }) => given !== true);

/** The sum of two counts, name by name. */
export function addCounts(a: TrainingCounts, b: TrainingCounts): TrainingCounts {
  return {
    rollouts: a.rollouts + b.rollouts,
    branches: a.branches + b.branches,
    toolCallsExecuted: a.toolCallsExecuted + b.toolCallsExecuted,
    toolCallsSaved: a.toolCallsSaved + b.toolCallsSaved,
    tokensSampled: a.tokensSampled + b.tokensSampled,
  };
}

function scores(trajectories: readonly RolloutTrajectory[]): Figures {
  const figures: Figures = {};
  const average = (name: string, value: (trajectory: RolloutTrajectory) => number): void =>
    put(figures, name, mean(trajectories.map(value)));
  average('reward_mean', (trajectory) => trajectory.reward);
  average('accuracy', (trajectory) => Number(trajectory.correct));
  average('format_error_share', (trajectory) => Number(trajectory.formatError !== null));
  average('cut_share', ({ record }) =>
    Number(['max_tokens', 'context'].includes(record.endReason)),
  );
  average('response_tokens_mean', ({ record }) => record.sampledTokens);
  average('tool_calls_mean', ({ record }) => record.toolCalls);
  return figures;
}

/**
 * Mean H and token entropy, the jump after results (all and by tool), and dH where branches opened.
 */
function entropyFigures(groups: readonly RolloutGroup[]): Figures {
  const steps = groups.flatMap(forestSteps);
  const byId = new Map(steps.map((step) => [step.id, step]));
  const policy = steps.filter((step) => step.kind === 'policy');
  const jumps = new Map<string, number[]>([['entropy_jump', []]]);
  for (const step of policy) {
    const tool = step.parentId === null ? undefined : byId.get(step.parentId)?.toolCall?.name;
    if (tool === undefined || step.deltaEntropy === null) continue;
    jumps.get('entropy_jump')?.push(step.deltaEntropy);
    const name = `entropy_jump.${tool}`;
    jumps.set(name, [...(jumps.get(name) ?? []), step.deltaEntropy]);
  }
  const opened = groups
    .flatMap((group) => group.decisions)
    .filter((decision) => decision.siblings > 0);
  const figures: Figures = {};
  put(figures, 'entropy_mean', mean(policy.flatMap((step) => step.stepEntropy ?? [])));
  put(figures, 'token_entropy_mean', tokenEntropyMean(policy));
  for (const [name, values] of jumps) put(figures, name, mean(values));
  put(figures, 'branch_delta_entropy_mean', mean(opened.map((decision) => decision.deltaEntropy)));
  return figures;
}

/** In nats, over all policy tokens. */
function tokenEntropyMean(steps: readonly StepRecord[]): number | undefined {
  let sum = 0;
  let count = 0;
  for (const { entropies } of steps) {
    for (const entropy of entropies ?? []) {
      sum += entropy;
      count++;
    }
  }
  return count === 0 ? undefined : sum / count;
}

function mean(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function put(figures: Figures, name: string, value: number | undefined): void {
  if (value !== undefined) figures[name] = value;
}
