/** AdamW against a textbook loop in double precision, and values worked out by hand. */
import { describe, expect, it } from 'vitest';
import type { Weights } from '../model/types.ts';
import { Prng } from '../prng.ts';
import {
  ADAMW_DEFAULTS,
  clipScale,
  gradientNorm,
  initAdamW,
  updateAdamW,
  rateAt,
} from './adamw.ts';

const matrix = (values: number[]) => ({
  shape: [values.length, 1],
  data: new Float32Array(values),
});

/** The algorithm box of the AdamW paper for one number, with plain doubles. */
function textbook(start: number, gradients: number[], lr: number, decay: number): number {
  let w = start;
  let m = 0;
  let v = 0;
  gradients.forEach((g, i) => {
    const t = i + 1;
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const mHat = m / (1 - 0.9 ** t);
    const vHat = v / (1 - 0.999 ** t);
    w = w - lr * (mHat / (Math.sqrt(vHat) + 1e-8) + decay * w);
  });
  return w;
}

describe('AdamW', () => {
  it('follows the textbook loop over 50 updates', () => {
    const random = new Prng(11);
    const size = 40;
    const start = Array.from({ length: size }, () => random.gaussian());
    const history = Array.from({ length: 50 }, () =>
      Array.from({ length: size }, () => Math.fround(random.gaussian() * 0.1)),
    );
    const weights: Weights = new Map([['w', matrix(start)]]);
    const state = initAdamW(weights);
    const settings = { ...ADAMW_DEFAULTS, learningRate: 3e-3 };
    for (const row of history) {
      updateAdamW(weights, new Map([['w', Float32Array.from(row)]]), state, settings);
    }
    const got = weights.get('w')?.data as Float32Array;
    start.forEach((value, i) => {
      const gradients = history.map((row) => row[i] as number);
      expect(got[i]).toBeCloseTo(textbook(Math.fround(value), gradients, 3e-3, 0.01), 5);
    });
  });

  it('moves the first update by the learning rate, whatever the size of the gradient', () => {
    const weights: Weights = new Map([['w', { shape: [3], data: new Float32Array([1, 1, 1]) }]]);
    const settings = { ...ADAMW_DEFAULTS, learningRate: 0.1 };
    const gradients = new Map([['w', new Float32Array([1e-3, -5, 0])]]);
    updateAdamW(weights, gradients, initAdamW(weights), settings);
    const [a, b, c] = weights.get('w')?.data as Float32Array;
    expect(a).toBeCloseTo(0.9, 5);
    expect(b).toBeCloseTo(1.1, 5);
    expect(c).toBe(1);
  });

  it('decays matrices and leaves norms and biases alone', () => {
    const weights: Weights = new Map([
      ['matrix', { shape: [1, 2], data: new Float32Array([2, -2]) }],
      ['norm', { shape: [2], data: new Float32Array([2, -2]) }],
    ]);
    const zero = new Map([
      ['matrix', new Float32Array(2)],
      ['norm', new Float32Array(2)],
    ]);
    const settings = { ...ADAMW_DEFAULTS, learningRate: 0.5 };
    updateAdamW(weights, zero, initAdamW(weights), settings);
    expect(weights.get('matrix')?.data[0]).toBeCloseTo(2 - 0.5 * 0.01 * 2, 6);
    expect([...(weights.get('norm')?.data as Float32Array)]).toEqual([2, -2]);
  });

  it('refuses a weight without a gradient', () => {
    const weights: Weights = new Map([['w', matrix([1])]]);
    const settings = { ...ADAMW_DEFAULTS, learningRate: 0.1 };
    expect(() => updateAdamW(weights, new Map(), initAdamW(weights), settings)).toThrow(
      'no gradient for weight w',
    );
  });
});

describe('gradient clipping', () => {
  const gradients = (): Map<string, Float32Array> =>
    new Map([
      ['a', new Float32Array([3, 0])],
      ['b', new Float32Array([4])],
    ]);

  it('gives the factor to the bound over all weights together, and the norm before', () => {
    expect(gradientNorm(gradients())).toBe(5);
    expect(clipScale(gradients(), 1)).toEqual({ norm: 5, gradientScale: 0.2 });
    // The update takes the gradient times the factor: same as with a gradient of 0.6, 0, 0.8.
    const settings = { ...ADAMW_DEFAULTS, learningRate: 0.1, epsilon: 0.1 };
    const updated = (values: number[], gradientScale: number) => {
      const weights: Weights = new Map([['w', matrix([1, 1, 1])]]);
      const gradient = new Map([['w', new Float32Array(values)]]);
      updateAdamW(weights, gradient, initAdamW(weights), { ...settings, gradientScale });
      return [...(weights.get('w')?.data as Float32Array)];
    };
    const clipped = updated([3, 0, 4], 0.2);
    updated([0.6, 0, 0.8], 1).forEach((value, i) => expect(clipped[i]).toBeCloseTo(value, 6));
  });

  it('leaves a smaller gradient as it is', () => {
    expect(clipScale(gradients(), 5)).toEqual({ norm: 5, gradientScale: 1 });
  });

  it('counts every value of every length', () => {
    for (let length = 0; length < 10; length++) {
      const values = Float32Array.from({ length }, (_, i) => i + 1);
      const squares = values.reduce((sum, value) => sum + value * value, 0);
      expect(gradientNorm(new Map([['w', values]]))).toBeCloseTo(Math.sqrt(squares), 9);
    }
  });

  it('refuses a gradient that is not finite', () => {
    const g = new Map([['a', new Float32Array([Number.NaN])]]);
    expect(() => clipScale(g, 1)).toThrow('gradient norm is NaN');
  });
});

const schedule = { learningRate: 1, warmupUpdates: 0, finalRateRatio: 1 };

it('warms the learning rate up linearly, then keeps it', () => {
  const warmed = { ...schedule, warmupUpdates: 4 };
  const rates = [0, 1, 2, 3, 4, 5].map((update) => rateAt(warmed, update, update / 6));
  expect(rates).toEqual([0.25, 0.5, 0.75, 1, 1, 1]);
  expect(rateAt({ ...schedule, learningRate: 0.3 }, 0, 1)).toBe(0.3);
});

it('lets the learning rate fall linearly over the run, warm-up or not', () => {
  const falling = { ...schedule, warmupUpdates: 2, finalRateRatio: 0.2 };
  const rates = [0, 1, 2, 3].map((step) => rateAt(falling, step, step / 4));
  [0.5, 0.8, 0.6, 0.4].forEach((rate, i) => expect(rates[i]).toBeCloseTo(rate, 12));
  expect(rateAt(falling, 9, 1)).toBeCloseTo(0.2, 12);
});
