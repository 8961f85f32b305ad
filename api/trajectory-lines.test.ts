/** Trajectory lines: lossless both ways, and refused by the name of the field at fault. */
import { expect, test } from 'vitest';
import type { ClientOffer, Feedback, StepRecord } from '../core/records.ts';
import { Prng } from '../core/prng.ts';
import { randomStep, trajectoryOf } from '../test/fixtures/random-records.ts';
import { readTrajectoryLine, trajectoryLine, type LoggedTrajectory } from './trajectory-lines.ts';

const noTags: Record<string, string> = {};

function logged(seed: number): LoggedTrajectory {
  const prng = new Prng(seed);
  const steps: StepRecord[] = [];
  for (let i = 0; i < 4; i++) {
    steps.push(randomStep(prng, `step_${seed}_${i}`, steps.at(-1) ?? null));
  }
  const id = `traj_${seed}`;
  const feedback: Feedback[] = [true, 'a "comment" \u{1f600}', 0.1 + 0.2].map((value, i) => ({
    id: `fb_${seed}_${i}`,
    trajectoryId: id,
    stepId: i === 0 ? null : steps[i]!.id,
    metricName: ['thumb', 'comment', 'reward'][i]!,
    value,
    tags: i === 0 ? noTags : { who: 'tester' },
    createdAt: 1_767_225_600_123 + i,
  }));
  const trajectory = trajectoryOf(id, steps.at(-1)!, {
    branchedFromStepId: prng.next() < 0.5 ? steps[1]!.id : null,
    reward: prng.next() - 0.5,
    ...(seed % 2 === 0 && { offer: offerOf(seed) }),
  });
  return { trajectory, steps, feedback };
}

const offerOf = (seed: number): ClientOffer => ({
  tools: [{ name: 'find', description: 'Finds é.', parameters: { type: 'object' } }],
  metadata: seed % 4 === 0 ? { order: '17' } : null,
});

test('what is written comes back as it was, and is written the same again', () => {
  for (let seed = 1; seed <= 50; seed++) {
    const before = logged(seed);
    const line = trajectoryLine(before);
    const after = readTrajectoryLine(line);
    expect(after).toEqual(before);
    expect(trajectoryLine(after)).toBe(line);
    expect(line).not.toContain('\n');
  }
});

test('every kind of float comes back with its bits, and every sampling option', () => {
  const before = logged(1);
  const figures = Float32Array.of(-0, 0, NaN, -Infinity, Infinity, 1e-45, -3.4028235e38, 1 / 3);
  const steps = [...before.steps];
  steps[3] = {
    ...steps[3]!,
    tokens: new Uint32Array(figures.length).fill(2 ** 32 - 1),
    logprobs: figures,
    behaviourLogprobs: null,
    entropies: figures,
    sampling: {
      ...{ temperature: 0.7, topP: 0.9, topK: 40, seed: 7, minP: 0.1, repetitionPenalty: 1.2 },
      ...{ presencePenalty: -1, frequencyPenalty: 0.5, logitBias: { '17': -100 }, minTokens: 2 },
      constraint: [{ kind: 'json', schema: { type: 'object' }, escaped: '<' }],
    },
  };
  const after = readTrajectoryLine(trajectoryLine({ ...before, steps }));
  const bits = (values: Float32Array | null) => new Uint32Array(values!.slice().buffer);
  expect(bits(after.steps[3]!.logprobs)).toEqual(bits(figures));
  expect(after.steps[3]).toEqual(steps[3]);
});

type Edit = (line: ReturnType<typeof JSON.parse>) => void;

test.each<[string, Edit]>([
  ['steps[1].tokens[0]: must be', (line) => (line.steps[1].tokens[0] = -1)],
  ['steps[2].sampled: is not a known field', (line) => (line.steps[2].sampled = true)],
  ['steps[0].created_at: must match', (line) => (line.steps[0].created_at = '2026-01-01')],
  ['reward: must be number or null (got "high")', (line) => (line.reward = 'high')],
  ['format: must be 1 (got 2)', (line) => (line.format = 2)],
  ['feedback: is required', (line) => delete line.feedback],
  ['steps: must NOT have fewer', (line) => (line.steps = [])],
  ['steps[2].index is 7, not 2', (line) => (line.steps[2].index = 7)],
  ['steps[3].parent_id is step_1_0', (line) => (line.steps[3].parent_id = 'step_1_0')],
  ['leaf_step_id step_1_2 is not the last', (line) => (line.leaf_step_id = 'step_1_2')],
  ['branched_from_step_id x is none', (line) => (line.branched_from_step_id = 'x')],
  ['feedback[1].step_id x is none', (line) => (line.feedback[1].step_id = 'x')],
  ['steps[0].logprobs has 1 figures for', (line) => (line.steps[0].logprobs = [-1])],
  ['must match pattern', (line) => (line.steps[0].entropies = ['1'])],
])('refused: %s', (message, edit) => {
  const line = JSON.parse(trajectoryLine(logged(1)));
  // A single token would fit a single figure.
  line.steps[0].tokens = [1, 2];
  edit(line);
  expect(() => readTrajectoryLine(JSON.stringify(line))).toThrow(message);
});

test('refused: no JSON, and JSON that is no object', () => {
  expect(() => readTrajectoryLine('{"a":')).toThrow('not valid JSON');
  expect(() => readTrajectoryLine('[]')).toThrow('the line: must be object');
});
