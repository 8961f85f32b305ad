/**
 * Every family and option of a model through the engine: what prefill and chunked decode log is
 * what the training graph scores, and every option of a config changes the numbers. (Equality with
 * transformers is in test/parity.)
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TINY_CONFIGS, tinyWeights } from '../model/testing/tiny-models.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { ModelConfig, Weights } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { LocalEngine } from './local-engine.ts';

const CPU = { device: 'cpu', threads: 1 } as const;
const TOLERANCE = 1e-4;
/** Prefilled in pieces, and longer than the original window of the scalings. */
const PROMPT = 90;
const SAMPLED = 40;

const models = Object.entries(TINY_CONFIGS).map(([name, config], i) => ({
  name,
  config,
  weights: tinyWeights(config, new Prng(50 + i)),
  version: i + 1,
}));

async function score(config: ModelConfig, weights: Weights, row: Uint32Array) {
  const session = createTrainingSession(config, weights, CPU);
  const { logprobs, entropies } = await session.score([row]);
  await session.dispose();
  return { logprobs: logprobs[0]!, entropies: entropies[0]! };
}

function maxDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

describe('models of all families, side by side in one engine', () => {
  const engine = new LocalEngine(CPU);
  beforeAll(async () => {
    for (const { version, config, weights } of models) {
      await engine.load(version, { config, weights });
    }
  });
  afterAll(() => engine.close());

  it.each(models)('$name: decode logs what the training graph scores', async (model) => {
    const { version, config, weights } = model;
    const prng = new Prng(version);
    const prompt = Array.from({ length: PROMPT }, () => prng.below(config.vocabulary));
    const sequence = engine.open({ policyVersion: version });
    sequence.append(prompt);
    const sampling = { temperature: 1, topP: 1, topK: 0, seed: version };
    const result = await sequence.sample({ maxTokens: SAMPLED, sampling, stopTokens: [] });
    sequence.close();
    expect(result.tokens.length).toBe(SAMPLED);
    const row = Uint32Array.from([...prompt, ...result.tokens]);
    const { logprobs, entropies } = await score(config, weights, row);
    expect(maxDifference(result.logprobs, logprobs.subarray(PROMPT))).toBeLessThan(TOLERANCE);
    expect(maxDifference(result.entropies, entropies.subarray(PROMPT))).toBeLessThan(TOLERANCE);
    // The numbers are far from those of a model that says nothing.
    const uniform = Math.log(config.vocabulary);
    expect(Math.min(...logprobs.subarray(1))).toBeLessThan(-1.3 * uniform);
  });
});

describe('an option that is left out changes the numbers', () => {
  const without: [string, (config: ModelConfig) => ModelConfig][] = [
    ['llama with biases', (config) => ({ ...config, qkvBias: false })],
    ['llama, linear', ({ ropeScaling: _left, ...config }) => config],
    ['llama, llama3', ({ ropeScaling: _left, ...config }) => config],
    ['llama, yarn', ({ ropeScaling: _left, ...config }) => config],
    ['llama', (config) => ({ ...config, ropeTheta: 500 })],
    ['qwen2', (config) => ({ ...config, qkvBias: false })],
    ['qwen3', (config) => ({ ...config, modelType: 'llama' })],
    [
      'qwen3 with biases, wide heads, yarn',
      (config) => ({ ...config, ropeScaling: { type: 'linear', factor: 8 } }),
    ],
  ];
  it.each(without)('%s', async (name, leave) => {
    const { config, weights } = models.find((model) => model.name === name)!;
    const prng = new Prng(1);
    const row = Uint32Array.from({ length: PROMPT }, () => prng.below(config.vocabulary));
    const changed = leave(config);
    const whole = await score(config, weights, row);
    const left = await score(changed, weights, row);
    expect(maxDifference(whole.logprobs, left.logprobs)).toBeGreaterThan(0.01);
  });
});
