/**
 * Two versions in live traffic: is the newer one worse? Looked at after every few conversations, a
 * plain 95 % interval would sooner or later blame a version that is as good as the one before. The
 * intervals here hold at every look at once: the mixture sequential probability ratio test of
 * Robbins for a difference of two means (as Johari, Pekelis and Walsh, "Always valid inference",
 * 2015, use it for A/B tests), with estimated variances, so it is exact only in the limit. Few
 * conversations are therefore not judged at all, and a variance is never taken to be below that of
 * both sides pooled.
 *
 * Knows nothing of where outcomes come from, nor of what follows from a verdict.
 */
import { LIMITS } from '../limits.ts';
import type { Interval, LiveComparison, LiveFigures, LiveOutcomes } from '../records.ts';

/** Level of each of the two intervals, over all looks together. */
const ALPHA = 0.05;

export function compareLive(
  base: LiveOutcomes,
  candidate: LiveOutcomes,
  tolerance: number,
): LiveComparison {
  return {
    base: figuresOf(base),
    candidate: figuresOf(candidate),
    reward: differenceInterval(momentsOf(base.rewards), momentsOf(candidate.rewards)),
    errorRate: differenceInterval(shareOf(base), shareOf(candidate)),
    tolerance,
  };
}

/** Why the candidate is worse than the base beyond the tolerance; null = nothing says so. */
export function whyWorse({ reward, errorRate, tolerance }: LiveComparison): string | null {
  if (reward !== null && reward.high < -tolerance) {
    return `reward is lower: difference ${text(reward)}, tolerance ${tolerance}`;
  }
  if (errorRate !== null && errorRate.low > tolerance) {
    return `more errors: difference ${text(errorRate)}, tolerance ${tolerance}`;
  }
  return null;
}

interface Moments {
  n: number;
  mean: number;
  /** Of the population that the outcomes are: divided by n. */
  variance: number;
}

/** Null while either side has less than LIMITS.liveRatedMin outcomes. */
function differenceInterval(base: Moments, candidate: Moments): Interval | null {
  if (Math.min(base.n, candidate.n) < LIMITS.liveRatedMin) return null;
  const pooled = pooledVariance(base, candidate);
  const variance =
    Math.max(base.variance, pooled) / base.n + Math.max(candidate.variance, pooled) / candidate.n;
  const mean = candidate.mean - base.mean;
  if (variance === 0) return { mean, low: mean, high: mean };
  // The mixture is over differences of half a standard deviation: what is worth finding soon.
  const mixed = Math.max(base.variance, candidate.variance, pooled) / 4;
  const total = variance + mixed;
  const spread = (variance * total) / mixed;
  const radius = Math.sqrt(spread * (2 * Math.log(1 / ALPHA) + Math.log(total / variance)));
  return { mean, low: mean - radius, high: mean + radius };
}

/** Around the mean of both: what the variance is if there is no difference. */
function pooledVariance(a: Moments, b: Moments): number {
  const n = a.n + b.n;
  const mean = (a.n * a.mean + b.n * b.mean) / n;
  const around = ({ n: count, mean: own, variance }: Moments): number =>
    count * (variance + (own - mean) ** 2);
  return (around(a) + around(b)) / n;
}

function momentsOf(values: readonly number[]): Moments {
  const n = values.length;
  const mean = n === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { n, mean, variance: n === 0 ? 0 : squares / n };
}

function shareOf({ conversations: n, errors }: LiveOutcomes): Moments {
  const mean = n === 0 ? 0 : errors / n;
  return { n, mean, variance: mean * (1 - mean) };
}

function figuresOf({ version, conversations, errors, rewards }: LiveOutcomes): LiveFigures {
  const rated = rewards.length;
  const rewardMean = rated === 0 ? null : momentsOf(rewards).mean;
  return { version, conversations, errors, rated, rewardMean };
}

const text = ({ mean, low, high }: Interval): string =>
  `${mean.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
