/** The split of a mini-batch, with a bigram model whose gradients are exact. */
import { describe, expect, it } from 'vitest';
import type { TrainRow } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { accumulateGradients, weightSumOf } from './micro-batch.ts';
import {
  bigramConfig,
  bigramWeights,
  createBigramSession,
  tableOf,
} from './testing/bigram-policy.ts';

const LOSS = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3 };

function randomRows(random: Prng, count: number, vocabulary: number): TrainRow[] {
  return Array.from({ length: count }, () => {
    const length = 2 + random.below(30);
    const values = (make: () => number): Float32Array =>
      Float32Array.from({ length }, (_, t) => (t === 0 ? 0 : make()));
    return {
      tokens: Uint32Array.from({ length }, () => random.below(vocabulary)),
      weights: values(() => random.below(2)),
      advantages: values(() => random.gaussian()),
      oldLogprobs: values(() => -1.5 + random.gaussian()),
    };
  });
}

describe('accumulateGradients', () => {
  it('gives the same loss and gradients however the rows are split', async () => {
    const random = new Prng(6);
    const V = 12;
    const session = createBigramSession(
      bigramConfig(V, 64),
      bigramWeights(V, () => random.gaussian()),
    );
    const rows = randomRows(random, 17, V);
    const whole = await accumulateGradients(session, rows, LOSS, { tokenBudget: 100_000 });
    expect(whole.microBatches).toBe(1);
    for (const tokenBudget of [1, 40, 150]) {
      const split = await accumulateGradients(session, rows, LOSS, { tokenBudget });
      expect(split.microBatches).toBeGreaterThan(1);
      expect(split.loss).toBeCloseTo(whole.loss, 6);
      const expected = whole.gradients.get('bigram.weight') as Float32Array;
      split.gradients.get('bigram.weight')?.forEach((g, i) => {
        expect(Math.abs(g - (expected[i] as number))).toBeLessThan(1e-6);
      });
      expect(split.logprobs).toEqual(whole.logprobs);
      expect(split.tokensForwarded).toBeLessThan(whole.tokensForwarded);
    }
  });

  it('has the gradient that finite differences give', async () => {
    const random = new Prng(7);
    const V = 5;
    const weights = bigramWeights(V, () => random.gaussian());
    const session = createBigramSession(bigramConfig(V, 64), weights);
    const rows = randomRows(random, 4, V);
    const lossAt = async (): Promise<number> =>
      (await accumulateGradients(session, rows, LOSS, { tokenBudget: 50 })).loss;
    const { gradients } = await accumulateGradients(session, rows, LOSS, { tokenBudget: 50 });
    const table = tableOf(weights);
    const step = 1e-3;
    for (let i = 0; i < table.length; i++) {
      const held = table[i] as number;
      table[i] = held + step;
      const above = await lossAt();
      table[i] = held - step;
      const below = await lossAt();
      table[i] = held;
      const numeric = (above - below) / (2 * step);
      expect(gradients.get('bigram.weight')?.[i]).toBeCloseTo(numeric, 3);
    }
  });

  it('stops between micro-batches when aborted', async () => {
    const V = 4;
    const session = createBigramSession(
      bigramConfig(V, 64),
      bigramWeights(V, () => 0),
    );
    const rows = randomRows(new Prng(8), 3, V);
    const aborted = accumulateGradients(session, rows, LOSS, {
      tokenBudget: 1,
      signal: AbortSignal.abort(new Error('stop asked')),
    });
    await expect(aborted).rejects.toThrow('stop asked');
  });

  it('refuses rows without a policy token', async () => {
    const session = createBigramSession(
      bigramConfig(4, 64),
      bigramWeights(4, () => 0),
    );
    const rows = randomRows(new Prng(9), 2, 4).map((row) => ({
      ...row,
      weights: new Float32Array(row.tokens.length),
    }));
    expect(weightSumOf(rows)).toBe(0);
    await expect(accumulateGradients(session, rows, LOSS, { tokenBudget: 9 })).rejects.toThrow(
      'no policy token',
    );
  });
});
