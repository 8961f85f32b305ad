/**
 * The policy worker in its real process: samples equal those of the engine in this thread, cancel
 * and refusals, and its death: what ran on it fails with a retryable code, and within 5 s the next
 * request is served by a new process with the same versions.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { quiet } from '../log.ts';
import { initialWeights } from '../model/parameters.ts';
import { savePolicyModel } from '../model/policy-directory.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { LocalEngine } from './local-engine.ts';
import { startPolicyEngine } from './policy-engine.ts';
import type { PolicyEngine } from './types.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: 64,
  contextTokens: 2_048,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const SAMPLING = { temperature: 1, topP: 1, topK: 0, seed: 3 };
const weights = initialWeights(CONFIG, new Prng(1));
const directory = mkdtempSync(join(tmpdir(), 'ramify-engine-'));

let engine: PolicyEngine;

beforeAll(async () => {
  savePolicyModel(directory, { config: CONFIG, weights });
  engine = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  await engine.load(1, directory);
});

afterAll(async () => {
  await engine.stop();
  rmSync(directory, { recursive: true, force: true });
});

it('samples what the engine in this thread samples, in pieces, across forks', async () => {
  const local = new LocalEngine({ device: 'cpu', threads: 1 });
  await local.load(1, { config: CONFIG, weights });
  const results = [];
  for (const sampler of [engine, local]) {
    const pieces: number[] = [];
    const sequence = sampler.open({ policyVersion: 1 });
    sequence.append([1, 2, 3]);
    const first = await sequence.sample({
      maxTokens: 40,
      sampling: SAMPLING,
      stopTokens: [],
      onTokens: ({ tokens }) => pieces.push(...tokens),
    });
    expect(pieces).toEqual([...first.tokens]);
    expect(sequence.length).toBe(43);
    const fork = sequence.fork(20);
    sequence.truncate(10);
    fork.append([7]);
    const second = await fork.sample({ maxTokens: 8, sampling: SAMPLING, stopTokens: [] });
    results.push([...first.tokens, ...second.tokens], [...first.logprobs, ...first.entropies]);
    sequence.close();
    fork.close();
  }
  expect(results[0]).toEqual(results[2]);
  expect(results[1]).toEqual(results[3]);
  await local.close();
  expect(engine.stats()).toMatchObject({ openSequences: 0, running: 0, versions: [1] });
});

it('bounds the window of each version by the memory for keys and values', async () => {
  // 256 bytes a token, a quarter of the memory for the longest row.
  const settings = { device: 'cpu', threads: 1, kvBytesMax: 4 * 128 * 256 } as const;
  const small = await startPolicyEngine({ ...settings, logger: quiet });
  await small.load(1, directory);
  const narrow = { ...CONFIG, contextTokens: 64 };
  const other = mkdtempSync(join(tmpdir(), 'ramify-engine-'));
  savePolicyModel(other, { config: narrow, weights: initialWeights(narrow, new Prng(1)) });
  await small.load(2, other);
  rmSync(other, { recursive: true });
  expect(small.open({ policyVersion: 2 }).contextTokens).toBe(64);
  const sequence = small.open({ policyVersion: 1 });
  expect(sequence.contextTokens).toBe(128);
  expect(() => sequence.append(new Uint32Array(128))).toThrowError(/window of 128/);
  sequence.append(new Uint32Array(100));
  expect(sequence.fork(50).contextTokens).toBe(128);
  const result = await sequence.sample({ maxTokens: 99, sampling: SAMPLING, stopTokens: [] });
  expect(result).toMatchObject({ finish: 'context' });
  sequence.close();
  await small.stop();
});

it('cancels in mid-sample', async () => {
  const abort = new AbortController();
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append([1]);
  const result = await sequence.sample({
    maxTokens: 2_000,
    sampling: SAMPLING,
    stopTokens: [],
    signal: abort.signal,
    onTokens: () => abort.abort(),
  });
  expect(result.finish).toBe('cancelled');
  expect(result.tokens.length).toBeLessThan(2_000);
  expect(sequence.length).toBe(1 + result.tokens.length);
  sequence.close();
});

it('ends a sample at its deadline', async () => {
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append([1]);
  const request = { maxTokens: 2_000, sampling: SAMPLING, stopTokens: [] };
  const late = sequence.sample({ ...request, deadlineMs: 30 });
  await expect(late).rejects.toMatchObject({
    code: 'request_timeout',
    message: 'no answer within 30 ms',
  });
  sequence.close();
});

it('refuses unknown versions, prompts that do not fit and broken directories', async () => {
  expect(() => engine.open({ policyVersion: 9 })).toThrowError(/version 9 is not loaded/);
  const sequence = engine.open({ policyVersion: 1 });
  expect(() => sequence.append(new Uint32Array(2_048))).toThrowError(/2048 tokens do not fit/);
  sequence.close();
  const missing = engine.load(2, join(directory, 'nothing'));
  await expect(missing).rejects.toMatchObject({ code: 'policy_invalid' });
});

it('survives the death of its process', async () => {
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append([1]);
  const killed = sequence.sample({
    maxTokens: 2_000,
    sampling: SAMPLING,
    stopTokens: [],
    onTokens: () => void process.kill(engine.stats().pid as number, 'SIGKILL'),
  });
  await expect(killed).rejects.toMatchObject({ code: 'engine_unavailable' });
  // The sequence went with its process.
  expect(() => sequence.append([2])).toThrowError(/worker of this conversation is gone/);
  sequence.close();

  await expect.poll(() => engine.stats().state, { timeout: 5_000 }).toBe('ready');
  expect(engine.stats()).toMatchObject({ versions: [1], openSequences: 0 });
  const next = engine.open({ policyVersion: 1 });
  next.append([1, 2]);
  const result = await next.sample({ maxTokens: 5, sampling: SAMPLING, stopTokens: [] });
  expect(result.tokens.length).toBe(5);
  next.close();
});

it('tries again when a version cannot be loaded by the new process, and refuses meanwhile', async () => {
  const gone = mkdtempSync(join(tmpdir(), 'ramify-engine-gone-'));
  savePolicyModel(gone, { config: CONFIG, weights });
  const other = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  await other.load(1, gone);
  rmSync(gone, { recursive: true });
  process.kill(other.stats().pid as number, 'SIGKILL');
  await expect.poll(() => other.stats().state, { timeout: 5_000 }).toBe('starting');
  expect(() => other.open({ policyVersion: 1 })).toThrowError(/the policy worker is starting/);
  // Back in time for the next try.
  mkdirSync(gone);
  savePolicyModel(gone, { config: CONFIG, weights });
  await expect.poll(() => other.stats().state, { timeout: 10_000 }).toBe('ready');
  await other.stop();
  rmSync(gone, { recursive: true });
});

it('serves the other versions when one cannot be loaded again', async () => {
  const broken = mkdtempSync(join(tmpdir(), 'ramify-engine-broken-'));
  savePolicyModel(broken, { config: CONFIG, weights });
  const other = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  await other.load(1, broken);
  await other.load(2, directory);
  rmSync(broken, { recursive: true });
  const { pid } = other.stats();
  process.kill(pid as number, 'SIGKILL');
  const restarted = () => other.stats().state === 'ready' && other.stats().pid !== pid;
  await expect.poll(restarted, { timeout: 5_000 }).toBe(true);
  expect(() => other.open({ policyVersion: 1 })).toThrowError(/could not be loaded again/);
  const sequence = other.open({ policyVersion: 2 });
  sequence.append([1]);
  const { tokens } = await sequence.sample({ maxTokens: 3, sampling: SAMPLING, stopTokens: [] });
  expect(tokens.length).toBe(3);
  await other.stop();
});

it('rejects what waits when it is stopped', async () => {
  const other = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  await other.load(1, directory);
  const sequence = other.open({ policyVersion: 1 });
  sequence.append([1]);
  const waiting = sequence.sample({ maxTokens: 2_000, sampling: SAMPLING, stopTokens: [] });
  const rejected = expect(waiting).rejects.toMatchObject({ code: 'engine_unavailable' });
  await other.stop();
  await rejected;
  expect(other.stats().state).toBe('stopped');
});

/** Milliseconds until the engine has stopped; a worker that is waited for in vain takes 5,000. */
async function stopped(other: PolicyEngine): Promise<number> {
  const start = performance.now();
  await other.stop();
  expect(other.stats()).toMatchObject({ state: 'stopped', openSequences: 0 });
  return performance.now() - start;
}

it('stops at once although callers close what was sampling', async () => {
  const other = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  await other.load(1, directory);
  const sequence = other.open({ policyVersion: 1 });
  sequence.append([1]);
  const begun = new Promise<void>((resolve, reject) => {
    const request = { maxTokens: 2_000, sampling: SAMPLING, stopTokens: [] };
    void sequence
      .sample({ ...request, onTokens: () => resolve() })
      .catch(reject)
      .finally(() => sequence.close());
  });
  await begun;
  expect(await stopped(other)).toBeLessThan(3_000);
});

it('stops at once when its process dies meanwhile', async () => {
  const other = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  const pid = other.stats().pid as number;
  // So that it cannot answer before it dies.
  process.kill(pid, 'SIGSTOP');
  const loading = other.load(1, directory);
  const stopping = stopped(other);
  process.kill(pid, 'SIGKILL');
  await expect(loading).rejects.toThrowError('the server is stopping');
  expect(await stopping).toBeLessThan(3_000);
});

it('stops at once while a new process starts', async () => {
  const other = await startPolicyEngine({ device: 'cpu', threads: 1, logger: quiet });
  const { pid } = other.stats();
  process.kill(pid as number, 'SIGKILL');
  while ([pid, null].includes(other.stats().pid)) await new Promise(setImmediate);
  expect(other.stats().state).toBe('starting');
  expect(await stopped(other)).toBeLessThan(3_000);
});
