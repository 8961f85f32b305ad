/**
 * Checkpoints of every family and option against transformers (float32, eager attention): logits of
 * whole rows, and a greedy continuation through prefill and chunked decode.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { must } from '../../core/assert.ts';
import { createLocalEngine } from '../../core/engine/local-engine.ts';
import { Graph } from '../../core/graph/graph.ts';
import { mulDims } from '../../core/graph/tensor-type.ts';
import { parseModelConfig } from '../../core/model/config.ts';
import { decoderLogits, decoderStates } from '../../core/model/decoder.ts';
import { loadPolicyModel, type PolicyModel } from '../../core/model/policy-directory.ts';
import { RotaryTable, rotaryInputs } from '../../core/model/rotary.ts';
import { createSession } from '../../core/model/session.ts';
import { causalMask, createTrainingSession } from '../../core/model/training-session.ts';
import {
  fixtureNames,
  fixtureRoot,
  largestDifference,
  readFixture,
  readTensors,
} from './fixtures.ts';

const TOLERANCE = 1e-4;
const CPU = { device: 'cpu', threads: 1 } as const;

interface Expected {
  rows: { ids: number[]; positions: number[] }[];
  greedy: { prompt: number[]; tokens: number[]; logprobs: number[]; entropies: number[] };
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
    const engine = await createLocalEngine({ ...model, version: 1, ...CPU });
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(prompt);
    const sampling = { temperature: 0, topP: 1, topK: 0, seed: 1 };
    const sampled = await sequence.sample({
      maxTokens: tokens.length,
      sampling,
      stopTokens: [],
    });
    sequence.close();
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

/** Logits (T, V) of one row, by the forward pass of all graphs; no product graph outputs them. */
async function wholeRowLogits({ config, weights }: PolicyModel, ids: readonly number[]) {
  const graph = new Graph();
  const stored = new Map(
    [...weights].map(([key, { shape, data }]) => [key, graph.initializer(key, shape, data)]),
  );
  const weight = (key: string) => must(stored.get(key), key);
  const group = config.heads / config.kvHeads;
  const input = graph.input('ids', 'int64', ['B', 'T']);
  const rotary = rotaryInputs(graph, config, [1, 'T', 1]);
  const mask = graph.input('mask', 'float32', [1, 1, mulDims('T', group), 'T']);
  const states = decoderStates(
    config,
    { ids: input, ...rotary },
    { weight, attend: (_layer, keys, values) => [{ keys, values, mask }] },
  );
  graph.output('logits', decoderLogits(config, states, weight));
  const session = await createSession(graph, CPU);
  const width = ids.length;
  const out = await session.run({
    ids: { dims: [1, width], data: BigInt64Array.from(ids, BigInt) },
    ...new RotaryTable(config).feeds([...ids.keys()], [1, width, 1]),
    mask: { dims: [1, 1, width * group, width], data: causalMask(width, group) },
  });
  await session.dispose();
  return must(out.logits, 'logits').data as Float32Array;
}
