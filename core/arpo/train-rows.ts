/**
 * Rollouts as rows of a training batch in the flat form (arpo.md section 6, attribution `soft`):
 * one row a trajectory, its whole path from the prompt to the leaf, loss only on tokens that the
 * policy itself sampled. A token that several trajectories share occurs in the row of each.
 */
import { assert } from '../assert.ts';
import type { TrainRow } from '../model/types.ts';
import type { StepRecord } from '../records.ts';
import type { RolloutGroup } from './group-rollout.ts';

/** C of truncated importance sampling. */
const IMPORTANCE_MAX = 2;

/**
 * One row for each trajectory of a group; `advantages[i]` is that of trajectory i. Weights are 1 on
 * policy tokens and 0 elsewhere. Tokens drawn at another temperature than 1 are off-policy: their
 * weight is min(C, exp(old - behaviour)), which is 1 again wherever the two agree.
 */
export function trainRows(group: RolloutGroup, advantages: readonly number[]): TrainRow[] {
  assert(
    advantages.length === group.trajectories.length,
    `${advantages.length} advantages for ${group.trajectories.length} trajectories`,
  );
  return group.trajectories.map(({ steps }, i) => trainRow(steps, advantages[i] as number));
}

function trainRow(steps: readonly StepRecord[], advantage: number): TrainRow {
  const length = steps.reduce((sum, step) => sum + step.tokens.length, 0);
  const row: TrainRow = {
    tokens: new Uint32Array(length),
    weights: new Float32Array(length),
    advantages: new Float32Array(length),
    oldLogprobs: new Float32Array(length),
  };
  let start = 0;
  for (const step of steps) {
    row.tokens.set(step.tokens, start);
    if (step.kind === 'policy') {
      const { logprobs, behaviourLogprobs } = step;
      assert(logprobs !== null && start > 0, 'a policy step has log-probabilities and a prompt');
      row.oldLogprobs.set(logprobs, start);
      for (let t = 0; t < step.tokens.length; t++) {
        row.weights[start + t] = importance(logprobs, behaviourLogprobs, t);
        row.advantages[start + t] = advantage;
      }
    }
    start += step.tokens.length;
  }
  return row;
}

function importance(old: Float32Array, behaviour: Float32Array | null, t: number): number {
  if (behaviour === null) return 1;
  return Math.min(IMPORTANCE_MAX, Math.exp((old[t] as number) - (behaviour[t] as number)));
}
