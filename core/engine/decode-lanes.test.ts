/**
 * Decoding in lanes against decoding in one batch: the same tokens and numbers, while rows come, go
 * and move; what a dead lane costs; how rows are divided. The lane threads run from dist/.
 */
import type { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { must } from '../assert.ts';
import { initialWeights } from '../model/parameters.ts';
import type { ModelConfig } from '../model/types.ts';
import type { Sequence } from '../ports.ts';
import { Prng } from '../prng.ts';
import { BatchKv } from './batch-kv.ts';
import { divideRows } from './decode-lanes.ts';
import { KvMemory } from './kv-memory.ts';
import { LaneThread } from './lane-thread.ts';
import { LocalEngine } from './local-engine.ts';
import { SequenceKv } from './sequence-kv.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: 50,
  contextTokens: 256,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const weights = initialWeights(CONFIG, new Prng(3));
let laned: LocalEngine;
let single: LocalEngine;

beforeAll(async () => {
  laned = new LocalEngine({ device: 'cpu', threads: 3, entropyCandidates: 10 });
  single = new LocalEngine({ device: 'cpu', threads: 1, entropyCandidates: 10 });
  for (const engine of [laned, single]) await engine.load(1, { config: CONFIG, weights });
});

afterAll(async () => {
  await laned.close();
  await single.close();
});

function opened(engine: LocalEngine, row: number): Sequence {
  const sequence = engine.open({ policyVersion: 1 });
  const prng = new Prng(row);
  sequence.append(Array.from({ length: 3 + 7 * row }, () => prng.below(CONFIG.vocabulary)));
  return sequence;
}

const sampled = (sequence: Sequence, seed: number, maxTokens: number) =>
  sequence.sample({
    maxTokens,
    // Some rows of a run want none, or fewer than others.
    likeliest: seed % 4,
    sampling: { temperature: 1, topP: 1, topK: 0, seed },
    stopTokens: [7],
  });

/** Samples all rows, then again without every third one and with two new ones. */
async function session(engine: LocalEngine) {
  const rows = Array.from({ length: 7 }, (_, row) => opened(engine, row));
  const first = await Promise.all(rows.map((sequence, row) => sampled(sequence, row, 20)));
  const stayed = rows.filter((_, row) => row % 3 !== 0);
  const all = [...stayed, opened(engine, 8), opened(engine, 9)];
  const second = await Promise.all(all.map((sequence, row) => sampled(sequence, 50 + row, 30)));
  for (const sequence of new Set([...rows, ...all])) sequence.close();
  return [...first, ...second];
}

test('lanes sample what one batch samples', async () => {
  const [ours, twin] = [await session(laned), await session(single)];
  expect(ours.map(({ tokens }) => [...tokens])).toEqual(twin.map(({ tokens }) => [...tokens]));
  ours.forEach((result, i) => {
    for (const name of ['logprobs', 'candidateEntropies'] as const) {
      must(result[name], name).forEach((value, t) => {
        expect(Math.abs(value - must(twin[i]?.[name]?.[t], 'twin'))).toBeLessThan(1e-4);
      });
    }
    expect(result.likeliest?.count ?? 0).toBe((i < 7 ? i : 43 + i) % 4);
    expect(result.likeliest?.tokens).toEqual(twin[i]?.likeliest?.tokens);
  });
});

test('a lane that dies fails its run, and the others go on', async () => {
  const engine = new LocalEngine({ device: 'cpu', threads: 2 });
  const start = vi.spyOn(LaneThread, 'start');
  await engine.load(1, { config: CONFIG, weights });
  const lane = (await must(start.mock.results[0], 'a lane').value) as LaneThread;
  start.mockRestore();
  const rows = [0, 1, 2].map((row) => opened(engine, row));
  // It ends just before its part of the first batch would run.
  vi.spyOn(lane, 'run').mockImplementationOnce((...given) => {
    (lane as unknown as { worker: Worker }).worker.postMessage({ type: 'stop' });
    return LaneThread.prototype.run.apply(lane, given);
  });
  const cut = Promise.all(rows.map((sequence, row) => sampled(sequence, row, 200)));
  await expect(cut).rejects.toMatchObject({ code: 'engine_unavailable' });
  expect(lane.alive).toBe(false);
  for (const sequence of rows) sequence.close();
  const again = opened(engine, 4);
  const twin = opened(single, 4);
  expect((await sampled(again, 1, 9)).tokens).toEqual((await sampled(twin, 1, 9)).tokens);
  await engine.close();
});

test('rows stay where they are cached and are divided evenly', () => {
  const memory = new KvMemory(1e9);
  const sequences = Array.from({ length: 5 }, () => new SequenceKv(memory, CONFIG));
  const lanes = [0, 1].map(() => ({ kv: new BatchKv(memory, CONFIG), thread: null }));
  const rowsOf = (among: readonly SequenceKv[]) => divideRows(lanes, among).map(({ rows }) => rows);
  expect(rowsOf(sequences)).toEqual([
    [0, 1, 2],
    [3, 4],
  ]);
  must(lanes[1], 'lane').kv.load(sequences.slice(0, 2));
  must(lanes[0], 'lane').kv.load(sequences.slice(2));
  expect(rowsOf(sequences)).toEqual([
    [2, 3, 4],
    [0, 1],
  ]);
  expect(rowsOf(sequences.slice(1, 2))).toEqual([[0]]);
  expect(rowsOf(sequences.slice(2, 4))).toEqual([[0], [1]]);
});
