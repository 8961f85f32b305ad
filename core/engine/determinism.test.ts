/**
 * A request's tokens do not depend on its company: the same requests alone and in batches of 2 to
 * 16 with others of random lengths, live and rollout, on one thread and on several. Nothing is
 * shared between requests here; shared-prefixes.test.ts is about that.
 */
import { expect, it } from 'vitest';
import { initialWeights } from '../model/parameters.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng } from '../prng.ts';
import type { Priority, SampleResult } from '../ports.ts';
import { LocalEngine } from './local-engine.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 64,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  intermediate: 96,
  vocabulary: 128,
  contextTokens: 512,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const BATCHES = [2, 3, 4, 5, 7, 8, 12, 16];
const weights = initialWeights(CONFIG, new Prng(1));
for (const { data } of weights.values()) data.forEach((value, i) => (data[i] = value * 2));

interface Request {
  prompt: number[];
  maxTokens: number;
  seed: number;
  priority: Priority;
}

async function sample(engine: LocalEngine, request: Request): Promise<SampleResult> {
  const { prompt, maxTokens, seed, priority } = request;
  const sequence = engine.open({ policyVersion: 1, priority });
  sequence.append(prompt);
  const sampling = { temperature: 1, topP: 1, topK: 0, seed };
  const result = await sequence.sample({ maxTokens, sampling, stopTokens: [] });
  sequence.close();
  return result;
}

it.each([1, 2])('the same tokens alone and in any batch, %i threads', async (threads) => {
  const engine = new LocalEngine({ device: 'cpu', threads, prefixCache: false });
  await engine.load(1, { config: CONFIG, weights });
  const prng = new Prng(threads);
  const draw = (maxTokens: number): Request => ({
    prompt: Array.from({ length: 1 + prng.below(300) }, () => prng.below(CONFIG.vocabulary)),
    maxTokens,
    seed: prng.below(1000),
    priority: prng.pick(['live', 'rollout'] as const),
  });
  for (const size of BATCHES) {
    const request = draw(80);
    const alone = await sample(engine, request);
    const others = Array.from({ length: size - 1 }, () => draw(1 + prng.below(120)));
    const [crowded] = await Promise.all([request, ...others].map((one) => sample(engine, one)));
    expect([...crowded!.tokens], `batch of ${size}`).toEqual([...alone.tokens]);
    const gaps = alone.logprobs.map((x, i) => Math.abs(x - crowded!.logprobs[i]!));
    expect(Math.max(...gaps)).toBeLessThan(1e-5);
  }
  await engine.close();
});

it('computes equal prompts once and changes no bit, whenever their like arrive', async () => {
  const engineWith = async (prefixCache: boolean | 'equal') => {
    const engine = new LocalEngine({ device: 'cpu', threads: 2, prefixCache });
    await engine.load(1, { config: CONFIG, weights });
    return engine;
  };
  const [apart, equal] = [await engineWith(false), await engineWith('equal')];
  const prng = new Prng(9);
  // Longer than one piece; the last one agrees with the others but for its end.
  const prompt = Array.from({ length: 330 }, () => prng.below(CONFIG.vocabulary));
  const requests = Array.from({ length: 6 }, (_, seed): Request => {
    const own = seed === 5 ? [...prompt.slice(0, -3), 1, 2, 3] : prompt;
    return { prompt: own, maxTokens: 20, seed, priority: 'rollout' };
  });
  const expected = await Promise.all(requests.map((one) => sample(apart, one)));
  const together = await Promise.all(requests.map((one) => sample(equal, one)));
  const sampled = (results: SampleResult[]) => results.map((one) => ({ ...one, cachedTokens: 0 }));
  expect(sampled(together)).toEqual(sampled(expected));
  // Alone, after others had the same prompt: nothing of theirs is taken.
  expect(await sample(equal, requests[2]!)).toEqual(expected[2]);
  expect(together.map(({ cachedTokens }) => cachedTokens)).toEqual([0, 329, 329, 329, 329, 0]);
  expect(equal.stats().kv.prefilledTokens).toBe(2 * 329 + 329);
  await apart.close();
  await equal.close();
});
