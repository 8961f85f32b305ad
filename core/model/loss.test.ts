/**
 * The whole loss of a tiny model in the float64 slow twin: the value against the plain definition
 * in core/arpo/loss.ts, the gradient of every trained element (all weights, or an adapter's)
 * against central differences, and onnxruntime against both. Ratios are placed on every side of
 * every clip. The shared vectors go through the same loss directly.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { flatLoss as flatLossByHand } from '../arpo/loss.ts';
import { gradients } from '../graph/gradient.ts';
import { Graph } from '../graph/graph.ts';
import { evaluate, type Tensor } from '../graph/reference.ts';
import { packageRoot } from '../paths.ts';
import { Prng } from '../prng.ts';
import { flatRows } from './flat-rows.ts';
import { initialAdapter, type LoraConfig } from './lora.ts';
import { initialWeights } from './parameters.ts';
import { flatLoss, PPO } from './policy-loss.ts';
import { RotaryTable } from './rotary.ts';
import { gradientName, trainingGraph } from './training-graph.ts';
import { createTrainingSession } from './training-session.ts';
import type { ModelConfig, TrainRow, Weights } from './types.ts';

const TINY: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 4,
  heads: 2,
  kvHeads: 1,
  headDim: 2,
  intermediate: 6,
  vocabulary: 7,
  contextTokens: 16,
  ropeTheta: 100,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const CLIP = { epsLow: 0.2, epsHigh: 0.3, dualClip: 3 };
/** Below, between and above the clips, for either sign; 3.5 lies beyond the dual clip too. */
const CASES = [0.5, 0.95, 1.2, 1.6, 3.5].flatMap((ratio) => [
  { ratio, advantage: 0.7 },
  { ratio, advantage: -1.1 },
]);
const ROWS = 2;
const WIDTH = 6;

const tensor = (shape: readonly number[], data: Iterable<number | bigint>): Tensor => ({
  shape,
  data: Float64Array.from(data as Iterable<number>, Number),
});
const scalar = (value: number) => tensor([], [value]);

function tinyModel(config: ModelConfig, prng: Prng): Weights {
  const weights = initialWeights(config, prng);
  for (const [name, { data }] of weights) {
    const spread = name.endsWith('bias') || name.includes('norm') ? 0.2 : 0.3;
    data.forEach((value, i) => (data[i] = value + spread * prng.gaussian()));
  }
  return weights;
}

/** The inputs of the forward pass, with every prediction wanted. */
function rowTensors(config: ModelConfig, tokens: readonly number[][]): Record<string, Tensor> {
  const rows = tokens.map((row) => Uint32Array.from(row));
  const { feeds } = flatRows(config, new RotaryTable(config), rows, () => true);
  return Object.fromEntries(
    Object.entries(feeds).map(([name, { dims, data }]) => [name, tensor(dims, data)]),
  );
}

/** Everything that the graph reads but `old`, which depends on what the model says. */
function feedsOf(config: ModelConfig, weights: Weights, tokens: readonly number[][]) {
  const batch = [ROWS, WIDTH];
  // The first target of a row is context, as in real rows; the cases fill the rest.
  const cases = Array.from({ length: ROWS * WIDTH }, (_, i) => {
    const [row, t] = [Math.floor(i / WIDTH), i % WIDTH];
    return t === 0 ? undefined : CASES[row * (WIDTH - 1) + t - 1];
  });
  const feeds: Record<string, Tensor> = {
    ...rowTensors(config, tokens),
    tokenWeights: tensor(
      batch,
      cases.map((found) => (found === undefined ? 0 : 1)),
    ),
    advantages: tensor(
      batch,
      cases.map((found) => Math.fround(found?.advantage ?? 0)),
    ),
    weightSum: scalar(CASES.length + 3),
    ratioLow: scalar(1 - CLIP.epsLow),
    ratioHigh: scalar(1 + CLIP.epsHigh),
    dualClip: scalar(CLIP.dualClip),
  };
  for (const [name, { shape, data }] of weights) feeds[name] = tensor(shape, data);
  return { feeds, cases };
}

function setUp(config: ModelConfig, lora: LoraConfig | null) {
  const prng = new Prng(11);
  const weights = tinyModel(config, prng);
  const adapter = lora && initialAdapter(config, lora, prng);
  // B starts at 0, where A has no gradient.
  for (const { data } of adapter?.weights.values() ?? []) {
    data.forEach((value, i) => (data[i] = value + 0.3 * prng.gaussian()));
  }
  const tokens = Array.from({ length: ROWS }, () =>
    Array.from({ length: WIDTH + 1 }, () => prng.below(config.vocabulary)),
  );
  const graph = trainingGraph(config, PPO, {
    form: 'flat',
    adapted: adapter?.modules ?? [],
  });
  const all = new Map([...weights, ...(adapter?.weights ?? [])]);
  const { feeds, cases } = feedsOf(config, all, tokens);
  const logprobs = evaluate(graph, feeds, ['logprobs']).logprobs!;
  feeds.old = tensor(
    logprobs.shape,
    logprobs.data.map((logp, i) => Math.fround(logp - Math.log(cases[i]?.ratio ?? 1))),
  );
  return { graph, feeds, weights, adapter, tokens, logprobs };
}

const QWEN2: ModelConfig = { ...TINY, modelType: 'qwen2', qkvBias: true, tiedEmbeddings: false };
const QWEN3: ModelConfig = {
  ...TINY,
  modelType: 'qwen3',
  headDim: 4,
  qkvBias: true,
  ropeScaling: {
    type: 'yarn',
    factor: 4,
    originalContextTokens: 4,
    attentionFactor: 1.3,
    betaFast: 1,
    betaSlow: 0.1,
    truncate: false,
  },
};
const LORA: LoraConfig = {
  rank: 2,
  alpha: 3,
  rsLora: false,
  targets: ['q_proj', 'v_proj', 'down_proj'],
  excluded: [],
  layers: null,
  rankPattern: {},
  alphaPattern: {},
};
const CONFIGS: [string, ModelConfig, LoraConfig | null][] = [
  ['llama, grouped queries, tied', TINY, null],
  ['qwen2, biases, untied', QWEN2, null],
  ['qwen3, head norms, wide heads, yarn', QWEN3, null],
  ['an adapter of some projections', TINY, LORA],
  [
    'an adapter of all, ranks by name',
    QWEN2,
    { ...LORA, targets: 'all-linear', rsLora: true, rankPattern: { 'mlp.up_proj': 1 } },
  ],
];

describe.each(CONFIGS)('the policy loss of %s', (_name, config, lora) => {
  const { graph, feeds, weights, adapter, tokens, logprobs } = setUp(config, lora);
  const trained = adapter?.weights ?? weights;
  const reference = evaluate(graph, feeds);

  it('is the loss of the plain definition', () => {
    const perToken = Array.from(logprobs.data, (logp, i) => ({
      logp,
      old: feeds.old!.data[i]!,
      advantage: feeds.advantages!.data[i]!,
      weight: feeds.tokenWeights!.data[i]!,
    }));
    const { loss } = flatLossByHand(perToken, CLIP);
    const scale = CASES.length / feeds.weightSum!.data[0]!;
    expect(reference.loss!.data[0]).toBeCloseTo(loss * scale, 10);
    // Ratios really lie where the cases put them.
    const used = perToken.filter(({ weight }) => weight > 0);
    expect(used.length).toBe(CASES.length);
    used.forEach(({ logp, old }, i) =>
      expect(Math.exp(logp - old)).toBeCloseTo(CASES[i]!.ratio, 5),
    );
  });

  it('has the gradient of central differences, element by element', () => {
    const step = 1e-5;
    let elements = 0;
    for (const name of trained.keys()) {
      const { shape, data } = feeds[name]!;
      const gradient = reference[gradientName(name)]!;
      expect(gradient.shape).toEqual(shape);
      expect(
        gradient.data.some((value) => Math.abs(value) > 1e-4),
        name,
      ).toBe(true);
      data.forEach((_, i) => {
        const lossAt = (delta: number) => {
          const moved = { shape, data: data.slice() };
          moved.data[i]! += delta;
          return evaluate(graph, { ...feeds, [name]: moved }, ['loss']).loss!.data[0]!;
        };
        const difference = (lossAt(step) - lossAt(-step)) / (2 * step);
        const allowed = 1e-5 * Math.max(1e-3, Math.abs(difference));
        const error = Math.abs(gradient.data[i]! - difference);
        expect(error, `${name}[${i}]: ${difference}`).toBeLessThan(allowed);
        elements++;
      });
    }
    expect(elements).toBeGreaterThan(90);
    const outputs = graph.outputs.filter(({ name }) => name.startsWith('gradient:'));
    expect(outputs.map(({ name }) => name)).toEqual([...trained.keys()].map(gradientName));
    // A frozen weight's gradient is not even computed: every such product is read.
    const products = graph.nodes.filter(({ op }) => op === 'leftTransposed');
    const matrices = [...trained].filter(([name, { shape }]) => {
      return shape.length === 2 && (name !== 'model.embed_tokens.weight' || config.tiedEmbeddings);
    });
    expect(products.length).toBe(matrices.length);
  });

  it('is what onnxruntime computes', async () => {
    const session = createTrainingSession(config, weights, {
      device: 'cpu',
      threads: 1,
      ...(adapter && { adapter }),
    });
    const rowOf = (name: string, r: number) =>
      Float32Array.of(0, ...feeds[name]!.data.subarray(r * WIDTH, (r + 1) * WIDTH));
    const rows = tokens.map((row, r): TrainRow => ({
      tokens: Uint32Array.from(row),
      weights: rowOf('tokenWeights', r),
      advantages: rowOf('advantages', r),
      oldLogprobs: rowOf('old', r),
    }));
    const loss = { ...CLIP, weightSum: feeds.weightSum!.data[0]! };
    const result = await session.lossAndGradients(rows, loss);
    await session.dispose();
    expect([...result.gradients.keys()]).toEqual([...trained.keys()]);
    expect(result.loss).toBeCloseTo(reference.loss!.data[0]!, 5);
    for (const [name, gradient] of result.gradients) {
      reference[gradientName(name)]!.data.forEach((value, i) => {
        const allowed = 1e-4 * Math.max(1, Math.abs(value));
        expect(Math.abs(gradient[i]! - value), `${name}[${i}]`).toBeLessThan(allowed);
      });
    }
  });
});

interface LossVectors {
  epsLow: number;
  epsHigh: number;
  dualClip: number;
  unique: { id: string; logp: number; old: number }[];
  trajectories: { tokens: string[]; A: number }[];
  tokens: number;
  loss: number;
  gradLogp: Record<string, number>;
}

describe('the shared vectors', () => {
  it('come out of the same loss graph', () => {
    const file = join(packageRoot, 'test/fixtures/arpo-vectors.json');
    const { loss: vectors } = JSON.parse(readFileSync(file, 'utf8')) as { loss: LossVectors };
    const flat = vectors.trajectories.flatMap(({ tokens, A }) =>
      tokens.map((id) => ({ ...vectors.unique.find((token) => token.id === id)!, A })),
    );
    const graph = new Graph();
    const logprobs = graph.input('logprobs', 'float32', ['B', 'T']);
    const loss = flatLoss(graph, { logprobs, entropies: logprobs }, PPO);
    graph.output('loss', loss);
    graph.output('gradient', gradients(graph, loss, [logprobs])[0]!);
    const row = (pick: (token: (typeof flat)[number]) => number) =>
      tensor([1, flat.length], flat.map(pick));
    const result = evaluate(graph, {
      logprobs: row(({ logp }) => logp),
      old: row(({ old }) => old),
      advantages: row(({ A }) => A),
      tokenWeights: row(() => 1),
      weightSum: scalar(vectors.tokens),
      ratioLow: scalar(1 - vectors.epsLow),
      ratioHigh: scalar(1 + vectors.epsHigh),
      dualClip: scalar(vectors.dualClip),
    });
    expect(result.loss!.data[0]).toBeCloseTo(vectors.loss, 12);
    const byToken: Record<string, number> = {};
    flat.forEach(({ id }, i) => {
      byToken[id] = (byToken[id] ?? 0) + result.gradient!.data[i]!;
    });
    expect(Object.keys(byToken).sort()).toEqual(Object.keys(vectors.gradLogp).sort());
    for (const [id, expected] of Object.entries(vectors.gradLogp)) {
      expect(byToken[id], id).toBeCloseTo(expected, 12);
    }
  });
});
