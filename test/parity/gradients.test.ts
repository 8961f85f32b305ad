/**
 * Loss and gradients against PyTorch autograd, AdamW against torch.optim.AdamW: alone on given
 * gradients, and through 20 whole training steps of a model. The relative error of a tensor is
 * |ours - theirs| / |theirs| in the Euclidean norm.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { must } from '../../core/assert.ts';
import { parameterShapes } from '../../core/model/parameters.ts';
import { loadPolicyModel } from '../../core/model/policy-directory.ts';
import { createTrainingSession } from '../../core/model/training-session.ts';
import type { Weights } from '../../core/model/types.ts';
import { clipScale, initAdamW, rateAt, updateAdamW } from '../../core/trainer/adamw.ts';
import { weightSumOf } from '../../core/trainer/micro-batch.ts';
import {
  fixtureNames,
  fixtureRoot,
  largestDifference,
  readFixture,
  readTensors,
  relativeError,
  trainRow,
  type FixtureRow,
} from './fixtures.ts';

const RELATIVE_TOLERANCE = 1e-4;
const PARAMETER_TOLERANCE = 1e-5;
const CPU = { device: 'cpu', threads: 1 } as const;

interface Clip {
  epsLow: number;
  epsHigh: number;
  dualClip: number;
}

const cases = fixtureNames('gradients')
  .filter((file) => file.endsWith('.json'))
  .map((file) => file.replace('.json', ''));

describe.each(cases)('full training: %s', (name) => {
  test('loss and every gradient', async () => {
    const given = readFixture<{ model: string; clip: Clip; rows: FixtureRow[]; loss: number }>(
      'gradients',
      `${name}.json`,
    );
    const expected = readTensors('gradients', `${name}.safetensors`);
    const { config, weights } = loadPolicyModel(join(fixtureRoot, 'models', given.model));
    const session = createTrainingSession(config, weights, CPU);
    const rows = given.rows.map(trainRow);
    const weightSum = weightSumOf(rows);
    const result = await session.lossAndGradients(rows, { ...given.clip, weightSum });
    await session.dispose();
    expect(Math.abs(result.loss - given.loss)).toBeLessThanOrEqual(1e-5);
    expect([...expected.keys()].sort()).toEqual([...parameterShapes(config).keys()].sort());
    for (const [key, gradient] of expected) {
      const error = relativeError(must(result.gradients.get(key), key), gradient);
      expect(error, key).toBeLessThanOrEqual(RELATIVE_TOLERANCE);
    }
  });
});

interface AdamWFixture {
  settings: {
    beta1: number;
    beta2: number;
    epsilon: number;
    weightDecay: number;
    maxNorm: number;
    steps: number;
    warmupSteps: number;
  };
  learningRate: number;
}

test('AdamW: 20 updates by given gradients', () => {
  const given = readFixture<AdamWFixture & { norms: number[] }>('adamw', 'alone.json');
  const tensors = readTensors('adamw', 'alone.safetensors');
  const part = (prefix: string) =>
    new Map(
      [...tensors]
        .filter(([key]) => key.startsWith(prefix))
        .map(([key, data]) => [key.slice(prefix.length), data]),
    );
  const weights: Weights = new Map(
    [...part('start:')].map(([key, data]) => [key, { shape: shapeLike(key, data), data }]),
  );
  const state = initAdamW(weights);
  for (let step = 0; step < given.settings.steps; step++) {
    const norm = update(weights, part(`gradient.${step}:`), state, given);
    const expected = must(given.norms[step], 'norm');
    expect(Math.abs(norm - expected) / expected).toBeLessThanOrEqual(1e-5);
  }
  for (const [key, data] of part('end:')) {
    const ours = must(weights.get(key), key).data;
    expect(largestDifference(ours, data), key).toBeLessThanOrEqual(PARAMETER_TOLERANCE);
  }
});

test('20 training steps of a model end at the same parameters', async () => {
  const given = readFixture<
    AdamWFixture & { model: string; clip: Clip; batches: FixtureRow[][]; losses: number[] }
  >('adamw', 'training.json');
  const expected = readTensors('adamw', 'training.safetensors');
  const { config, weights } = loadPolicyModel(join(fixtureRoot, 'models', given.model));
  const session = createTrainingSession(config, weights, CPU);
  const state = initAdamW(session.weights);
  for (let step = 0; step < given.settings.steps; step++) {
    const rows = must(given.batches[step % given.batches.length], 'batch').map(trainRow);
    const weightSum = weightSumOf(rows);
    const { loss, gradients } = await session.lossAndGradients(rows, { ...given.clip, weightSum });
    expect(Math.abs(loss - must(given.losses[step], 'loss'))).toBeLessThanOrEqual(1e-4);
    update(session.weights, gradients, state, given);
  }
  await session.dispose();
  for (const [key, data] of expected) {
    const ours = must(session.weights.get(key.replace('end:', '')), key).data;
    expect(largestDifference(ours, data), key).toBeLessThanOrEqual(PARAMETER_TOLERANCE);
  }
});

/** One update as the trainer makes it: clip, warm-up, AdamW. Returns the norm before clipping. */
function update(
  weights: Weights,
  gradients: Map<string, Float32Array>,
  state: ReturnType<typeof initAdamW>,
  { settings, learningRate }: AdamWFixture,
): number {
  const { norm, gradientScale } = clipScale(gradients, settings.maxNorm);
  const { warmupSteps: warmupUpdates } = settings;
  const rate = rateAt({ learningRate, warmupUpdates, finalRateRatio: 1 }, state.step, 0);
  updateAdamW(weights, gradients, state, { ...settings, gradientScale, learningRate: rate });
  return norm;
}

/** AdamW asks of a shape only whether it is a matrix. */
function shapeLike(name: string, data: Float32Array): number[] {
  const isMatrix = name === 'embedding.weight' || name === 'linear.weight';
  return isMatrix ? [data.length / 8, 8] : [data.length];
}
