/**
 * The statistics of the report: percentile bootstrap over seeds, accuracy at equal calls, calls to
 * reach an accuracy. Seeded, so that the same records give the same numbers.
 *
 * Few seeds make an interval that is too narrow: with 8 of them a percentile interval said to hold
 * 95 % holds about 91 %. It is shown all the same, with the seeds themselves beside it.
 */
import { mean } from '../../core/arpo/number.ts';
import { assert, must } from '../../core/assert.ts';
import { Prng } from '../../core/prng.ts';
import { bootstrapMean } from '../../core/trainer/gate.ts';

export interface Estimate {
  mean: number;
  low: number;
  high: number;
  /** How many seeds it is of. */
  seeds: number;
}

const SEED = 4;
const RESAMPLES = 2_000;

/** Mean over seeds and its 95 % interval; null of none. */
export function estimate(values: readonly number[]): Estimate | null {
  if (values.length === 0) return null;
  const interval = bootstrapMean(values, { seed: SEED, resamples: RESAMPLES });
  return { ...interval, seeds: values.length };
}

/** The mean of a - b over the seeds that both have. */
export function pairedDifference(
  a: ReadonlyMap<number, number>,
  b: ReadonlyMap<number, number>,
): Estimate | null {
  return estimate([...a].flatMap(([seed, value]) => (b.has(seed) ? [value - b.get(seed)!] : [])));
}

/** A curve of one run: x rises. */
export type Curve = readonly { x: number; y: number }[];

/** The value at x between two points; null outside the curve. */
export function interpolate(curve: Curve, x: number): number | null {
  for (const [i, right] of curve.entries()) {
    if (right.x < x) continue;
    if (right.x === x) return right.y;
    const left = curve[i - 1];
    if (left === undefined) return null;
    return left.y + ((right.y - left.y) * (x - left.x)) / (right.x - left.x);
  }
  return null;
}

/** The least x at which the curve reaches y; null when it never does. */
export function firstReach(curve: Curve, y: number): number | null {
  for (const [i, right] of curve.entries()) {
    if (right.y < y) continue;
    const left = curve[i - 1];
    if (left === undefined || right.y === left.y) return right.x;
    return left.x + ((right.x - left.x) * (y - left.y)) / (right.y - left.y);
  }
  return null;
}

/** An arm and the reference, with the same seed. */
export interface CurvePair {
  arm: Curve;
  reference: Curve;
}

export interface CostRatio {
  ratio: number;
  low: number;
  high: number;
  /** Whether the mean curve reached the target at all; else the ratio is only a lower bound. */
  reached: boolean;
  /** The same, as a share of the resamples. */
  reachedShare: number;
  /** How many pairs it is of. */
  seeds: number;
}

/**
 * Calls until the arm's mean curve reaches the final mean accuracy of the reference, over the calls
 * of the whole reference run, with an interval from resampled seeds. Curves of the arm count as far
 * as all of them go; where the accuracy is not reached by then, those calls are given. Null of no
 * pair.
 */
export function costRatio(pairs: readonly CurvePair[]): CostRatio | null {
  if (pairs.length === 0) return null;
  const covered = Math.min(...pairs.map(({ arm }) => arm.at(-1)?.x ?? 0));
  const xs = evenly(covered);
  const sampled = pairs.map(({ arm, reference }) => ({
    values: xs.map((x) => must(interpolate(arm, x), 'a value within the curve')),
    end: must(reference.at(-1), 'a point of the reference'),
  }));
  const random = new Prng(SEED);
  const resamples = Array.from({ length: RESAMPLES }, () =>
    ratioOf(
      sampled.map(() => random.pick(sampled)),
      xs,
    ),
  );
  const ratios = resamples.map(({ ratio }) => ratio).sort((a, b) => a - b);
  const cut = Math.floor(ratios.length * 0.025);
  return {
    ...ratioOf(sampled, xs),
    low: ratios[cut] as number,
    high: ratios[ratios.length - 1 - cut] as number,
    reachedShare: mean(resamples.map(({ reached }) => Number(reached))),
    seeds: pairs.length,
  };
}

function ratioOf(
  pairs: readonly { values: readonly number[]; end: Curve[number] }[],
  xs: readonly number[],
): { ratio: number; reached: boolean } {
  const target = mean(pairs.map(({ end }) => end.y));
  const cost = mean(pairs.map(({ end }) => end.x));
  assert(cost > 0, 'the reference has made calls');
  const curve = xs.map((x, i) => ({ x, y: mean(pairs.map(({ values }) => values[i] ?? NaN)) }));
  const at = firstReach(curve, target);
  return { ratio: (at ?? xs.at(-1) ?? 0) / cost, reached: at !== null };
}

/** 101 even positions from 0 to `end`, `end` itself exactly. */
const evenly = (end: number): number[] => Array.from({ length: 101 }, (_, i) => end * (i / 100));
