/** Chunked decode samples what one run a token samples: same tokens, same log-probabilities. */
import { expect, it } from 'vitest';
import { LocalEngine } from '../core/engine/local-engine.ts';
import { initialWeights } from '../core/model/parameters.ts';
import type { ModelConfig } from '../core/model/types.ts';
import { Prng, uniform } from '../core/prng.ts';
import { OneTokenDecoder } from './one-token.ts';

const CONFIG: ModelConfig = {
  modelType: 'qwen2',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: 61,
  contextTokens: 128,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};
const OPTIONS = { device: 'cpu', threads: 1 } as const;
const PROMPT = 21;
const SAMPLED = 50;

it('equals the engine token by token', async () => {
  const prng = new Prng(12);
  const model = { config: CONFIG, weights: initialWeights(CONFIG, prng) };
  const prompts = [1, 2, 3].map(() =>
    Array.from({ length: PROMPT }, () => prng.below(CONFIG.vocabulary)),
  );

  const engine = new LocalEngine(OPTIONS);
  await engine.load(1, model);
  const chunked = await Promise.all(
    prompts.map((prompt, seed) => {
      const sequence = engine.open({ policyVersion: 1 });
      sequence.append(prompt);
      const sampling = { temperature: 1, topP: 1, topK: 0, seed };
      return sequence.sample({ maxTokens: SAMPLED, sampling, stopTokens: [] });
    }),
  );
  await engine.close();

  const decoder = await OneTokenDecoder.create(model, OPTIONS);
  decoder.begin(prompts.length, 0);
  let ids: BigInt64Array = BigInt64Array.from(prompts, (prompt) => BigInt(prompt[0]!));
  for (let position = 1; position < PROMPT + SAMPLED; position++) {
    const draws = Float32Array.from(prompts, (_, seed) => uniform(seed, position));
    const { tokens, logprobs, entropies } = await decoder.step(ids, draws);
    if (position < PROMPT) {
      ids = BigInt64Array.from(prompts, (prompt) => BigInt(prompt[position]!));
      continue;
    }
    chunked.forEach((row, r) => {
      const t = position - PROMPT;
      expect(Number(tokens[r])).toBe(row.tokens[t]);
      expect(Math.abs(logprobs[r]! - row.logprobs[t]!)).toBeLessThan(1e-4);
      expect(Math.abs(entropies[r]! - row.entropies[t]!)).toBeLessThan(1e-4);
    });
    ids = tokens;
  }
  await decoder.dispose();
  expect(chunked.map(({ tokens }) => tokens.length)).toEqual([SAMPLED, SAMPLED, SAMPLED]);
});
