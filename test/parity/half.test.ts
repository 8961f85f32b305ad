/**
 * float16 against float32: logits of every family and option, and of the shipped policy, differ by
 * no more than half precision explains; the engine serves it, and what it logs is what it samples
 * from.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { LocalEngine } from '../../core/engine/local-engine.ts';
import { loadPolicyModel } from '../../core/model/policy-directory.ts';
import { packageRoot } from '../../core/paths.ts';
import { Prng } from '../../core/prng.ts';
import { fixtureNames, fixtureRoot, largestDifference } from './fixtures.ts';
import { wholeRowLogits } from './whole-row.ts';

const TOLERANCE = 2e-2;
const EMBEDDED = join(packageRoot, 'policies', 'embedded');
const TOKENS = 48;

const directories = [
  ...fixtureNames('models').map((name) => [name, join(fixtureRoot, 'models', name)] as const),
  ['the shipped policy', EMBEDDED] as const,
];

function draw(count: number, vocabulary: number): number[] {
  const prng = new Prng(4);
  return Array.from({ length: count }, () => prng.below(vocabulary));
}

test.each(directories)('logits of %s', async (_name, directory) => {
  const model = loadPolicyModel(directory);
  const ids = draw(Math.min(TOKENS, model.config.contextTokens), model.config.vocabulary);
  const full = await wholeRowLogits(model, ids);
  const half = await wholeRowLogits(model, ids, undefined, 'f16');
  const difference = largestDifference(half, full);
  expect(difference).toBeLessThanOrEqual(TOLERANCE);
  // It is half precision that was compared.
  expect(difference).toBeGreaterThan(1e-6);
});

test('the engine in float16: prefill and chunked decode agree with the whole row', async () => {
  const model = loadPolicyModel(EMBEDDED);
  const { vocabulary } = model.config;
  const prompt = draw(30, vocabulary);
  const engine = new LocalEngine({ device: 'cpu', threads: 1, dtype: 'f16' });
  await engine.load(1, model);
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append(prompt);
  const sampling = { temperature: 1, topP: 1, topK: 0, seed: 3 };
  const sampled = await sequence.sample({ maxTokens: 40, sampling, stopTokens: [] });
  sequence.close();
  await engine.close();
  const logits = await wholeRowLogits(model, [...prompt, ...sampled.tokens]);
  sampled.tokens.forEach((token, t) => {
    const at = (prompt.length - 1 + t) * vocabulary;
    const row = logits.subarray(at, at + vocabulary);
    const largest = Math.max(...row);
    const total = row.reduce((sum, x) => sum + Math.exp(x - largest), 0);
    const logprob = row[token]! - largest - Math.log(total);
    expect(Math.abs(sampled.logprobs[t]! - logprob)).toBeLessThanOrEqual(2 * TOLERANCE);
  });
});
