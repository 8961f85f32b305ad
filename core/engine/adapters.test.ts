/**
 * Adapters in the engine against their slow twin, the merged weights: log-probabilities while
 * sampling and while scoring, for ranks, targets and scales; several adapters at once over one
 * base, and what of the base's memory lives how long.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AdapterPolicy } from '../model/lora-directory.ts';
import { initialAdapter, mergeAdapter, type LoraAdapter, type LoraConfig } from '../model/lora.ts';
import { initialWeights } from '../model/parameters.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { ModelConfig, Weights } from '../model/types.ts';
import type { SampleResult } from '../ports.ts';
import { Prng } from '../prng.ts';
import type { SamplingParams } from '../records.ts';
import { createLocalEngine, LocalEngine } from './local-engine.ts';

const RUNTIME = { device: 'cpu', threads: 1 } as const;
/** Grouped queries and biases on q, k and v. */
const QWEN2: ModelConfig = {
  modelType: 'qwen2',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: 61,
  contextTokens: 96,
  ropeTheta: 10_000,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};
const LLAMA: ModelConfig = {
  ...QWEN2,
  modelType: 'llama',
  kvHeads: 4,
  qkvBias: false,
  tiedEmbeddings: false,
};
const LORA: LoraConfig = {
  rank: 4,
  alpha: 8,
  rsLora: false,
  targets: 'all-linear',
  excluded: [],
  layers: null,
  rankPattern: {},
  alphaPattern: {},
};
const PROMPT = [5, 17, 3, 44, 8, 21, 0, 60, 12];
const PLAIN: SamplingParams = { temperature: 1, topP: 1, topK: 0, seed: 5 };

function baseWeights(config: ModelConfig): Weights {
  const prng = new Prng(3);
  const weights = initialWeights(config, prng);
  for (const [name, { data }] of weights) {
    const spread = name.endsWith('bias') ? 0.3 : 0;
    data.forEach((value, i) => (data[i] = 1.5 * value + spread * prng.gaussian()));
  }
  return weights;
}

/** An adapter that has learned something: neither A nor B is zero. */
function learned(config: ModelConfig, change: Partial<LoraConfig>, seed: number): LoraAdapter {
  const prng = new Prng(seed);
  const adapter = initialAdapter(config, { ...LORA, ...change }, prng);
  for (const { data } of adapter.weights.values()) {
    data.forEach((value, i) => (data[i] = value + 0.1 * prng.gaussian()));
  }
  return adapter;
}

async function sample(
  engine: LocalEngine,
  policyVersion: number,
  prompt: readonly number[] = PROMPT,
): Promise<SampleResult> {
  const sequence = engine.open({ policyVersion });
  sequence.append(prompt);
  const result = await sequence.sample({ maxTokens: 40, sampling: PLAIN, stopTokens: [] });
  sequence.close();
  return result;
}

async function score(config: ModelConfig, weights: Weights, result: SampleResult, a?: LoraAdapter) {
  const session = createTrainingSession(config, weights, { ...RUNTIME, ...(a && { adapter: a }) });
  const { logprobs } = await session.score([Uint32Array.of(...PROMPT, ...result.tokens)]);
  await session.dispose();
  return logprobs[0]!.subarray(PROMPT.length);
}

function maxDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

describe.each([
  ['rank 1 of q and v', QWEN2, { rank: 1, targets: ['q_proj', 'v_proj'] }],
  ['rank 8 of everything, rsLoRA', QWEN2, { rank: 8, rsLora: true }],
  ['ranks and alphas by name', QWEN2, { rankPattern: { k_proj: 7 }, alphaPattern: { 'mlp.*': 3 } }],
  ['one layer', QWEN2, { targets: ['o_proj', 'gate_proj', 'up_proj'], layers: [1] }],
  ['full heads, the MLP but one', LLAMA, { targets: '.*mlp.*', excluded: ['up_proj'] }],
] satisfies [string, ModelConfig, Partial<LoraConfig>][])('%s', (_name, config, change) => {
  it('says the same merged and unmerged, sampling and scoring', async () => {
    const weights = baseWeights(config);
    const adapter = learned(config, change, 9);
    const merged = mergeAdapter(weights, adapter);
    const engine = new LocalEngine(RUNTIME);
    await engine.load(1, { config, weights });
    await engine.load(2, { config, adapter, baseKey: 'base', baseWeights: () => weights });
    await engine.load(3, { config, weights: merged });
    const [plain, adapted, twin] = await Promise.all([1, 2, 3].map((v) => sample(engine, v)));
    await engine.close();
    expect(adapted!.tokens).toEqual(twin!.tokens);
    expect(maxDifference(adapted!.logprobs, twin!.logprobs)).toBeLessThan(1e-4);
    expect(adapted!.tokens).not.toEqual(plain!.tokens);
    const scored = await score(config, weights, adapted!, adapter);
    expect(maxDifference(adapted!.logprobs, scored)).toBeLessThan(1e-4);
    const scoredTwin = await score(config, merged, adapted!);
    expect(maxDifference(scoredTwin, scored)).toBeLessThan(1e-4);
  });
});

describe('several adapters over one base', () => {
  const weights = baseWeights(QWEN2);
  const adapters = [
    learned(QWEN2, { targets: ['q_proj', 'v_proj'] }, 1),
    learned(QWEN2, { rank: 2 }, 2),
    learned(QWEN2, { targets: ['down_proj'], rank: 8 }, 3),
  ];
  let reads = 0;
  const policy = (adapter: LoraAdapter): AdapterPolicy => ({
    config: QWEN2,
    adapter,
    baseKey: 'base',
    baseWeights: () => {
      reads++;
      return weights;
    },
  });
  let engine: LocalEngine;
  beforeAll(() => (engine = new LocalEngine(RUNTIME)));
  afterAll(() => engine.close());

  it('answer together, each as its merged twin, from one copy of the base', async () => {
    await Promise.all(adapters.map((adapter, i) => engine.load(i + 1, policy(adapter))));
    expect(reads).toBe(1);
    for (const [i, adapter] of adapters.entries()) {
      await engine.load(11 + i, { config: QWEN2, weights: mergeAdapter(weights, adapter) });
    }
    const results = await Promise.all([1, 11, 2, 12, 3, 13].map((v) => sample(engine, v)));
    const texts = results.map(({ tokens }) => tokens.join());
    expect([texts[0], texts[2], texts[4]]).toEqual([texts[1], texts[3], texts[5]]);
    expect(new Set(texts).size).toBe(3);
  });

  it('free the base with the last of them, and running sequences keep it', async () => {
    const running = engine.open({ policyVersion: 3 });
    running.append(PROMPT);
    await Promise.all([1, 2, 3].map((version) => engine.unload(version)));
    await engine.load(4, policy(adapters[0]!));
    expect(reads).toBe(1);
    const result = await running.sample({ maxTokens: 8, sampling: PLAIN, stopTokens: [] });
    expect(result.tokens.length).toBe(8);
    running.close();
    await engine.unload(4);
    await engine.load(5, policy(adapters[0]!));
    expect(reads).toBe(2);
  });

  it('do not break when the base cannot be read; the next load tries again', async () => {
    const broken = {
      ...policy(adapters[1]!),
      baseKey: 'broken',
      baseWeights: (): Weights => {
        throw new Error('no such file');
      },
    };
    await expect(engine.load(6, broken)).rejects.toThrow('no such file');
    await engine.load(6, { ...broken, baseWeights: () => weights });
    expect((await sample(engine, 6)).tokens).toEqual((await sample(engine, 12)).tokens);
  });
});

it('sees an adapter that an optimiser changed after a reload', async () => {
  const weights = baseWeights(QWEN2);
  const adapter = initialAdapter(QWEN2, LORA, new Prng(1));
  const policy = { config: QWEN2, adapter, baseKey: 'base', baseWeights: () => weights };
  const engine = await createLocalEngine({ ...policy, ...RUNTIME, version: 1 });
  const before = await sample(engine, 1);
  // B is 0: the fresh adapter is the base.
  expect(maxDifference(before.logprobs, await score(QWEN2, weights, before))).toBeLessThan(1e-4);
  for (const { data } of adapter.weights.values())
    data.forEach((value, i) => (data[i] = value + 0.1));
  await engine.reload();
  const after = await sample(engine, 1);
  const scored = await score(QWEN2, weights, after, adapter);
  await engine.close();
  expect(maxDifference(after.logprobs, scored)).toBeLessThan(1e-4);
  expect(after.logprobs).not.toEqual(before.logprobs);
});

describe.each([
  ['a small model', {}],
  ['one that counts as large', { largeBytes: 1 }],
])('a request over an adapter of %s', (_name, size) => {
  it('gets the same numbers alone and in company, to the bit', async () => {
    const weights = baseWeights(QWEN2);
    const adapter = learned(QWEN2, { rank: 8 }, 4);
    const engine = new LocalEngine({ ...RUNTIME, ...size, prefixCache: false });
    await engine.load(1, { config: QWEN2, adapter, baseKey: 'base', baseWeights: () => weights });
    // A product of one row is what onnxruntime computes in a way of its own.
    for (const prompt of [PROMPT, PROMPT.slice(0, 1)]) {
      const alone = await sample(engine, 1, prompt);
      for (const others of [1, 2, 5]) {
        const [found] = await Promise.all(
          Array.from({ length: 1 + others }, () => sample(engine, 1, prompt)),
        );
        expect(found!.tokens).toEqual(alone.tokens);
        expect(found!.logprobs).toEqual(alone.logprobs);
        expect(found!.entropies).toEqual(alone.entropies);
      }
    }
    await engine.close();
  });
});
