/**
 * Weights of tokens that were not sampled by the policy at the start of the update (arpo.md section
 * 6): by other weights, or at another temperature. `old` is that policy, `behaviour` what sampled
 * the token; both as ln p. Where the two agree every weight is exactly 1.
 *
 * The product of a sequence's ratios is unbiased but spreads with its length; the ratio of a token
 * is biased but tame; the mean of a sequence's log-ratios says how far off a sequence is, whatever
 * its length, and so which one to leave out. Knows nothing of rewards and of the loss.
 */
import { assert } from '../assert.ts';

export interface ImportanceSettings {
  /** Absent, as where nothing is off-policy: `none`. */
  importance?: 'none' | 'token' | 'sequence';
  /** C: the largest weight; absent where nothing is weighted. */
  importanceCap?: number;
  /** A sequence whose geometric mean of old / behaviour lies outside is left out. */
  geometricMask?: readonly [number, number] | null;
}

/** ln p of the policy tokens of one sequence, in order. */
export interface SampledTokens {
  old: readonly number[];
  behaviour: readonly number[];
}

/** The weight of each token; all 0 when the sequence is left out. */
export function importanceWeights(
  { old, behaviour }: SampledTokens,
  { importance = 'none', importanceCap, geometricMask = null }: ImportanceSettings,
): number[] {
  assert(old.length === behaviour.length, 'two log-probabilities of each token');
  const logRatios = old.map((logp, t) => logp - (behaviour[t] as number));
  const sum = logRatios.reduce((total, ratio) => total + ratio, 0);
  if (geometricMask !== null && old.length > 0) {
    const [low, high] = geometricMask;
    const ratio = Math.exp(sum / old.length);
    if (ratio < low || ratio > high) return old.map(() => 0);
  }
  if (importance === 'none') return old.map(() => 1);
  assert(importanceCap !== undefined, 'importance weights have a cap');
  const capped = (logRatio: number) => Math.min(importanceCap, Math.exp(logRatio));
  return logRatios.map((ratio) => capped(importance === 'token' ? ratio : sum));
}
