/**
 * Packed rows against flat rows on random forests: how far loss and gradients are apart, for models
 * of every kind, with and without an adapter, under every clip rule. The unit test runs some
 * forests, `npm run fuzz:packed` a thousand.
 */
import type { Prng } from '../../prng.ts';
import { initialAdapter, type LoraConfig } from '../lora.ts';
import { createTrainingSession } from '../training-session.ts';
import type { LossSettings, ModelConfig, TrainingSession, TrainRow } from '../types.ts';
import { randomForest } from './random-forests.ts';
import { TINY_CONFIGS, tinyWeights } from './tiny-models.ts';

const CLIP = { epsLow: 0.2, epsHigh: 0.28, dualClip: 3, weightSum: 17 };

/** Every clip rule, and every term beside it. */
export const LOSSES: readonly LossSettings[] = [
  CLIP,
  { ...CLIP, clip: 'entropy-balanced', entropyCoefficient: 0.1 },
  { ...CLIP, clip: 'gspo', entropyCoefficient: -0.1 },
  { ...CLIP, clip: 'cispo', klCoefficient: 0.2 },
];

const LORA: LoraConfig = {
  rank: 2,
  alpha: 4,
  rsLora: false,
  targets: 'all-linear',
  excluded: [],
  layers: null,
  rankPattern: {},
  alphaPattern: {},
};

/** Grouped queries, a head a query and an untied head, biases, norms on heads. */
export const PACKED_KINDS = (['llama', 'llama, untied, a head a query', 'qwen2', 'qwen3'] as const)
  .map((kind) => [false, true].map((lora) => ({ kind, lora })))
  .flat();
export type PackedKind = (typeof PACKED_KINDS)[number];

export function sessionOf({ kind, lora }: PackedKind, prng: Prng): TrainingSession {
  const config = TINY_CONFIGS[kind] as ModelConfig;
  const weights = tinyWeights(config, prng);
  const adapter = lora ? initialAdapter(config, LORA, prng) : undefined;
  for (const { data } of adapter?.weights.values() ?? []) {
    data.forEach((value, i) => (data[i] = value + 0.2 * prng.gaussian()));
  }
  const runtime = { device: 'cpu', threads: 1 } as const;
  return createTrainingSession(config, weights, { ...runtime, ...(adapter && { adapter }) });
}

export function forestFor(session: TrainingSession, prng: Prng): TrainRow[] {
  const { vocabulary } = session.config;
  return randomForest(prng, { vocabulary, rowsMax: 10, tokensMax: 24 });
}

export interface Apart {
  /** |difference| to the larger of 1 and |flat|. */
  loss: number;
  /** Of the worst tensor: length of the difference to length of the flat gradient. */
  gradient: number;
}

/** How far packed is from flat on these rows. */
export async function compareForms(
  session: TrainingSession,
  rows: readonly TrainRow[],
  loss: LossSettings,
): Promise<Apart> {
  const flat = await session.lossAndGradients(rows, loss, 'flat');
  const packed = await session.lossAndGradients(rows, loss, 'packed');
  return {
    loss: Math.abs(packed.loss - flat.loss) / Math.max(1, Math.abs(flat.loss)),
    gradient: gradientsApart(packed.gradients, flat.gradients),
  };
}

type Gradients = ReadonlyMap<string, Float32Array>;

/** Of the worst tensor: length of the difference to length of `expected`. */
export function gradientsApart(actual: Gradients, expected: Gradients): number {
  let worst = 0;
  for (const [name, values] of expected) {
    const other = actual.get(name) as Float32Array;
    let [difference, size] = [0, 0];
    values.forEach((value, i) => {
      difference += ((other[i] as number) - value) ** 2;
      size += value ** 2;
    });
    worst = Math.max(worst, Math.sqrt(difference / Math.max(size, 1e-12)));
  }
  return worst;
}
