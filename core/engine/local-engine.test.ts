/**
 * The engine against its slow twins: chunked decode against a full recompute of every token, logged
 * log-probabilities against the training graph, forks and batches against single rows.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../limits.ts';
import { initialWeights } from '../model/parameters.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng } from '../prng.ts';
import type { SampleResult } from '../ports.ts';
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
const PLAIN: SamplingParams = { temperature: 1, topP: 1, topK: 0, seed: 5 };
const prng = new Prng(3);
const weights = initialWeights(CONFIG, prng);
for (const { data } of weights.values()) data.forEach((value, i) => (data[i] = value * 1.5));

let engine: LocalEngine;
const scorer = createTrainingSession(CONFIG, weights, { device: 'cpu', threads: 1 });

beforeAll(async () => {
  engine = new LocalEngine({ device: 'cpu', threads: 1 });
  await engine.load(1, { config: CONFIG, weights });
});
afterAll(async () => {
  await engine.close();
  await scorer.dispose();
});

const prompt = (length: number) => Array.from({ length }, () => prng.below(CONFIG.vocabulary));

async function sample(tokens: number[], sampling = PLAIN, maxTokens = 40): Promise<SampleResult> {
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append(tokens);
  const result = await sequence.sample({ maxTokens, sampling, stopTokens: [] });
  sequence.close();
  return result;
}

/** Log-probabilities and entropies of the sampled tokens by one forward pass over everything. */
async function rescore(tokens: number[], result: SampleResult) {
  const row = Uint32Array.from([...tokens, ...result.tokens]);
  const { logprobs, entropies } = await scorer.score([row]);
  return {
    logprobs: logprobs[0]!.subarray(tokens.length),
    entropies: entropies[0]!.subarray(tokens.length),
  };
}

function maxDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

describe('chunked decode', () => {
  it.each([1, 2, 17, 70])('logs what the training graph scores, prompt of %i', async (length) => {
    const tokens = prompt(length);
    const result = await sample(tokens, { ...PLAIN, seed: length });
    expect(result.tokens.length).toBe(40);
    expect(result.finish).toBe('length');
    const scored = await rescore(tokens, result);
    expect(maxDifference(result.logprobs, scored.logprobs)).toBeLessThan(1e-4);
    expect(maxDifference(result.entropies, scored.entropies)).toBeLessThan(1e-4);
    expect(maxDifference(result.behaviourLogprobs, result.logprobs)).toBeLessThan(1e-5);
    // What nobody asked for costs nothing.
    expect(result).not.toHaveProperty('candidateEntropies');
    expect(result).not.toHaveProperty('likeliest');
  });

  it('equals one-token full recompute, greedily', async () => {
    const tokens = prompt(9);
    const result = await sample(tokens, { ...PLAIN, temperature: 0 }, 37);
    const path = [...tokens];
    for (const token of result.tokens) {
      // Every candidate as the next token: the best one must be what the chunk chose.
      const rows = Array.from({ length: CONFIG.vocabulary }, (_, v) =>
        Uint32Array.from([...path, v]),
      );
      const { logprobs } = await scorer.score(rows);
      const scores = logprobs.map((row) => row.at(-1)!);
      expect(scores[token]).toBeGreaterThan(Math.max(...scores) - 1e-5);
      path.push(token);
    }
    expect(result.behaviourLogprobs.every((value) => value === 0)).toBe(true);
  });

  it('gives a request the same tokens alone and in a crowd', async () => {
    const prompts = Array.from({ length: 20 }, (_, i) => prompt(1 + ((i * 7) % 50)));
    const together = await Promise.all(prompts.map((p, i) => sample(p, { ...PLAIN, seed: i })));
    for (const [i, p] of prompts.entries()) {
      const alone = await sample(p, { ...PLAIN, seed: i });
      expect([...alone.tokens]).toEqual([...together[i]!.tokens]);
      expect(maxDifference(alone.logprobs, together[i]!.logprobs)).toBeLessThan(1e-4);
    }
  });

  it('stops after a stop token and keeps it', async () => {
    const tokens = prompt(5);
    const free = await sample(tokens);
    const stop = free.tokens[20]!;
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(tokens);
    const result = await sequence.sample({
      maxTokens: 40,
      sampling: PLAIN,
      stopTokens: [stop, 9999],
    });
    expect(result.finish).toBe('stop');
    const first = free.tokens.indexOf(stop);
    expect([...result.tokens]).toEqual([...free.tokens.subarray(0, first + 1)]);
    expect(sequence.length).toBe(5 + first + 1);
    sequence.close();
  });
});

describe('sampling', () => {
  it('follows the distribution', async () => {
    const tokens = prompt(4);
    const counts = new Float64Array(CONFIG.vocabulary);
    const draws = 2000;
    const sampled: Promise<SampleResult>[] = [];
    for (let i = 0; i < draws; i++) {
      sampled.push(sample(tokens, { ...PLAIN, seed: 1000 + i }, 1));
      if (sampled.length % 200 === 0) await Promise.all(sampled);
    }
    for (const result of await Promise.all(sampled)) counts[result.tokens[0]!]!++;
    const rows = Array.from({ length: CONFIG.vocabulary }, (_, v) =>
      Uint32Array.from([...tokens, v]),
    );
    const probabilities = (await scorer.score(rows)).logprobs.map((row) => Math.exp(row.at(-1)!));
    // Pearson's chi-squared: 60 degrees of freedom, mean 60, deviation 11.
    const chi = probabilities.reduce(
      (sum, p, v) => sum + (counts[v]! - draws * p) ** 2 / (draws * p),
      0,
    );
    expect(chi).toBeLessThan(60 + 6 * 11);
  });

  it('obeys top-k, top-p and temperature and logs what was sampled', async () => {
    const tokens = prompt(6);
    const rows = Array.from({ length: CONFIG.vocabulary }, (_, v) =>
      Uint32Array.from([...tokens, v]),
    );
    const logprobs = (await scorer.score(rows)).logprobs.map((row) => row.at(-1)!);
    const order = [...logprobs.keys()].sort((a, b) => logprobs[b]! - logprobs[a]!);
    for (let seed = 0; seed < 40; seed++) {
      const one = await sample(tokens, { temperature: 1, topP: 1, topK: 3, seed }, 1);
      expect(order.slice(0, 3)).toContain(one.tokens[0]);
      const kept = order.slice(0, 3).reduce((sum, v) => sum + Math.exp(logprobs[v]!), 0);
      expect(one.behaviourLogprobs[0]).toBeCloseTo(logprobs[one.tokens[0]!]! - Math.log(kept), 3);
      const tiny = await sample(tokens, { temperature: 1, topP: 1e-6, topK: 0, seed }, 1);
      expect(tiny.tokens[0]).toBe(order[0]);
      for (const least of [1e-6, 1e-40, 5e-324]) {
        const coldest = await sample(tokens, { temperature: least, topP: 1, topK: 0, seed }, 1);
        const tiniest = await sample(tokens, { temperature: 1, topP: least, topK: 0, seed }, 1);
        expect([coldest.tokens[0], tiniest.tokens[0]]).toEqual([order[0], order[0]]);
        expect(coldest.logprobs[0]).toBeCloseTo(logprobs[order[0]!]!, 3);
      }
      const cold = await sample(tokens, { temperature: 0.25, topP: 1, topK: 0, seed }, 1);
      const weights4 = logprobs.map((lp) => Math.exp(4 * lp));
      const total = weights4.reduce((a, b) => a + b, 0);
      const expected = Math.log(weights4[cold.tokens[0]!]! / total);
      expect(cold.behaviourLogprobs[0]).toBeCloseTo(expected, 3);
      expect(cold.logprobs[0]).toBeCloseTo(logprobs[cold.tokens[0]!]!, 3);
    }
  });
});

describe('sequences', () => {
  it('continue, truncate and fork without losing exactness', async () => {
    const tokens = prompt(30);
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(tokens);
    const first = await sequence.sample({ maxTokens: 21, sampling: PLAIN, stopTokens: [] });
    const forks = [35, 51, 30].map((length) => sequence.fork(length));
    const context = prompt(12);
    const all = [...tokens, ...first.tokens];
    for (const fork of [...forks, sequence]) {
      const prefix = all.slice(0, fork.length);
      fork.append(context);
      const result = await fork.sample({
        maxTokens: 18,
        sampling: { ...PLAIN, seed: 77 },
        stopTokens: [],
      });
      const scored = await rescore([...prefix, ...context], result);
      expect(maxDifference(result.logprobs, scored.logprobs)).toBeLessThan(1e-4);
    }
    sequence.truncate(33);
    const again = await sequence.sample({ maxTokens: 10, sampling: PLAIN, stopTokens: [] });
    const scored = await rescore(all.slice(0, 33), again);
    expect(maxDifference(again.logprobs, scored.logprobs)).toBeLessThan(1e-4);
    for (const fork of forks) fork.close();
    sequence.close();
    expect(engine.stats().openSequences).toBe(0);
  });

  it('end at the context window and refuse what does not fit', async () => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(prompt(150));
    const result = await sequence.sample({ maxTokens: 100, sampling: PLAIN, stopTokens: [] });
    expect(result.finish).toBe('context');
    expect(sequence.length).toBe(CONFIG.contextTokens);
    sequence.close();
    const other = engine.open({ policyVersion: 1 });
    expect(() => other.append(prompt(160))).toThrowError(/160 tokens do not fit .* 160/);
    other.close();
  });

  it('are cancelled in mid-sample', async () => {
    const abort = new AbortController();
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(prompt(3));
    const result = await sequence.sample({
      maxTokens: 150,
      sampling: PLAIN,
      stopTokens: [],
      signal: abort.signal,
      onTokens: () => abort.abort(),
    });
    expect(result.finish).toBe('cancelled');
    expect(result.tokens.length).toBe(LIMITS.firstChunkTokens);
    sequence.close();
  });

  it('stay on their version while another is loaded and the first unloaded', async () => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(prompt(3));
    const other = initialWeights(CONFIG, new Prng(99));
    await engine.load(2, { config: CONFIG, weights: other });
    await engine.unload(1);
    expect(() => engine.open({ policyVersion: 1 })).toThrowError(/version 1 is not loaded/);
    const result = await sequence.sample({ maxTokens: 5, sampling: PLAIN, stopTokens: [] });
    expect(result.tokens.length).toBe(5);
    sequence.close();
    await engine.load(1, { config: CONFIG, weights });
    await engine.unload(2);
    expect(engine.stats().versions).toEqual([1]);
  });

  it('find their version again when it is loaded once more before it has drained', async () => {
    const first = engine.open({ policyVersion: 1 });
    first.append(prompt(3));
    await engine.unload(1);
    await engine.load(1, { config: CONFIG, weights });
    first.close();
    const second = engine.open({ policyVersion: 1 });
    second.append(prompt(3));
    const result = await second.sample({ maxTokens: 5, sampling: PLAIN, stopTokens: [] });
    expect(result.tokens.length).toBe(5);
    second.close();
  });

  it('may leave a version that drains in the middle of a turn of several versions', async () => {
    const several = new LocalEngine({ device: 'cpu', threads: 1 });
    for (const version of [1, 2, 3]) await several.load(version, { config: CONFIG, weights });
    const [first, second, third] = [1, 2, 3].map((policyVersion) => {
      const sequence = several.open({ policyVersion });
      sequence.append(prompt(3));
      return sequence;
    });
    const abort = new AbortController();
    let pieces = 0;
    const request = { maxTokens: 100, sampling: PLAIN, stopTokens: [] };
    // While version 1 has its part of a turn, the only client of version 3 goes.
    const onTokens = () => void (++pieces === 2 && abort.abort());
    const stay = [first!.sample({ ...request, onTokens }), second!.sample(request)];
    const left = third!.sample({ ...request, signal: abort.signal });
    const closed = left.then(() => third!.close());
    await several.unload(3);
    expect((await left).finish).toBe('cancelled');
    await closed;
    expect((await Promise.all(stay)).map(({ finish }) => finish)).toEqual(['length', 'length']);
    expect(several.stats()).toMatchObject({ versions: [1, 2], openSequences: 2, running: 0 });
    await several.close();
  }, 20_000);

  it('fail with their turn, and the next one is served', async () => {
    let now = () => 0;
    const other = new LocalEngine({ device: 'cpu', threads: 1, clock: { now: () => now() } });
    await other.load(1, { config: CONFIG, weights });
    const sequence = other.open({ policyVersion: 1 });
    sequence.append(prompt(3));
    const request = { maxTokens: 100, sampling: PLAIN, stopTokens: [] };
    const onTokens = () => {
      now = () => {
        throw new Error('no time');
      };
    };
    await expect(sequence.sample({ ...request, onTokens })).rejects.toThrowError(/no time/);
    now = () => 0;
    const { finish } = await sequence.sample(request);
    expect(finish).toBe('length');
    expect(other.stats()).toMatchObject({ queued: 0, running: 0 });
    await other.close();
  }, 20_000);

  it('are refused beyond the bounds', async () => {
    const small = new LocalEngine({
      device: 'cpu',
      threads: 1,
      sequencesMax: 3,
      batchRowsMax: 1,
      queueMax: 1,
    });
    await small.load(1, { config: CONFIG, weights });
    const open = [1, 2, 3].map(() => small.open({ policyVersion: 1 }));
    expect(() => small.open({ policyVersion: 1 })).toThrowError(/3 conversations are open/);
    for (const sequence of open) sequence.append(prompt(2));
    const request = { maxTokens: 4, sampling: PLAIN, stopTokens: [] };
    const results = await Promise.allSettled(open.map((sequence) => sequence.sample(request)));
    expect(results.map((r) => r.status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    await small.close();
  });
});
