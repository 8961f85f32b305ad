/**
 * Checkpoints of every family and option against transformers (float32, eager attention): logits of
 * whole rows, and a greedy continuation through prefill and chunked decode.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { must } from '../../core/assert.ts';
import { createLocalEngine } from '../../core/engine/local-engine.ts';
import { parseModelConfig } from '../../core/model/config.ts';
import { loadPolicyModel } from '../../core/model/policy-directory.ts';
import { createTrainingSession } from '../../core/model/training-session.ts';
import {
  decodeGreedily,
  fixtureNames,
  fixtureRoot,
  largestDifference,
  readFixture,
  readTensors,
  VERSION,
  type GreedyRun,
} from './fixtures.ts';
import { wholeRowLogits } from './whole-row.ts';

const TOLERANCE = 1e-4;
const CPU = { device: 'cpu', threads: 1 } as const;

interface Expected {
  rows: { ids: number[]; positions: number[] }[];
  greedy: GreedyRun;
}

describe.each(fixtureNames('models'))('%s', (name) => {
  const directory = join(fixtureRoot, 'models', name);
  const expected = readFixture<Expected>('models', name, 'expected.json');
  const tensors = readTensors('models', name, 'expected.safetensors');

  test('config.json means the same in the form of transformers 4 and 5', () => {
    const parse = (file: string) => parseModelConfig(readFixture('models', name, file), file);
    expect(parse('config.v4.json')).toEqual(parse('config.json'));
  });

  test('logits', async () => {
    const model = loadPolicyModel(directory);
    for (const [row, { ids, positions }] of expected.rows.entries()) {
      const logits = await wholeRowLogits(model, ids);
      const { vocabulary } = model.config;
      const kept = positions.flatMap((t) => [
        ...logits.subarray(t * vocabulary, (t + 1) * vocabulary),
      ]);
      const reference = must(tensors.get(`logits.${row}`), 'logits');
      expect(largestDifference(kept, reference)).toBeLessThanOrEqual(TOLERANCE);
    }
  });

  test('a greedy continuation: tokens, log-probabilities, entropies, decoded and scored', async () => {
    const model = loadPolicyModel(directory);
    const { prompt, tokens, logprobs, entropies } = expected.greedy;
    const engine = await createLocalEngine({ ...model, version: VERSION, ...CPU });
    const sampled = await decodeGreedily(engine, expected.greedy);
    await engine.close();
    expect([...sampled.tokens]).toEqual(tokens);
    expect(largestDifference(sampled.logprobs, logprobs)).toBeLessThanOrEqual(TOLERANCE);
    expect(largestDifference(sampled.entropies, entropies)).toBeLessThanOrEqual(TOLERANCE);

    const session = createTrainingSession(model.config, model.weights, CPU);
    const scored = await session.score([Uint32Array.from([...prompt, ...tokens])]);
    await session.dispose();
    const after = (values: Float32Array[]) => must(values[0], 'row').subarray(prompt.length);
    expect(largestDifference(after(scored.logprobs), logprobs)).toBeLessThanOrEqual(TOLERANCE);
    expect(largestDifference(after(scored.entropies), entropies)).toBeLessThanOrEqual(TOLERANCE);
  });
});
