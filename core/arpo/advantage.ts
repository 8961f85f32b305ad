/**
 * Advantages of a group's trajectories from their rewards (arpo.md section 5): GRPO's z-score, its
 * form without the division (Dr.GRPO), and Tree-GRPO's sum of a group and a tree part. A group
 * whose rewards are all equal teaches nothing; it gets exact zeros, so that rounding can't make a
 * gradient.
 */
import { assert } from '../assert.ts';
import { mean, sampleDeviation } from './number.ts';

const EPSILON = 1e-6;

/** True when the rewards are all equal: the group gives no gradient and is dropped and counted. */
export function isZeroVariance(rewards: readonly number[]): boolean {
  return rewards.every((reward) => reward === rewards[0]);
}

/**
 * A_i = (R_i - mean) / (std + 1e-6) with n - 1 (`std`), or R_i - mean (`mean`); all 0 for a group
 * of equal rewards. Same order and length as `rewards`.
 */
export function groupAdvantages(
  rewards: readonly number[],
  normalise: 'std' | 'mean' = 'std',
): number[] {
  if (isZeroVariance(rewards)) return rewards.map(() => 0);
  const centre = mean(rewards);
  const scale = normalise === 'std' ? sampleDeviation(rewards) + EPSILON : 1;
  return rewards.map((reward) => (reward - centre) / scale);
}

/**
 * Tree-GRPO: the z-score in the group plus that among the leaves of the own root's tree; a tree
 * with one leaf adds 0. `trees[i]` says to which tree trajectory i belongs.
 */
export function treeAdvantages(rewards: readonly number[], trees: readonly number[]): number[] {
  assert(rewards.length === trees.length, 'one tree index for each reward');
  const members = new Map<number, number[]>();
  trees.forEach((tree, i) => members.set(tree, [...(members.get(tree) ?? []), i]));
  const advantages = groupAdvantages(rewards);
  for (const indices of members.values()) {
    const inner = groupAdvantages(indices.map((i) => rewards[i] as number));
    indices.forEach((i, k) => {
      advantages[i] = (advantages[i] as number) + (inner[k] as number);
    });
  }
  return advantages;
}
