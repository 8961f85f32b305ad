/**
 * The training graph against finite differences, on every parameter of a small model of each shape
 * (grouped queries, biases, tied and untied embeddings).
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { initialWeights } from './parameters.ts';
import { createTrainingSession } from './training-session.ts';
import type { ModelConfig, TrainRow } from './types.ts';

const BASE: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 16,
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  intermediate: 24,
  vocabulary: 19,
  contextTokens: 32,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const LOSS = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3, weightSum: 11 };

function rows(prng: Prng, config: ModelConfig): TrainRow[] {
  return [9, 6].map((length) => ({
    tokens: Uint32Array.from({ length }, () => prng.below(config.vocabulary)),
    weights: Float32Array.from({ length }, (_, t) => (t > 1 ? 1 : 0)),
    advantages: Float32Array.from({ length }, () => prng.gaussian()),
    oldLogprobs: Float32Array.from({ length }, () => -3 + 0.2 * prng.gaussian()),
  }));
}

describe.each([
  ['llama, grouped queries, tied', BASE],
  ['qwen2, biases, untied', { ...BASE, modelType: 'qwen2', qkvBias: true, tiedEmbeddings: false }],
  ['full attention heads', { ...BASE, kvHeads: 4 }],
] as const)('%s', (_name, config) => {
  it.each(['policy', 'likelihood'] as const)(
    '%s gradients match differences',
    async (objective) => {
      const prng = new Prng(7);
      const weights = initialWeights(config, prng);
      for (const [name, { data }] of weights) {
        if (name.endsWith('bias')) data.forEach((_, i) => (data[i] = 0.1 * prng.gaussian()));
      }
      const session = createTrainingSession(config, weights, {
        device: 'cpu',
        threads: 1,
        objective,
      });
      const batch = rows(prng, config);
      const { gradients } = await session.lossAndGradients(batch, LOSS);
      for (const [name, { data }] of weights) {
        const gradient = gradients.get(name)!;
        expect(gradient.length).toBe(data.length);
        // A random direction tests the whole tensor with two runs.
        const direction = Float32Array.from(data, () => (prng.next() < 0.5 ? -1 : 1));
        const step = 2e-3;
        const shifted = async (sign: number) => {
          const kept = data.slice();
          data.forEach((value, i) => (data[i] = value + sign * step * direction[i]!));
          const { loss } = await session.lossAndGradients(batch, LOSS);
          data.set(kept);
          return loss;
        };
        const numeric = ((await shifted(1)) - (await shifted(-1))) / (2 * step);
        const analytic = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
        const scale = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0)) + 1e-3;
        expect(Math.abs(numeric - analytic) / scale, name).toBeLessThan(0.03);
      }
      await session.dispose();
    },
  );
});
