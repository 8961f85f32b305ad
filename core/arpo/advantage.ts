/**
 * Advantages of a group's trajectories from their rewards (arpo.md section 5): GRPO's z-score, its
 * form without the division (Dr.GRPO), each against the mean of the others (RLOO), and Tree-GRPO's
 * sum of a group and a tree part. A group whose rewards are all equal teaches nothing; it gets
 * exact zeros, so that rounding can't make a gradient. What becomes of them along a trajectory is
 * in token-advantage.ts.
 */
import { assert } from '../assert.ts';
import { mean, sampleDeviation } from './number.ts';

const EPSILON = 1e-6;

/** True when the rewards are all equal: the group gives no gradient and is dropped and counted. */
export function isZeroVariance(rewards: readonly number[]): boolean {
  return rewards.every((reward) => reward === rewards[0]);
}

/** What a reward is compared with. */
export type Normalise = 'std' | 'mean' | 'leave-one-out';

/**
 * A_i = (R_i - mean) / (std + 1e-6) with n - 1 (`std`), R_i - mean (`mean`), or R_i minus the mean
 * of the others (`leave-one-out`); all 0 for a group of equal rewards, and for a group of one. Same
 * order and length as `rewards`.
 */
export function groupAdvantages(
  rewards: readonly number[],
  normalise: Normalise = 'std',
): number[] {
  if (isZeroVariance(rewards)) return rewards.map(() => 0);
  if (normalise === 'leave-one-out') {
    const sum = rewards.reduce((total, reward) => total + reward, 0);
    return rewards.map((reward) => reward - (sum - reward) / (rewards.length - 1));
  }
  const centre = mean(rewards);
  const scale = normalise === 'std' ? sampleDeviation(rewards) + EPSILON : 1;
  return rewards.map((reward) => (reward - centre) / scale);
}

/**
 * Tree-GRPO: the advantage in the group plus that among the leaves of the own root's tree; a tree
 * with one leaf adds 0. `trees[i]` says to which tree trajectory i belongs.
 */
export function treeAdvantages(
  rewards: readonly number[],
  trees: readonly number[],
  normalise: Normalise = 'std',
): number[] {
  assert(rewards.length === trees.length, 'one tree index for each reward');
  const members = new Map<number, number[]>();
  trees.forEach((tree, i) => members.set(tree, [...(members.get(tree) ?? []), i]));
  const advantages = groupAdvantages(rewards, normalise);
  for (const indices of members.values()) {
    const inner = groupAdvantages(
      indices.map((i) => rewards[i] as number),
      normalise,
    );
    indices.forEach((i, k) => {
      advantages[i] = (advantages[i] as number) + (inner[k] as number);
    });
  }
  return advantages;
}
