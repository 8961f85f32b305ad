/**
 * A large model's one session (step-session.ts) against the two sessions of a small one, over the
 * whole engine: the same tokens, keys and values; and weights that stay in their files, in every
 * type, in one file or several, at any offset.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { initialWeights } from '../model/parameters.ts';
import { openPolicyModel, savePolicyModel, type ServedModel } from '../model/policy-directory.ts';
import { heldWeights } from '../model/stored-weights.ts';
import { writeCheckpoint } from '../model/testing/checkpoint-writer.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng } from '../prng.ts';
import type { SamplingParams } from '../records.ts';
import { LocalEngine } from './local-engine.ts';

const CONFIG: ModelConfig = {
  modelType: 'qwen2',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: 61,
  contextTokens: 160,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};
const folder = mkdtempSync(join(tmpdir(), 'ramify-step-'));
afterAll(() => rmSync(folder, { recursive: true }));

const PARAMS: readonly SamplingParams[] = [
  { temperature: 0, topP: 1, topK: 0, seed: 1 },
  { temperature: 1.2, topP: 1, topK: 0, seed: 2 },
  { temperature: 1, topP: 0.7, topK: 20, seed: 3 },
];

const FIGURES = ['logprobs', 'behaviourLogprobs', 'entropies', 'candidateEntropies'] as const;

/** Three rows of different lengths at once; one has a stop token, one goes on after a fork. */
async function sampleAll(model: ServedModel, largeBytes: number) {
  const engine = new LocalEngine({
    ...{ device: 'cpu', threads: 1, largeBytes, kvBytesMax: 2 ** 24 },
    entropyCandidates: 10,
  });
  await engine.load(1, model);
  const prng = new Prng(9);
  const sequences = PARAMS.map((_, i) => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(Array.from({ length: 3 + 40 * i }, () => prng.below(model.config.vocabulary)));
    return sequence;
  });
  const run = (stopTokens: number[]) =>
    Promise.all(
      sequences.map((sequence, i) =>
        sequence.sample({ maxTokens: 30, sampling: PARAMS[i]!, stopTokens, likeliest: 2 * i }),
      ),
    );
  const first = await run([7, 8, 9]);
  const branch = sequences[2]!.fork(20);
  sequences.push(branch);
  const forked = await branch.sample({ maxTokens: 9, sampling: PARAMS[0]!, stopTokens: [] });
  for (const sequence of sequences) sequence.close();
  await engine.close();
  return [...first, forked];
}

async function expectSame(model: ServedModel): Promise<void> {
  const weights = heldWeights(model.weights);
  const expected = await sampleAll({ config: model.config, weights }, Infinity);
  const got = await sampleAll(model, 0);
  got.forEach((result, i) => {
    expect(result.finish).toBe(expected[i]!.finish);
    expect([...result.tokens]).toEqual([...expected[i]!.tokens]);
    expect(result.likeliest?.tokens).toEqual(expected[i]!.likeliest?.tokens);
    for (const name of FIGURES) {
      expect(result[name]).toHaveLength(result.tokens.length);
      result[name]!.forEach((value, t) => {
        expect(Math.abs(value - expected[i]![name]![t]!)).toBeLessThan(1e-4);
      });
    }
  });
}

describe('one session for prefill and decode', () => {
  it.each([
    ['Qwen2, tied', CONFIG],
    ['Llama, untied', { ...CONFIG, modelType: 'llama', qkvBias: false, tiedEmbeddings: false }],
  ] as const)('samples what two sessions sample: %s', async (_, config) => {
    await expectSame({ config, weights: initialWeights(config, new Prng(4)) });
  });

  it.each(['F32', 'BF16', 'F16'] as const)('reads %s where it lies', async (dtype) => {
    const directory = join(folder, dtype);
    writeCheckpoint(directory, CONFIG, { dtype, seed: 5 });
    await expectSame(openPolicyModel(directory));
  });

  it('reads several files', async () => {
    const directory = join(folder, 'shards');
    writeCheckpoint(directory, CONFIG, { dtype: 'F32', seed: 5, shards: 3 });
    await expectSame(openPolicyModel(directory));
  });

  it('reads a file whose tensors lie at odd offsets', async () => {
    const directory = join(folder, 'odd');
    writeCheckpoint(directory, CONFIG, { dtype: 'F32', seed: 5 });
    const path = join(directory, 'model.safetensors');
    const file = readFileSync(path);
    const headerBytes = Number(file.readBigUInt64LE());
    const longer = Buffer.concat([
      file.subarray(0, 8 + headerBytes),
      Buffer.from(' '),
      file.subarray(8 + headerBytes),
    ]);
    longer.writeBigUInt64LE(BigInt(headerBytes + 1));
    writeFileSync(path, longer);
    await expectSame(openPolicyModel(directory));
  });

  it('refuses a file that was cut off after it was opened', async () => {
    const directory = join(folder, 'cut');
    writeCheckpoint(directory, CONFIG, { dtype: 'F32', seed: 5 });
    const model = openPolicyModel(directory);
    const path = join(directory, 'model.safetensors');
    writeFileSync(path, readFileSync(path).subarray(0, 5000));
    await expect(sampleAll(model, 0)).rejects.toMatchObject({ code: 'policy_invalid' });
    await expect(sampleAll(model, Infinity)).rejects.toMatchObject({ code: 'policy_invalid' });
  });

  it('goes on when the file is replaced', async () => {
    const directory = join(folder, 'gone');
    writeCheckpoint(directory, CONFIG, { dtype: 'BF16', seed: 5 });
    const engine = new LocalEngine({
      device: 'cpu',
      threads: 1,
      largeBytes: 0,
      kvBytesMax: 2 ** 24,
    });
    await engine.load(1, openPolicyModel(directory));
    savePolicyModel(directory, { config: CONFIG, weights: initialWeights(CONFIG, new Prng(8)) });
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append([1, 2, 3]);
    const result = await sequence.sample({ maxTokens: 5, sampling: PARAMS[0]!, stopTokens: [] });
    expect(result.tokens).toHaveLength(5);
    sequence.close();
    await engine.close();
  });
});
