/**
 * AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) as a pure init/update
 * pair: the state is a value that the caller keeps, the weights are updated in place, because the
 * training session reads the same arrays at its next run (arpo.md section 8).
 *
 * Arithmetic is double precision, storage single, so the result follows a double-precision textbook
 * loop up to the rounding of the stored numbers. Knows nothing of losses, rows or schedules beyond
 * the learning rate over a run.
 */
import { assert, must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { Weights } from '../model/types.ts';

export interface AdamWSettings {
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Decoupled: w -= learningRate * weightDecay * w, for matrices only. */
  weightDecay: number;
  /** Gradients count times this: see `clipScale`; 1 when left out. */
  gradientScale?: number;
}

/** The values of arpo.md section 8; the learning rate is a setting of the run. */
export const ADAMW_DEFAULTS = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };

export interface AdamWState {
  /** Updates made so far; the bias correction depends on it. */
  step: number;
  /** Running means of g and of g squared, by weight name. */
  first: Map<string, Float32Array>;
  second: Map<string, Float32Array>;
}

/** A state for these weights before the first update: all moments 0. */
export function initAdamW(weights: Weights): AdamWState {
  const first = new Map<string, Float32Array>();
  const second = new Map<string, Float32Array>();
  for (const [name, { data }] of weights) {
    first.set(name, new Float32Array(data.length));
    second.set(name, new Float32Array(data.length));
  }
  return { step: 0, first, second };
}

/**
 * One update: changes the arrays in `weights` and `state`. Each weight needs a gradient of its
 * length. Decay is for matrices; norms and biases, which have one dimension, are left alone.
 */
export function updateAdamW(
  weights: Weights,
  gradients: ReadonlyMap<string, Float32Array>,
  state: AdamWState,
  settings: AdamWSettings,
): void {
  state.step++;
  const { learningRate, beta1, beta2, epsilon, gradientScale = 1 } = settings;
  // One division and one root a number: the loop is bound by them.
  const rate = learningRate / (1 - beta1 ** state.step);
  const inverse2 = 1 / (1 - beta2 ** state.step);
  for (const [name, { shape, data }] of weights) {
    const gradient = must(gradients.get(name), `no gradient for weight ${name}`);
    const first = must(state.first.get(name), `no optimiser state for weight ${name}`);
    const second = must(state.second.get(name), `no optimiser state for weight ${name}`);
    assert(gradient.length === data.length, `gradient of ${name} has ${gradient.length} values`);
    const decay = shape.length > 1 ? learningRate * settings.weightDecay : 0;
    for (let i = 0; i < data.length; i++) {
      const g = gradientScale * (gradient[i] as number);
      const w = data[i] as number;
      const m = beta1 * (first[i] as number) + (1 - beta1) * g;
      const v = beta2 * (second[i] as number) + (1 - beta2) * g * g;
      first[i] = m;
      second[i] = v;
      data[i] = w - (rate * m) / (Math.sqrt(v * inverse2) + epsilon) - decay * w;
    }
  }
}

/** Euclidean norm of all gradients taken as one vector. */
export function gradientNorm(gradients: ReadonlyMap<string, Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients.values()) sum += sumOfSquares(gradient);
  return Math.sqrt(sum);
}

function sumOfSquares(values: Float32Array): number {
  // Four sums, because each addition waits for the one before it in the same sum. By index: an
  // iterator over millions of numbers takes several times as long.
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = values.length - (values.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += (values[i] as number) ** 2;
    b += (values[i + 1] as number) ** 2;
    c += (values[i + 2] as number) ** 2;
    d += (values[i + 3] as number) ** 2;
  }
  for (let i = whole; i < values.length; i++) a += (values[i] as number) ** 2;
  return a + b + c + d;
}

/**
 * The joint norm of all gradients, and the factor that brings it down to `maxNorm` (1 when it is
 * not above): `gradientScale` of the update, which so reads the gradients once. A norm that is not
 * finite is an error: one such update would destroy every weight.
 */
export function clipScale(
  gradients: ReadonlyMap<string, Float32Array>,
  maxNorm: number,
): { norm: number; gradientScale: number } {
  const norm = gradientNorm(gradients);
  if (!Number.isFinite(norm)) {
    throw new AppError('internal', `internal: the gradient norm is ${norm}; the update is refused`);
  }
  return { norm, gradientScale: norm > maxNorm ? maxNorm / norm : 1 };
}

export interface RateSchedule {
  learningRate: number;
  /** Updates until the rate is whole. */
  warmupUpdates: number;
  /** The share of it that is left at the end of the run. */
  finalRateRatio: number;
}

/**
 * Linear warm-up to `learningRate`, and over the whole run a linear fall to `finalRateRatio` of it.
 * `update` counts from 0; `progress` is the share of the run that is done.
 */
export function rateAt(schedule: RateSchedule, update: number, progress: number): number {
  const { learningRate, warmupUpdates, finalRateRatio } = schedule;
  const warm = Math.min(1, (update + 1) / Math.max(1, warmupUpdates));
  return learningRate * warm * (1 - (1 - finalRateRatio) * progress);
}
