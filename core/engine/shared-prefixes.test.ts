/**
 * Sharing of keys and values changes what is computed, never what comes out: random schedules of
 * opens, appends, samples, forks, truncations and closes run on three engines at once, one with the
 * prefix cache, one with it and hardly any memory, one with neither. Besides, what exactly is
 * saved.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ManualClock } from '../clock.ts';
import { initialWeights } from '../model/parameters.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng } from '../prng.ts';
import type { Priority, SampleRequest, SampleResult, Sequence } from '../ports.ts';
import { BLOCK_TOKENS, bytesPerBlock, bytesPerToken } from './kv-memory.ts';
import type { LocalEngineOptions } from './engine-options.ts';
import { LocalEngine } from './local-engine.ts';
import { PRIORITIES } from './scheduler.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: 61,
  contextTokens: 512,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const weights = initialWeights(CONFIG, new Prng(4));
for (const { data } of weights.values()) data.forEach((value, i) => (data[i] = value * 2));
/** Blocks for two whole windows, batch rows for one. */
const TIGHT_BYTES = 4 * CONFIG.contextTokens * bytesPerToken(CONFIG);
const PLAIN = { temperature: 1, topP: 1, topK: 0 };

async function startEngine(options: Partial<LocalEngineOptions> = {}): Promise<LocalEngine> {
  const engine = new LocalEngine({ device: 'cpu', threads: 1, ...options });
  await engine.load(1, { config: CONFIG, weights });
  return engine;
}

const request = (seed: number, maxTokens = 20): SampleRequest => ({
  maxTokens,
  sampling: { ...PLAIN, seed },
  stopTokens: [],
});

function opened(engine: LocalEngine, tokens: readonly number[], priority: Priority = 'live') {
  const sequence = engine.open({ policyVersion: 1, priority });
  sequence.append(tokens);
  return sequence;
}

const prng = new Prng(11);
const randomTokens = (count: number) =>
  Array.from({ length: count }, () => prng.below(CONFIG.vocabulary));

/**
 * The same tokens and log-probabilities; returns where they part, or -1. They may part where the
 * draw lies on the border of two tokens, which then are neighbours: the last bits of a logit move
 * with the shape of the run.
 */
function expectSame(a: SampleResult, b: SampleResult): number {
  expect(a.tokens.length).toBe(b.tokens.length);
  expect(a.finish).toBe(b.finish);
  const flip = a.tokens.findIndex((token, i) => token !== b.tokens[i]);
  const same = flip === -1 ? a.tokens.length : flip;
  const gaps = a.logprobs.subarray(0, same).map((x, i) => Math.abs(x - b.logprobs[i]!));
  expect(Math.max(0, ...gaps)).toBeLessThan(1e-4);
  if (flip >= 0) expect(Math.abs(a.tokens[flip]! - b.tokens[flip]!)).toBeLessThanOrEqual(2);
  return flip;
}

/** A schedule of random calls, each made on every engine. */
class Schedule {
  private readonly engines: readonly LocalEngine[];
  private readonly prng: Prng;
  private readonly phrases: number[][];
  /** Each conversation as one sequence an engine. */
  private open: Sequence[][] = [];
  private sampled = 0;
  private flips = 0;

  constructor(engines: readonly LocalEngine[], seed: number) {
    this.engines = engines;
    this.prng = new Prng(seed);
    // Few phrases, so that prefixes meet again; their lengths cross block borders anyhow.
    this.phrases = [1, 9, 40, 64, 65, 130, 200].map(randomTokens);
  }

  async step(): Promise<void> {
    const kind = this.prng.below(10);
    if (this.open.length === 0 || (kind < 2 && this.open.length < 8)) {
      const priority = this.prng.pick(PRIORITIES);
      this.open.push(this.engines.map((one) => one.open({ policyVersion: 1, priority })));
      this.append(this.open.at(-1)!);
    } else if (kind < 4) this.append(this.prng.pick(this.open));
    else if (kind === 4) this.fork();
    else if (kind === 5) this.truncate();
    else if (kind === 6) this.close(this.prng.below(this.open.length));
    else await this.sample();
  }

  end() {
    while (this.open.length > 0) this.close(0);
    return { sampled: this.sampled, flips: this.flips };
  }

  private append(sequences: readonly Sequence[]): void {
    const phrase = this.prng.pick(this.phrases);
    if (sequences[0]!.length + phrase.length >= CONFIG.contextTokens - 40) return;
    for (const sequence of sequences) sequence.append(phrase);
  }

  private fork(): void {
    const sequences = this.prng.pick(this.open);
    if (this.open.length === 8) return;
    const length = 1 + this.prng.below(sequences[0]!.length);
    this.open.push(sequences.map((sequence) => sequence.fork(length)));
  }

  private truncate(): void {
    const sequences = this.prng.pick(this.open);
    const length = 1 + this.prng.below(sequences[0]!.length);
    for (const sequence of sequences) sequence.truncate(length);
  }

  private close(index: number): void {
    const [sequences] = this.open.splice(index, 1);
    for (const sequence of sequences!) sequence.close();
  }

  /** Some conversations at once; seeds are few, so that conversations repeat each other too. */
  private async sample(): Promise<void> {
    const some = this.prng.shuffle(this.open).slice(0, 1 + this.prng.below(5));
    const requests = some.map(() => request(this.prng.below(3), 1 + this.prng.below(70)));
    const results = await Promise.all(
      this.engines.map((engine, e) =>
        Promise.all(
          some.map((sequences, i) =>
            sequences[e]!.sample({ ...requests[i]!, onTokens: () => expectWithin(engine) }),
          ),
        ),
      ),
    );
    for (const [i, sequences] of some.entries()) {
      const [first, ...others] = results.map((result) => result[i]!);
      this.sampled += first!.tokens.length;
      const flips = others.map((other) => expectSame(other, first!)).filter((at) => at >= 0);
      if (flips.length === 0) continue;
      this.flips++;
      // All go on from where they were the same.
      const length = sequences[0]!.length - first!.tokens.length + Math.min(...flips);
      for (const sequence of sequences) sequence.truncate(length);
    }
  }
}

function expectWithin(engine: LocalEngine): void {
  const { bytesUsed, bytesMax } = engine.stats().kv;
  expect(bytesUsed).toBeLessThanOrEqual(bytesMax);
}

describe('sharing', () => {
  it.each([1, 2, 3])(
    'never changes what is sampled (seed %i)',
    async (seed) => {
      const plain = await startEngine({ prefixCache: false });
      const shared = await startEngine();
      const tight = await startEngine({ kvBytesMax: TIGHT_BYTES });
      const schedule = new Schedule([plain, shared, tight], seed);
      for (let i = 0; i < 70; i++) await schedule.step();
      const { sampled, flips } = schedule.end();
      expect(sampled).toBeGreaterThan(300);
      expect(flips).toBeLessThanOrEqual(1);
      const [none, all, few] = [plain, shared, tight].map((engine) => engine.stats().kv);
      expect(none).toMatchObject({ hitTokens: 0, cachedBlocks: 0 });
      expect(all!.prefilledTokens).toBeLessThan(none!.prefilledTokens);
      expect(all!.hitTokens).toBeGreaterThan(0);
      // Memory was short: what was evicted or taken away had to be computed again.
      expect(few!.prefilledTokens).toBeGreaterThan(all!.prefilledTokens);
      for (const engine of [plain, shared, tight]) {
        await engine.unload(1);
        expect(engine.stats().kv).toMatchObject({ bytesUsed: 0, cachedBlocks: 0 });
        await engine.close();
      }
    },
    60_000,
  );
});

describe('the prefix cache', () => {
  let engine: LocalEngine;
  beforeAll(async () => (engine = await startEngine()));
  afterAll(() => engine.close());

  /** What prefilling and hits of some work come to. */
  async function counted(work: () => Promise<unknown>) {
    const before = engine.stats().kv;
    await work();
    const after = engine.stats().kv;
    return {
      prefilled: after.prefilledTokens - before.prefilledTokens,
      hits: after.prefixHits - before.prefixHits,
      misses: after.prefixMisses - before.prefixMisses,
    };
  }
  const ask = async (tokens: readonly number[], seed = 1) => {
    const sequence = opened(engine, tokens);
    const result = await sequence.sample(request(seed, 4));
    sequence.close();
    return result;
  };

  it('prefills a system prompt once, to the token', async () => {
    const system = randomTokens(200);
    const first = await counted(() => ask([...system, ...randomTokens(30)]));
    expect(first).toEqual({ prefilled: 229, hits: 0, misses: 1 });
    const second = await counted(() => ask([...system, ...randomTokens(30)]));
    // Three whole blocks and 8 tokens of the fourth were there; the last token is decoded.
    expect(second.hits).toBe(1);
    expect(second.prefilled).toBeLessThanOrEqual(229 - 192);
  });

  it('goes on with a conversation that was closed', async () => {
    const prompt = randomTokens(150);
    const sequence = opened(engine, prompt);
    const { tokens } = await sequence.sample(request(5, 60));
    sequence.close();
    const history = [...prompt, ...tokens];
    let cached: number | undefined;
    const next = await counted(async () => {
      ({ cachedTokens: cached } = await ask([...history, ...randomTokens(20)]));
    });
    // 210 tokens, of which 192 lie in whole blocks.
    expect(next).toEqual({ prefilled: 230 - 1 - 192, hits: 1, misses: 0 });
    expect(cached).toBe(192);
  });

  it('prefills equal prompts that come at the same moment once', async () => {
    const prompt = randomTokens(300);
    const roots = Array.from({ length: 16 }, () => opened(engine, prompt, 'rollout'));
    let results: SampleResult[] = [];
    const work = await counted(async () => {
      results = await Promise.all(roots.map((root, seed) => root.sample(request(seed))));
    });
    expect(work.prefilled).toBe(299);
    const cached = results.map(({ cachedTokens }) => cachedTokens);
    expect(cached).toEqual([0, ...Array<number>(15).fill(299)]);
    for (const root of roots) root.close();
  });

  it('prefills the common part of different prompts once, when they come together', async () => {
    const system = randomTokens(192);
    const chats = Array.from({ length: 5 }, () => opened(engine, [...system, ...randomTokens(21)]));
    const work = await counted(() =>
      Promise.all(chats.map((chat, seed) => chat.sample(request(seed)))),
    );
    expect(work.prefilled).toBe(192 + 5 * 20);
    for (const chat of chats) chat.close();
  });

  it('knows versions apart and forgets one that is unloaded or loaded anew', async () => {
    const prompt = randomTokens(130);
    const other = initialWeights(CONFIG, new Prng(5));
    await engine.load(2, { config: CONFIG, weights: other });
    const askTwo = async () => {
      const sequence = engine.open({ policyVersion: 2 });
      sequence.append(prompt);
      const result = await sequence.sample(request(1, 30));
      sequence.close();
      return result;
    };
    await ask(prompt);
    expect((await counted(askTwo)).prefilled).toBe(129);
    expect((await counted(askTwo)).prefilled).toBe(1);
    const before = await askTwo();
    // The trainer changes weights in place and loads the version again.
    for (const { data } of other.values()) data.forEach((value, i) => (data[i] = -value));
    await engine.load(2, { config: CONFIG, weights: other });
    let after: SampleResult | null = null;
    expect((await counted(async () => (after = await askTwo()))).prefilled).toBe(129);
    expect([...after!.logprobs]).not.toEqual([...before.logprobs]);
    const cached = engine.stats().kv.cachedBlocks;
    await engine.unload(2);
    expect(engine.stats().kv.cachedBlocks).toBe(cached - 2);
  });
});

describe('memory', () => {
  it('evicts the prefix that was used longest ago', async () => {
    const engine = await startEngine({ kvBytesMax: TIGHT_BYTES });
    const prompts = Array.from({ length: 5 }, () => randomTokens(3 * BLOCK_TOKENS + 1));
    const ask = async (tokens: readonly number[]) => {
      const before = engine.stats().kv.prefilledTokens;
      const sequence = opened(engine, tokens);
      await sequence.sample(request(1, 1));
      sequence.close();
      return engine.stats().kv.prefilledTokens - before;
    };
    // Three of sixteen blocks each, and one more for the token that is sampled.
    for (const prompt of prompts) expect(await ask(prompt)).toBe(192);
    for (const prompt of prompts) expect(await ask(prompt)).toBe(0);
    await ask(randomTokens(3 * BLOCK_TOKENS + 1));
    expect(await ask(prompts[4]!)).toBe(0);
    expect(await ask(prompts[0]!)).toBeGreaterThan(0);
    expect(engine.stats().kv.cachedBlocks).toBeLessThanOrEqual(16);
    await engine.close();
  });

  it('serves more than it can hold at once, one after the other', async () => {
    const engine = await startEngine({ kvBytesMax: TIGHT_BYTES });
    const plain = await startEngine({ prefixCache: false });
    const prompts = Array.from({ length: 12 }, () => randomTokens(300));
    const [tight, free] = await Promise.all(
      [engine, plain].map((one) =>
        Promise.all(prompts.map((prompt, i) => opened(one, prompt).sample(request(i, 150)))),
      ),
    );
    const flips = tight!.map((result, i) => expectSame(result, free![i]!)).filter((at) => at >= 0);
    expect(flips.length).toBeLessThanOrEqual(1);
    expectWithin(engine);
    await engine.close();
    await plain.close();
  }, 60_000);

  it('bounds the window by what memory can hold, and refuses to load beneath a block', async () => {
    const bytes = 4 * 2 * bytesPerBlock(CONFIG);
    const engine = await startEngine({ kvBytesMax: bytes });
    expect(engine.windowOf(1)).toBe(128);
    expect(() => opened(engine, randomTokens(128))).toThrowError(/window of 128/);
    await engine.close();
    const none = startEngine({ kvBytesMax: bytes / 8 });
    await expect(none).rejects.toMatchObject({ code: 'config_invalid' });
  });
});

describe('a deadline', () => {
  it('ends what waits and what runs with request_timeout', async () => {
    const clock = new ManualClock();
    const engine = await startEngine({ batchRowsMax: 1, clock });
    const sequences = [1, 2, 3].map(() => opened(engine, randomTokens(5)));
    const [running, waiting, patient] = sequences.map((sequence, i) =>
      sequence.sample({
        ...request(i, i === 2 ? 8 : 400),
        ...(i < 2 && { deadlineMs: 1_000 }),
        onTokens: () => clock.advance(300),
      }),
    );
    await expect(waiting).rejects.toMatchObject({ code: 'request_timeout' });
    await expect(running).rejects.toMatchObject({ code: 'request_timeout' });
    expect((await patient)!.tokens.length).toBe(8);
    expect(engine.stats()).toMatchObject({ running: 0, queued: 0 });
    for (const sequence of sequences) sequence.close();
    await engine.close();
  });
});
