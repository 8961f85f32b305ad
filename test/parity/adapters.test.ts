/**
 * LoRA adapters that peft saved: logits, a greedy continuation by the engine, merged weights, and
 * the loss with the gradients of A and B from PyTorch autograd. The other way, adapters that ramify
 * saves and peft loads, is scripts/parity/check_peft.py.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { must } from '../../core/assert.ts';
import { LocalEngine } from '../../core/engine/local-engine.ts';
import { loadAdapter } from '../../core/model/lora-directory.ts';
import { mergeAdapter } from '../../core/model/lora.ts';
import { heldWeights } from '../../core/model/stored-weights.ts';
import { createTrainingSession } from '../../core/model/training-session.ts';
import { weightSumOf } from '../../core/trainer/micro-batch.ts';
import {
  decodeGreedily,
  fixtureNames,
  fixtureRoot,
  largestDifference,
  readFixture,
  readTensors,
  relativeError,
  trainRow,
  VERSION,
  type FixtureRow,
  type GreedyRun,
} from './fixtures.ts';
import { wholeRowLogits } from './whole-row.ts';

const TOLERANCE = 1e-4;
const PREFIX = 'base_model.model.';
const CPU = { device: 'cpu', threads: 1 } as const;

interface Expected {
  ids: number[];
  greedy: GreedyRun;
  clip: { epsLow: number; epsHigh: number; dualClip: number };
  rows: FixtureRow[];
  loss: number;
}

describe.each(fixtureNames('adapters'))('%s', (name) => {
  const policy = loadAdapter(join(fixtureRoot, 'adapters', name));
  const expected = readFixture<Expected>('adapters', name, 'expected.json');
  const tensors = readTensors('adapters', name, 'expected.safetensors');
  const { config, adapter } = policy;

  test('logits, beside the base and merged into it', async () => {
    const weights = heldWeights(policy.baseWeights());
    const reference = must(tensors.get('logits'), 'logits');
    const beside = await wholeRowLogits({ config, weights }, expected.ids, adapter);
    expect(largestDifference(beside, reference)).toBeLessThanOrEqual(TOLERANCE);
    const merged = await wholeRowLogits(
      { config, weights: mergeAdapter(weights, adapter) },
      expected.ids,
    );
    expect(largestDifference(merged, reference)).toBeLessThanOrEqual(TOLERANCE);
  });

  test('a greedy continuation by the engine', async () => {
    const engine = new LocalEngine(CPU);
    await engine.load(VERSION, policy);
    const sampled = await decodeGreedily(engine, expected.greedy);
    await engine.close();
    const { tokens, logprobs, entropies } = expected.greedy;
    expect([...sampled.tokens]).toEqual(tokens);
    expect(largestDifference(sampled.logprobs, logprobs)).toBeLessThanOrEqual(TOLERANCE);
    expect(largestDifference(sampled.entropies, entropies)).toBeLessThanOrEqual(TOLERANCE);
  });

  test('loss and every gradient of A and B', async () => {
    const session = createTrainingSession(config, heldWeights(policy.baseWeights()), {
      ...CPU,
      adapter,
    });
    const rows = expected.rows.map(trainRow);
    const loss = { ...expected.clip, weightSum: weightSumOf(rows) };
    const result = await session.lossAndGradients(rows, loss);
    await session.dispose();
    expect(Math.abs(result.loss - expected.loss)).toBeLessThanOrEqual(1e-5);
    const gradients = new Map([...tensors].filter(([key]) => key !== 'logits'));
    expect([...result.gradients.keys()].map((key) => PREFIX + key).sort()).toEqual(
      [...gradients.keys()].sort(),
    );
    for (const [key, gradient] of gradients) {
      const ours = must(result.gradients.get(key.slice(PREFIX.length)), key);
      expect(relativeError(ours, gradient), key).toBeLessThanOrEqual(TOLERANCE);
    }
  });
});
