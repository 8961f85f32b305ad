/**
 * Sampling options through the engine, many rows at once: every token, draw and figure against the
 * slow twin on logits of the whole row; stop texts at any cut; forms; and that rows with options
 * change nothing for the others.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { wholeRowLogits } from '../../test/parity/whole-row.ts';
import { must } from '../assert.ts';
import { initialWeights } from '../model/parameters.ts';
import { sampleReference } from '../model/testing/sampling-reference.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng, uniform } from '../prng.ts';
import type { SampleRequest, SampleResult } from '../ports.ts';
import type { SamplingParams } from '../records.ts';
import type { TokenBytes } from '../text/token-mask.ts';
import { LocalEngine } from './local-engine.ts';

const VOCABULARY = 290;
const END = 289;
const CANDIDATES = 10;
const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  vocabulary: VOCABULARY,
  contextTokens: 400,
  ropeTheta: 10_000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const PLAIN: SamplingParams = { temperature: 1, topP: 1, topK: 0, seed: 5 };
const LIKELIEST = 3;

const prng = new Prng(3);
const weights = initialWeights(CONFIG, prng);
for (const { data } of weights.values()) data.forEach((value, i) => (data[i] = value * 2));
/** Every byte, some longer pieces that cut characters and marks anywhere, two added tokens. */
const pieces = ['": ', '{"', '"}', 'é ', '\xe9x', 'true', ', "', 'ab', 'abc', 'bc'].map((text) =>
  new TextEncoder().encode(text),
);
const vocabulary: TokenBytes = {
  vocabularySize: VOCABULARY,
  tokenBytes: (token) =>
    token < 256 ? Uint8Array.of(token) : (pieces[token - 256] ?? new Uint8Array(0)),
  isAdded: (token) => token >= 288,
};

let engine: LocalEngine;
beforeAll(async () => {
  engine = new LocalEngine({ device: 'cpu', threads: 1, entropyCandidates: CANDIDATES });
  await engine.load(1, { config: CONFIG, weights, vocabulary: () => vocabulary });
});
afterAll(() => engine.close());

const prompt = (length: number) => Array.from({ length }, () => prng.below(VOCABULARY));

async function sample(
  tokens: readonly number[],
  sampling: Partial<SamplingParams>,
  request: Partial<SampleRequest> = {},
): Promise<SampleResult> {
  const sequence = engine.open({ policyVersion: 1 });
  try {
    sequence.append(tokens);
    return await sequence.sample({
      ...{ maxTokens: 40, stopTokens: [END], likeliest: LIKELIEST, ...request },
      sampling: { ...PLAIN, ...sampling },
    });
  } finally {
    sequence.close();
  }
}

const textOf = (tokens: ArrayLike<number>) =>
  new TextDecoder('utf-8', { ignoreBOM: true }).decode(
    Buffer.concat(Array.from(tokens, (token) => vocabulary.tokenBytes(token))),
  );

function randomOptions(seed: number): Partial<SamplingParams> {
  const maybe = <T>(on: () => T): T | undefined => (prng.below(3) === 0 ? on() : undefined);
  const options = {
    seed,
    temperature: maybe(() => (prng.below(4) === 0 ? 0 : 0.3 + 1.5 * prng.next())),
    topP: maybe(() => 0.2 + 0.7 * prng.next()),
    topK: maybe(() => 1 + prng.below(50)),
    minP: maybe(() => 0.3 * prng.next()),
    repetitionPenalty: maybe(() => 0.8 + prng.next()),
    presencePenalty: maybe(() => 4 * prng.next() - 2),
    frequencyPenalty: maybe(() => 4 * prng.next() - 2),
    logitBias: maybe(() => ({ [prng.below(VOCABULARY)]: 5, [END]: 4 })),
    minTokens: maybe(() => prng.below(30)),
  };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

describe('options', () => {
  it('sample what the slow twin samples, 48 rows of different settings in one batch', async () => {
    const rows = Array.from({ length: 48 }, (_, seed) => ({
      tokens: prompt(2 + prng.below(20)),
      options: randomOptions(seed),
    }));
    const results = await Promise.all(rows.map((row) => sample(row.tokens, row.options)));
    let borders = 0;
    for (const [i, result] of results.entries()) {
      const { tokens, options } = must(rows[i], 'row');
      borders += await compare(tokens, { ...PLAIN, ...options }, result);
    }
    expect(borders).toBeLessThan(5);
    expect(new Set(results.map(({ finish }) => finish))).toEqual(new Set(['stop', 'length']));
  });

  it('give the same tokens again, alone or not', async () => {
    for (let seed = 0; seed < 6; seed++) {
      const [tokens, options] = [prompt(8), randomOptions(seed)];
      const crowd = [sample(tokens, options), sample(prompt(5), randomOptions(seed + 50))];
      const alone = await sample(tokens, options);
      expect([...alone.tokens]).toEqual([...must(await crowd[0], 'first').tokens]);
      await crowd[1];
    }
  });

  it('mask the end until minTokens are there', async () => {
    const logitBias = { [END]: 100 };
    const result = await sample(prompt(4), { logitBias, minTokens: 21 });
    expect(result).toMatchObject({ finish: 'stop' });
    expect(result.tokens.indexOf(END)).toBe(21);
    expect((await sample(prompt(4), { logitBias })).tokens).toEqual(Uint32Array.of(END));
  });

  it('refuse a token that there is not, and only that request', async () => {
    const good = sample(prompt(4), {});
    await expect(sample(prompt(4), { logitBias: { 290: 1 } })).rejects.toMatchObject({
      code: 'invalid_request',
      param: 'logit_bias',
    });
    expect((await good).tokens.length).toBeGreaterThan(0);
  });
});

/** Compares each token with the twin; returns how many draws lay on the border of two tokens. */
async function compare(
  tokens: readonly number[],
  sampling: SamplingParams,
  result: SampleResult,
): Promise<number> {
  const path = [...tokens, ...result.tokens];
  const logits = await wholeRowLogits({ config: CONFIG, weights }, path);
  let borders = 0;
  result.tokens.forEach((token, t) => {
    const at = tokens.length + t;
    const row = Array.from(logits.subarray((at - 1) * VOCABULARY, at * VOCABULARY));
    const options = {
      ...{ minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0, logitBias: {} },
      ...sampling,
      masked: new Set(t < (sampling.minTokens ?? 0) ? [END] : []),
      held: path.slice(0, at),
      sampled: path.slice(tokens.length, at),
    };
    const draw = uniform(sampling.seed, at);
    const twin = sampleReference(row, options, draw);
    const near = [-3e-5, 3e-5].map((by) => sampleReference(row, options, draw + by).token);
    expect([twin.token, ...near], `token ${t} of ${JSON.stringify(sampling)}`).toContain(token);
    if (token !== twin.token) borders++;
    expect(result.logprobs[t]).toBeCloseTo(must(twin.logprobs[token], 'logprob'), 3);
    expect(result.entropies[t]).toBeCloseTo(twin.entropy, 3);
    const falling = [...twin.logprobs].sort((a, b) => b - a);
    expectLikeliest(result, t, twin.logprobs, falling);
    const likeliest = falling.slice(0, CANDIDATES);
    const candidates = likeliest.reduce((sum, logp) => sum - Math.exp(logp) * logp, 0);
    expect(result.candidateEntropies?.[t]).toBeCloseTo(candidates, 3);
    const behaviour = Math.exp(must(result.behaviourLogprobs[t], 'behaviour'));
    expect(behaviour).toBeCloseTo(must(twin.behaviour[token], 'p'), 3);
  });
  return borders;
}

/** Of each place: the highest log-probabilities, each with a token that has it. */
function expectLikeliest(
  { likeliest, tokens }: SampleResult,
  t: number,
  logprobs: readonly number[],
  falling: readonly number[],
): void {
  const told = must(likeliest, 'the likeliest tokens');
  expect(told.count).toBe(LIKELIEST);
  expect(told.tokens.length).toBe(LIKELIEST * tokens.length);
  for (let k = 0; k < LIKELIEST; k++) {
    const logprob = must(told.logprobs[t * LIKELIEST + k], 'logprob');
    expect(logprob).toBeCloseTo(must(falling[k], 'logprob'), 3);
    const token = must(told.tokens[t * LIKELIEST + k], 'token');
    expect(logprob).toBeCloseTo(must(logprobs[token], 'logprob'), 3);
  }
}

describe('stop texts', () => {
  it('end the sample at the token that completes them, whatever cuts them', async () => {
    const tokens = prompt(6);
    const free = await sample(tokens, {}, { maxTokens: 60 });
    const text = textOf(free.tokens);
    const stops = Array.from({ length: text.length }, (_, at) => text.slice(at, at + 1 + (at % 4)));
    // Random bytes are often no character; what such a place shows depends on what follows.
    const whole = stops.filter((stop) => !stop.includes('\ufffd') && stop.length > 1);
    expect(whole.length).toBeGreaterThan(5);
    for (const stop of whole) {
      const result = await sample(tokens, {}, { maxTokens: 60, stopTexts: ['never there', stop] });
      const ends = Array.from(free.tokens, (_, t) => textOf(free.tokens.subarray(0, t + 1)));
      const count = 1 + ends.findIndex((before) => before.includes(stop));
      expect([...result.tokens]).toEqual([...free.tokens.subarray(0, count)]);
      expect(result.finish).toBe('stop');
      expect(result.logprobs.length).toBe(count);
      expect(result.candidateEntropies?.length).toBe(count);
      expect(result.likeliest?.tokens).toEqual(free.likeliest?.tokens.slice(0, LIKELIEST * count));
    }
  });

  it('leave a sequence that goes on as if the rest had never been sampled', async () => {
    const tokens = prompt(6);
    const free = await sample(tokens, {}, { maxTokens: 40 });
    const third = textOf(free.tokens.subarray(2, 3));
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(tokens);
    const request = { maxTokens: 40, stopTokens: [END], sampling: PLAIN };
    const cut = await sequence.sample({ ...request, stopTexts: [third] });
    expect(cut.tokens.length).toBeLessThan(16);
    expect(sequence.length).toBe(tokens.length + cut.tokens.length);
    const rest = await sequence.sample({ ...request, maxTokens: 20 });
    sequence.close();
    expect([...cut.tokens, ...rest.tokens]).toEqual([
      ...free.tokens.subarray(0, cut.tokens.length + 20),
    ]);
  });
});

describe('forms', () => {
  const schema = {
    type: 'object',
    properties: { a: { type: 'string', maxLength: 6 }, b: { enum: [true, 'x'] } },
    required: ['a', 'b'],
  };
  const constraint = [
    { kind: 'json', schema, escaped: '' },
    { kind: 'token', anyOf: [END] },
  ] as const;

  it('come out whole, and log the masked distribution', async () => {
    const results = await Promise.all(
      Array.from({ length: 12 }, (_, seed) =>
        sample(prompt(5), { constraint, seed }, { maxTokens: 100 }),
      ),
    );
    for (const { tokens, finish, logprobs, behaviourLogprobs } of results) {
      expect(finish).toBe('stop');
      expect(tokens.at(-1)).toBe(END);
      const value = JSON.parse(textOf(tokens.subarray(0, -1)));
      expect(Object.keys(value)).toEqual(['a', 'b']);
      expect([true, 'x']).toContain(value.b);
      // `{` is all that may come first: certain under the mask, a draw like any without.
      expect(behaviourLogprobs.every((logp, i) => logp >= logprobs[i]! - 1e-4)).toBe(true);
      expect(behaviourLogprobs.at(-1)).toBeCloseTo(0, 5);
      expect(logprobs.at(-1)).toBeLessThan(-0.5);
    }
  });

  it('that end without an end token end the sample', async () => {
    const text = [{ kind: 'text', text: 'abc' }] as const;
    const result = await sample(prompt(3), { constraint: text });
    expect(result.finish).toBe('stop');
    expect(textOf(result.tokens)).toBe('abc');
  });

  it('are cut by a limit like any other step', async () => {
    const result = await sample(prompt(3), { constraint }, { maxTokens: 3 });
    expect(result.finish).toBe('length');
    expect(result.tokens.length).toBe(3);
  });

  it('beside free rows leave those their tokens and their chunks', async () => {
    const prompts = Array.from({ length: 10 }, () => prompt(7));
    const free = (seed: number) => sample(must(prompts[seed], 'prompt'), { seed });
    const before = await Promise.all(prompts.map((_, seed) => free(seed)));
    const watch = async (pieces: number[]) => {
      const onTokens: SampleRequest['onTokens'] = ({ tokens }) => pieces.push(tokens.length);
      return sample(must(prompts[0], 'prompt'), {}, { stopTokens: [], onTokens });
    };
    const [alone, beside]: [number[], number[]] = [[], []];
    await watch(alone);
    const [, ...mixed] = await Promise.all([
      watch(beside),
      ...prompts.flatMap((_, seed) => [
        free(seed),
        sample(prompt(5), { constraint, seed, repetitionPenalty: 1.2 }, { maxTokens: 100 }),
      ]),
    ]);
    expect(Math.max(...alone)).toBeGreaterThanOrEqual(16);
    expect(beside).toEqual(alone);
    mixed.forEach((result, i) => {
      if (i % 2 === 0) expect([...result.tokens]).toEqual([...must(before[i / 2], 'row').tokens]);
      else expect(() => void JSON.parse(textOf(result.tokens.subarray(0, -1)))).not.toThrow();
    });
  });

  it('are refused with minTokens, and when they cannot be compiled', async () => {
    const code = 'invalid_request';
    await expect(sample(prompt(3), { constraint, minTokens: 2 })).rejects.toMatchObject({ code });
    const odd = [{ kind: 'json', schema: { type: 'string', pattern: 'a' }, escaped: '' }] as const;
    await expect(sample(prompt(3), { constraint: odd })).rejects.toThrowError(/pattern/);
  });
});
