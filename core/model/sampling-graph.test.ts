/**
 * Sampling in the graph against its slow twin, over random logits and random settings: what is
 * kept, what is drawn, and the figures of each token. Rows of one run have different settings.
 */
import { expect, it } from 'vitest';
import { entropyCandidates, releasedCodeStepEntropy } from '../arpo/entropy.ts';
import { writeShape } from '../engine/logit-shape.ts';
import { Graph } from '../graph/graph.ts';
import { Prng } from '../prng.ts';
import { sampleTokens, samplingInputs } from './sampling-graph.ts';
import { createSession, type Feeds, type ModelSession } from './session.ts';
import { sampleReference, type ReferenceOptions } from './testing/sampling-reference.ts';

const VOCABULARY = 40;
/** Draws for one row of settings, spread over (0, 1). */
const DRAWS = 50;

interface Row {
  logits: number[];
  options: ReferenceOptions;
}

function randomRow(prng: Prng): Row {
  const maybe = <T>(off: T, on: () => T): T => (prng.below(3) === 0 ? on() : off);
  const tokens = (count: number) => Array.from({ length: count }, () => prng.below(VOCABULARY));
  const sampled = tokens(prng.below(12));
  return {
    // Some equal logits: ties at a border are kept.
    logits: Array.from({ length: VOCABULARY }, () => Math.round(prng.gaussian() * 12) / 6),
    options: {
      temperature: maybe(1, () => (prng.below(4) === 0 ? 0 : 0.3 + 1.5 * prng.next())),
      topP: maybe(1, () => 0.1 + 0.85 * prng.next()),
      topK: maybe(0, () => 1 + prng.below(VOCABULARY)),
      minP: maybe(0, () => 0.4 * prng.next()),
      repetitionPenalty: maybe(1, () => 0.7 + prng.next()),
      presencePenalty: maybe(0, () => 2 * prng.next() - 1),
      frequencyPenalty: maybe(0, () => 2 * prng.next() - 1),
      logitBias: maybe({}, () => ({ [prng.below(VOCABULARY)]: 4 * prng.gaussian() })),
      masked: new Set(maybe([] as number[], () => tokens(prng.below(VOCABULARY - 5)))),
      held: [...tokens(prng.below(12)), ...sampled],
      sampled,
    },
  };
}

function isShaped({ options }: Row): boolean {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias, masked } = options;
  const penalties = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
  return penalties || Object.keys(logitBias).length > 0 || masked.size > 0;
}

function feedsOf(rows: readonly Row[], uniforms: Float32Array): Feeds {
  const column = [rows.length, 1];
  const floats = (pick: (options: ReferenceOptions) => number) => ({
    dims: column,
    data: Float32Array.from(rows, ({ options }) => pick(options)),
  });
  const shaped = rows.some(isShaped);
  const cells = shaped ? rows.length * VOCABULARY : 0;
  const penalties = new Float32Array(cells).fill(1);
  const shifts = new Float32Array(cells);
  if (shaped) rows.forEach((row, r) => shape(row, r, penalties, shifts));
  const cut = ({ options }: Row) => options.topP < 1 || options.topK > 0 || options.minP > 0;
  return {
    logits: {
      dims: [rows.length, VOCABULARY],
      data: Float32Array.from(rows.flatMap(({ logits }) => logits)),
    },
    uniforms: { dims: [1, rows.length], data: uniforms },
    inverseTemperature: floats(({ temperature }) => (temperature > 0 ? 1 / temperature : 1)),
    greedy: {
      dims: column,
      data: Uint8Array.from(rows, ({ options }) => +(options.temperature === 0)),
    },
    topP: floats(({ topP }) => (topP < 1 ? topP : 2)),
    topK: {
      dims: column,
      data: BigInt64Array.from(rows, ({ options }) => BigInt(options.topK || VOCABULARY)),
    },
    minP: floats(({ minP }) => minP),
    anyFilter: { dims: [], data: Uint8Array.of(+rows.some(cut)) },
    anyShape: { dims: [], data: Uint8Array.of(+shaped) },
    penalties: { dims: [cells], data: penalties },
    shifts: { dims: [cells], data: shifts },
    noLikeliest: { dims: [rows.length, 0], data: new BigInt64Array(0) },
  };
}

/** Half of the masked tokens are masked by a constraint, half as stop tokens too early. */
function shape({ options }: Row, r: number, penalties: Float32Array, shifts: Float32Array): void {
  const stopTokens = [...options.masked].filter((token) => token % 2 === 0);
  const allowed = new Uint32Array(Math.ceil(VOCABULARY / 32)).fill(0xffffffff);
  for (const token of options.masked) {
    if (token % 2 === 1) allowed[token >>> 5] = (allowed[token >>> 5] as number) & ~(1 << token);
  }
  const view = (all: Float32Array) => all.subarray(r * VOCABULARY, (r + 1) * VOCABULARY);
  const sampling = { ...options, seed: 0, minTokens: options.sampled.length + 1 };
  const row = { sampling, stopTokens, tokens: options.held, sampled: options.sampled.length };
  writeShape({ ...row, allowed }, view(penalties), view(shifts));
}

async function graphSession(candidates: number): Promise<ModelSession> {
  const graph = new Graph();
  const logits = graph.input('logits', 'float32', ['B', VOCABULARY]);
  const zero = graph.constant(0, 'int64');
  const drawn = sampleTokens(graph, logits, zero, samplingInputs(graph), candidates);
  for (const [name, value] of Object.entries(drawn)) graph.output(name, value);
  return createSession(graph, { device: 'cpu', threads: 1 });
}

/** By the definition of the released code, undivided, whatever the row's settings. */
function candidateEntropy(logprobs: readonly number[]): number {
  const probabilities = logprobs.map(Math.exp);
  return releasedCodeStepEntropy([probabilities], logprobs.length) * Math.log(logprobs.length);
}

it('samples what the definitions say, over 400 random rows', async () => {
  const session = await graphSession(entropyCandidates('released-code'));
  const prng = new Prng(71);
  let compared = 0;
  let onBorder = 0;
  for (let round = 0; round < 50; round++) {
    const rows = Array.from({ length: 8 }, () => randomRow(prng));
    const met = rows.map(() => new Set<number>());
    for (let k = 0; k < DRAWS; k++) {
      const uniforms = Float32Array.from(rows, () => (k + 0.98 * prng.next() + 0.01) / DRAWS);
      const out = await session.run(feedsOf(rows, uniforms));
      const at = (name: string, r: number) => Number(out[name]?.data[r]);
      rows.forEach((row, r) => {
        const draw = uniforms[r] as number;
        const twin = sampleReference(row.logits, row.options, draw);
        const token = at('tokens', r);
        met[r]?.add(token);
        expect(at('logprobs', r)).toBeCloseTo(twin.logprobs[token] as number, 4);
        expect(at('entropies', r)).toBeCloseTo(twin.entropy, 4);
        expect(at('candidateEntropies', r)).toBeCloseTo(candidateEntropy(twin.logprobs), 4);
        const behaviour = Math.exp(at('behaviourLogprobs', r));
        expect(behaviour).toBeCloseTo(twin.behaviour[token] as number, 4);
        compared++;
        if (token === twin.token) return;
        // Only where the draw lies on the border of two tokens may the sums round apart.
        const near = [draw - 1e-5, draw + 1e-5];
        expect(near.map((d) => sampleReference(row.logits, row.options, d).token)).toContain(token);
        onBorder++;
      });
    }
    rows.forEach((row, r) => {
      const { behaviour } = sampleReference(row.logits, row.options, 0.5);
      const likely = behaviour.flatMap((p, token) => (p > 2 / DRAWS ? [token] : []));
      for (const token of likely) expect(met[r]?.has(token)).toBe(true);
    });
  }
  expect(compared).toBe(50 * 8 * DRAWS);
  expect(onBorder).toBeLessThan(compared / 1000);
  await session.dispose();
});

it('measures the likeliest candidates only when told to, and all where there are fewer', async () => {
  const feeds = feedsOf([randomRow(new Prng(5))], Float32Array.of(0.5));
  const without = await graphSession(0);
  expect(await without.run(feeds)).not.toHaveProperty('candidateEntropies');
  await without.dispose();
  const all = await graphSession(VOCABULARY + 1);
  const { entropies, candidateEntropies } = await all.run(feeds);
  expect(Number(candidateEntropies?.data[0])).toBeCloseTo(Number(entropies?.data[0]), 5);
  await all.dispose();
});
