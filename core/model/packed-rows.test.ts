/**
 * Packed rows against flat rows, which are the definition: the same loss and gradients on random
 * forests, for models of every kind, with and without an adapter; and what a token may depend on.
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { initialAdapter, type LoraConfig } from './lora.ts';
import { createTrainingSession } from './training-session.ts';
import { randomForest } from './testing/random-forests.ts';
import { TINY_CONFIGS, tinyWeights } from './testing/tiny-models.ts';
import type { ModelConfig, TrainingSession } from './types.ts';

const LOSS = { epsLow: 0.2, epsHigh: 0.28, dualClip: 3, weightSum: 17 };
const LORA: LoraConfig = {
  rank: 2,
  alpha: 4,
  rsLora: false,
  targets: 'all-linear',
  excluded: [],
  layers: null,
  rankPattern: {},
  alphaPattern: {},
};
const SHAPE = { vocabulary: 37, rowsMax: 10, tokensMax: 24 };

function sessionOf(config: ModelConfig, prng: Prng, lora: boolean): TrainingSession {
  const weights = tinyWeights(config, prng);
  const adapter = lora ? initialAdapter(config, LORA, prng) : undefined;
  for (const { data } of adapter?.weights.values() ?? []) {
    data.forEach((value, i) => (data[i] = value + 0.2 * prng.gaussian()));
  }
  return createTrainingSession(config, weights, {
    device: 'cpu',
    threads: 1,
    ...(adapter && { adapter }),
  });
}

/** Of a whole tensor: the length of the difference to the length of what is expected. */
function relativeError(actual: Float32Array, expected: Float32Array): number {
  let [difference, size] = [0, 0];
  expected.forEach((value, i) => {
    difference += ((actual[i] as number) - value) ** 2;
    size += value ** 2;
  });
  return Math.sqrt(difference / Math.max(size, 1e-12));
}

const KINDS = ['llama', 'llama, untied, a head a query', 'qwen2', 'qwen3'] as const;

describe.each(KINDS.flatMap((kind) => [false, true].map((lora) => ({ kind, lora }))))(
  '$kind, adapter: $lora',
  ({ kind, lora }) => {
    it('packed loss and gradients are the flat ones on random forests', async () => {
      const prng = new Prng(41);
      const session = sessionOf(TINY_CONFIGS[kind] as ModelConfig, prng, lora);
      for (let trial = 0; trial < 20; trial++) {
        const rows = randomForest(prng, SHAPE);
        const flat = await session.lossAndGradients(rows, LOSS, 'flat');
        const packed = await session.lossAndGradients(rows, LOSS, 'packed');
        expect(Math.abs(packed.loss - flat.loss), `trial ${trial}`).toBeLessThan(1e-6);
        for (const [name, expected] of flat.gradients) {
          const actual = packed.gradients.get(name) as Float32Array;
          expect(relativeError(actual, expected), `trial ${trial} ${name}`).toBeLessThan(1e-4);
        }
        expect(packed.tokensForwarded).toBeLessThanOrEqual(flat.tokensForwarded);
      }
      await session.dispose();
    });
  },
);
