/**
 * The loss that is trained on against its definition, in every combination of settings: rows made
 * from random forests, through the graph of the loss, beside a plain loop over trajectories. Value,
 * gradient of each log-probability and of each entropy.
 */
import { describe, expect, it } from 'vitest';
import { gradients } from '../graph/gradient.ts';
import { Graph } from '../graph/graph.ts';
import { evaluate, type Tensor } from '../graph/reference.ts';
import { lossFeeds, objectiveOf } from '../model/loss-feeds.ts';
import { flatLoss, type PolicyObjective } from '../model/policy-loss.ts';
import { createSession, type Feeds } from '../model/session.ts';
import { Prng } from '../prng.ts';
import { groupAdvantages, treeAdvantages } from './advantage.ts';
import { lossDivisor } from './aggregate.ts';
import { definedLoss, type DefinedToken, type LossDefinition } from './loss-definition.ts';
import { mean, sampleDeviation } from './number.ts';
import { randomGroup, type RandomGroup } from './testing/random-group.ts';
import type { AdvantageSettings } from './token-advantage.ts';
import { trainRows, type PolicyRow } from './train-rows.ts';

type Settings = AdvantageSettings & LossDefinition;

const CLIPS = ['ppo', 'entropy-balanced', 'gspo', 'cispo'] as const;
const AGGREGATES = ['token-mean', 'sequence-mean', 'constant'] as const;
const IMPORTANCES = ['none', 'token', 'sequence'] as const;
const MASKS = [null, [0.9, 1.15]] as const;
const ATTRIBUTIONS = ['soft', 'hard', 'tree', 'dedup'] as const;
const COEFFICIENTS = [0, 0.3] as const;

/** Every combination; what only scales advantages is drawn. */
function combinations(prng: Prng): Settings[] {
  return CLIPS.flatMap((clip) =>
    AGGREGATES.flatMap((aggregate) =>
      IMPORTANCES.flatMap((importance) =>
        MASKS.flatMap((geometricMask) =>
          ATTRIBUTIONS.flatMap((attribution) =>
            COEFFICIENTS.flatMap((klCoefficient) =>
              COEFFICIENTS.map((size) => ({
                ...{ clip, aggregate, importance, geometricMask, attribution },
                ...{ klCoefficient, maxTokens: 10, importanceCap: 2 },
                entropyCoefficient: size * prng.pick([1, -1]),
                ...{ epsLow: 0.2, epsHigh: 0.3, dualClip: 2.5 },
                normalise: prng.pick(['std', 'mean', 'leave-one-out'] as const),
                entropyAdvantage: prng.pick([0, 0.2]),
              })),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Groups, and what the model says of each of their tokens, by step. */
interface Batch {
  groups: RandomGroup[];
  said: Map<string, { logprobs: number[]; references: number[]; entropies: number[] }>;
}

function randomBatch(prng: Prng): Batch {
  const groups = [4, 3].map((size) => {
    const group = randomGroup(prng, { size, branching: 0.6, offPolicy: 0.15 });
    return renamed(group, `${size}`);
  });
  const said: Batch['said'] = new Map();
  for (const { trajectories } of groups) {
    for (const { id, tokens, logprobs } of trajectories.flatMap(({ steps }) => steps)) {
      if (said.has(id) || logprobs === null) continue;
      const near = (spread: number) =>
        Array.from(logprobs, (logp) => Math.fround(logp + spread * prng.gaussian()));
      const entropies = Array.from(tokens, () => Math.fround(prng.next()));
      said.set(id, { logprobs: near(0.5), references: near(0.3), entropies });
    }
  }
  return { groups, said };
}

/** Step ids that no other group has. */
function renamed(group: RandomGroup, suffix: string): RandomGroup {
  const named = (id: string) => `${id}/${suffix}`;
  return {
    trajectories: group.trajectories.map((trajectory) => ({
      ...trajectory,
      steps: trajectory.steps.map((step) => ({ ...step, id: named(step.id) })),
    })),
    rescored: new Map([...group.rescored].map(([id, logprobs]) => [named(id), logprobs])),
  };
}

/** The definition's own view: loops over trajectories that contain a step, by its id. */
function sequencesOf({ groups, said }: Batch, settings: Settings): DefinedToken[][] {
  return groups.flatMap(({ trajectories, rescored }) => {
    const rewards = trajectories.map(({ reward }) => reward);
    const roots = trajectories.map(({ root }) => root);
    const own =
      settings.attribution === 'tree'
        ? treeAdvantages(rewards, roots, settings.normalise)
        : groupAdvantages(rewards, settings.normalise);
    const unique = new Map(trajectories.flatMap(({ steps }) => steps.map((s) => [s.id, s])));
    const measured = [...unique.values()].flatMap(({ entropies }) => [...(entropies ?? [])]);
    return trajectories.map(({ steps }, i) =>
      steps
        .filter(({ kind }) => kind === 'policy')
        .flatMap(({ id, logprobs, behaviourLogprobs, entropies }) => {
          const sharers = [...trajectories.keys()].filter((j) =>
            trajectories[j]!.steps.some((step) => step.id === id),
          );
          const advantage =
            settings.attribution === 'hard' ? mean(sharers.map((j) => own[j]!)) : own[i]!;
          return Array.from(logprobs!, (recorded, t) => {
            const z = (entropies![t]! - mean(measured)) / sampleDeviation(measured);
            const bent = 1 + settings.entropyAdvantage * Math.min(3, Math.max(-3, z));
            const model = said.get(id)!;
            return {
              logp: model.logprobs[t]!,
              held: model.logprobs[t]!,
              old: rescored.get(id)?.[t] ?? recorded,
              behaviour: behaviourLogprobs?.[t] ?? recorded,
              reference: model.references[t]!,
              entropy: model.entropies[t]!,
              advantage: advantage * bent,
              share: settings.attribution === 'dedup' ? 1 / sharers.length : 1,
            };
          });
        }),
    );
  });
}

/** Rows with what the model says of them, in the order of the groups' trajectories. */
function rowsOf({ groups, said }: Batch, settings: Settings) {
  return groups.flatMap((group) =>
    trainRows(group, settings).map((row, i) => {
      const along = (pick: 'logprobs' | 'references' | 'entropies') =>
        Float32Array.from(
          group.trajectories[i]!.steps.flatMap(({ id, tokens }) =>
            said.has(id) ? said.get(id)![pick] : Array.from(tokens, () => 0),
          ),
        );
      const referenceLogprobs = along('references');
      return { ...row, referenceLogprobs, said: [along('logprobs'), along('entropies')] as const };
    }),
  );
}

type ModelRow = PolicyRow & { said: readonly [Float32Array, Float32Array] };

const GRAPHS = new Map<string, Graph>();

function lossGraph(objective: PolicyObjective): Graph {
  const name = JSON.stringify(objective);
  const known = GRAPHS.get(name);
  if (known !== undefined) return known;
  const graph = new Graph();
  const logprobs = graph.input('logprobs', 'float32', ['B', 'T']);
  const entropies = graph.input('entropies', 'float32', ['B', 'T']);
  const loss = flatLoss(graph, { logprobs, entropies }, objective);
  graph.output('loss', loss);
  const wrt = objective.entropy ? [logprobs, entropies] : [logprobs];
  gradients(graph, loss, wrt).forEach((grad, i) => graph.output(['dp', 'dh'][i]!, grad));
  GRAPHS.set(name, graph);
  return graph;
}

/** What the graph reads: of tokens without a weight the model says nothing, as in training. */
function feedsOf(rows: readonly ModelRow[], settings: Settings, weightSum: number): Feeds {
  const width = Math.max(...rows.map(({ tokens }) => tokens.length)) - 1;
  const padded = (which: 0 | 1) => {
    const data = new Float32Array(rows.length * width);
    rows.forEach(({ said, weights }, r) => {
      const wanted = said[which].map((value, t) => (weights[t] === 0 ? 0 : value));
      data.set(wanted.subarray(1), r * width);
    });
    return { dims: [rows.length, width], data };
  };
  const terms = { ...settings, weightSum };
  const objective = objectiveOf(terms);
  return {
    ...lossFeeds(rows, width, terms, objective),
    logprobs: padded(0),
    entropies: padded(1),
  };
}

function trained(rows: readonly ModelRow[], settings: Settings, weightSum: number) {
  const graph = lossGraph(objectiveOf({ ...settings, weightSum }));
  const feeds = feedsOf(rows, settings, weightSum);
  const tensors = Object.fromEntries(
    Object.entries(feeds).map(([name, { dims, data }]): [string, Tensor] => [
      name,
      { shape: dims, data: Float64Array.from(data as Float32Array) },
    ]),
  );
  const out = evaluate(graph, tensors);
  const width = feeds.logprobs!.dims[1]!;
  const byRow = (name: string) =>
    rows.map(({ oldLogprobs, tokens }, r) =>
      Array.from(tokens, (_, t) =>
        t === 0 ? 0 : (out[name]?.data[r * width + t - 1] ?? 0),
      ).filter((_, t) => oldLogprobs[t] !== 0),
    );
  return { loss: out.loss!.data[0]!, byLogprob: byRow('dp'), byEntropy: byRow('dh') };
}

function expectClose(actual: number[][], expected: number[][], relative: number): void {
  const largest = Math.max(...expected.flat().map(Math.abs), 1e-9);
  expect(actual.map((row) => row.length)).toEqual(expected.map((row) => row.length));
  const errors = actual.flatMap((row, i) => row.map((value, t) => value - expected[i]![t]!));
  expect(Math.max(...errors.map(Math.abs))).toBeLessThanOrEqual(relative * largest);
}

/** Of the terms of a loss, which may cancel: what rounding is relative to. */
const sizeOf = ({ loss, byLogprob }: { loss: number; byLogprob: number[][] }): number =>
  Math.max(
    Math.abs(loss),
    byLogprob.flat().reduce((sum, slope) => sum + Math.abs(slope), 0),
  );

const named = (settings: Settings): string => JSON.stringify(settings);

describe('the loss of every combination', () => {
  const prng = new Prng(41);
  const cases = combinations(prng).map((settings) => ({ settings, batch: randomBatch(prng) }));

  it('is what its definition says, and so are its gradients', () => {
    let leftOut = 0;
    for (const { settings, batch } of cases) {
      const rows = rowsOf(batch, settings);
      const expected = definedLoss(sequencesOf(batch, settings), settings);
      const divisor = lossDivisor(rows, settings);
      if (divisor === 0) continue; // Every sequence was left out.
      const actual = trained(rows, settings, divisor);
      leftOut += rows.filter((row) => row.leftOut).length;
      const error = Math.abs(actual.loss - expected.loss);
      expect(error, named(settings)).toBeLessThan(1e-6 * sizeOf(expected));
      expectClose(actual.byLogprob, expected.byLogprob, 1e-5);
      expectClose(actual.byEntropy, expected.byEntropy, 1e-5);
    }
    expect(leftOut).toBeGreaterThan(100);
  });

  it('is the same however rows are cut into micro-batches, and in any order of siblings', () => {
    for (const { settings, batch } of cases.filter((_, i) => i % 5 === 0)) {
      const rows = rowsOf(batch, settings);
      const divisor = lossDivisor(rows, settings);
      if (divisor === 0) continue;
      const whole = trained(rows, settings, divisor);
      const cut = 1 + (rows.length % 3);
      const parts = [rows.slice(0, cut), rows.slice(cut)].map((part) =>
        trained(part, settings, divisor),
      );
      expect(parts[0]!.loss + parts[1]!.loss).toBeCloseTo(whole.loss, 9);
      expectClose(
        parts.flatMap(({ byLogprob }) => byLogprob),
        whole.byLogprob,
        1e-9,
      );
      const turned = {
        ...batch,
        groups: batch.groups.map((group) => ({
          ...group,
          trajectories: group.trajectories.toReversed(),
        })),
      };
      const other = rowsOf(turned, settings);
      const again = trained(other, settings, lossDivisor(other, settings));
      expect(again.loss).toBeCloseTo(whole.loss, 6);
      const [first, second] = batch.groups.map(({ trajectories }) => trajectories.length);
      const back = [
        ...again.byLogprob.slice(0, first).reverse(),
        ...again.byLogprob.slice(-second!).reverse(),
      ];
      expectClose(back, whole.byLogprob, 1e-5);
    }
  });

  it('has definitions whose gradients are central differences', () => {
    const step = 1e-6;
    for (const { settings, batch } of cases.filter((_, i) => i % 7 === 0)) {
      const sequences = sequencesOf(batch, settings);
      const { byLogprob, byEntropy } = definedLoss(sequences, settings);
      if (!Number.isFinite(byLogprob.flat()[0])) continue;
      const i = prng.below(sequences.length);
      const t = prng.below(sequences[i]!.length);
      for (const [name, expected] of [
        ['logp', byLogprob[i]![t]!],
        ['entropy', byEntropy[i]![t]!],
      ] as const) {
        const lossAt = (by: number) =>
          definedLoss(
            sequences.map((tokens, k) =>
              k === i ? tokens.with(t, { ...tokens[t]!, [name]: tokens[t]![name] + by }) : tokens,
            ),
            settings,
          ).loss;
        const difference = (lossAt(step) - lossAt(-step)) / (2 * step);
        expect(Math.abs(difference - expected), `${name} ${named(settings)}`).toBeLessThan(1e-7);
      }
    }
  });

  it('is what onnxruntime computes, one graph a set of terms', async () => {
    const seen = new Set<string>();
    for (const { settings, batch } of cases) {
      const objective = objectiveOf({ ...settings, weightSum: 1 });
      const rows = rowsOf(batch, settings);
      const divisor = lossDivisor(rows, settings);
      if (divisor === 0 || seen.has(JSON.stringify(objective))) continue;
      seen.add(JSON.stringify(objective));
      const session = await createSession(lossGraph(objective), { device: 'cpu', threads: 1 });
      const feeds = feedsOf(rows, settings, divisor);
      const { entropies, ...without } = feeds;
      const read = objective.entropy ? { ...without, entropies: entropies! } : feeds;
      const out = await session.run(read);
      await session.dispose();
      const expected = trained(rows, settings, divisor);
      const loss = (out.loss!.data as Float32Array)[0]!;
      expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-6 * sizeOf(expected));
      const width = feeds.logprobs!.dims[1]!;
      const slopes = rows.map(({ oldLogprobs, tokens }, r) =>
        Array.from(tokens, (_, k) =>
          k === 0 ? 0 : (out.dp!.data as Float32Array)[r * width + k - 1]!,
        ).filter((_, k) => oldLogprobs[k] !== 0),
      );
      expectClose(slopes, expected.byLogprob, 1e-4);
    }
    expect(seen.size).toBe(16);
  });
});
