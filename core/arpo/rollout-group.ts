/**
 * What a group rollout hands on: trajectories, the decisions that made them, and counts. A group is
 * a forest of steps; trajectories are its paths. The update, the log and the figures read it, and
 * do not ask how it came about.
 */
import { policyTokens } from '../agent/episode.ts';
import type { StepRecord, Task } from '../records.ts';
import type { ScoredTrajectory } from './task-episode.ts';

export interface BranchDecision {
  /** The branch rule, by the name of its setting. */
  rule: string;
  /** The trajectory that ran the tool, and its tool step. */
  trajectory: number;
  stepId: string;
  /** dH of the step after the result, whatever the rule looks at. */
  deltaEntropy: number;
  /** What the rule looked at (branch-rules.ts, fork-points.ts); null: at nothing. */
  signal: number | null;
  /** Of a branch here; rules that draw among points: the point's share in the draw. */
  probability: number;
  /** Siblings opened: 0 when the draw said no. */
  siblings: number;
}

export interface RolloutTrajectory extends ScoredTrajectory {
  /** Position in the group; part of the key of its draws. */
  index: number;
  /** The root rollout from which it descends (its own index for a root). */
  root: number;
  /** Where it left another trajectory; null for a root rollout. */
  branch: { parent: number; stepId: string; stepIndex: number } | null;
  /** It was not sampled here: the group began with it. */
  given?: true;
}

export interface RolloutGroup {
  id: string;
  task: Task;
  /** At most `groupSize`, ordered by index; fewer only in a group that was settled early. */
  trajectories: RolloutTrajectory[];
  /** Every result on which a branch was decided. */
  decisions: BranchDecision[];
  counts: GroupCounts;
  /**
   * By step id: ln p of its tokens under the weights at the start of the update, for policy steps
   * that other weights sampled. A step that is not here was sampled by those weights.
   */
  rescored?: ReadonlyMap<string, Float32Array>;
}

/** Without what was given: somebody else made it. */
export interface GroupCounts {
  rootRollouts: number;
  branches: number;
  /** Calls that reached a tool. */
  toolCallsExecuted: number;
  /** Calls that the group's cassette answered; without one they would have reached a tool. */
  toolCallsCached: number;
  /** Calls in the prefixes that branches took over. */
  toolCallsSaved: number;
  tokensSampled: number;
  /** Policy tokens in the prefixes that branches took over. */
  tokensShared: number;
}

export function countGroup(trajectories: readonly RolloutTrajectory[]): GroupCounts {
  const counts: GroupCounts = {
    rootRollouts: 0,
    branches: 0,
    toolCallsExecuted: 0,
    toolCallsCached: 0,
    toolCallsSaved: 0,
    tokensSampled: 0,
    tokensShared: 0,
  };
  for (const { steps, branch, given } of trajectories) {
    if (given === true) continue;
    const sharedSteps = branch === null ? 1 : branch.stepIndex + 1;
    const [shared, own] = [steps.slice(0, sharedSteps), steps.slice(sharedSteps)];
    if (branch === null) counts.rootRollouts++;
    else counts.branches++;
    const recorded = callsRun(own, 'recorded');
    counts.toolCallsExecuted += callsRun(own) - recorded;
    counts.toolCallsCached += recorded;
    counts.toolCallsSaved += callsRun(shared);
    counts.tokensSampled += policyTokens(own);
    counts.tokensShared += policyTokens(shared);
  }
  return counts;
}

/** Calls of tools that were offered; one that was not reached no tool. */
function callsRun(steps: readonly StepRecord[], served?: 'recorded'): number {
  return steps.filter(
    ({ toolCall }) =>
      toolCall !== null &&
      toolCall.error !== 'unknown_tool' &&
      (served === undefined || toolCall.served === served),
  ).length;
}
