/** The gate's answers: which draws they use, and that a checkpoint gives them back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseSettings } from '../arpo/settings.ts';
import { formatSafetensors, parseSafetensors } from '../model/safetensors.ts';
import type { Weights } from '../model/types.ts';
import { answerGateTasks, packAnswers, unpackAnswers } from './gate-evaluation.ts';
import type { GateAnswers } from './gate.ts';
import { createBigramSampler } from './testing/bigram-policy.ts';
import { colourTasks, createColourSetting, type ColourSetting } from './testing/colour-task.ts';
import { testJob } from './testing/test-job.ts';

let setting: ColourSetting;
beforeAll(() => void (setting = createColourSetting()));
afterAll(() => setting.remove());

const TASKS = colourTasks('red', 30);

function answer(
  overrides: Record<string, unknown>,
  { seed = 1, weights = setting.freshWeights(), signal = new AbortController().signal } = {},
): Promise<GateAnswers> {
  return answerGateTasks({
    job: { ...testJob({}, setting.directory), seed },
    settings: parseSettings('grpo', { maxTokens: 40, ...overrides }),
    sampler: createBigramSampler(setting.config, weights),
    context: setting.context,
    tasks: TASKS,
    signal,
  });
}

/** What was right, without ids and times. */
const marks = (list: GateAnswers['sampled'][number]) =>
  list.map(({ task, correct, toolCalls }) => [task.id, correct, toolCalls]);

describe('answers to the gate', () => {
  it('are one list a sample, each with its own luck, and a greedy one where asked', async () => {
    const { sampled, greedy } = await answer({ gateSamples: 3, gateGreedy: true });
    expect(sampled.map((list) => list.map(({ task }) => task.id))).toEqual(
      Array.from({ length: 3 }, () => TASKS.map(({ id }) => id)),
    );
    expect(new Set(sampled.map((list) => JSON.stringify(marks(list)))).size).toBe(3);
    expect(greedy?.length).toBe(TASKS.length);
    for (const list of sampled) {
      for (const outcome of list) {
        expect(Object.keys(outcome).sort()).toEqual(['correct', 'formatOk', 'task', 'toolCalls']);
      }
      // The policy guesses one of four colours, and looks things up half of the time.
      const share = list.filter(({ correct }) => correct).length / list.length;
      expect(share).toBeGreaterThan(0);
      expect(share).toBeLessThan(0.7);
      expect(list.some(({ toolCalls }) => toolCalls > 0)).toBe(true);
    }
    expect((await answer({})).greedy).toBeNull();
  });

  it('meet the same luck again, whatever else is asked for, and other luck by another seed', async () => {
    const once = await answer({});
    const more = await answer({ gateSamples: 2, gateGreedy: true });
    expect(marks(more.sampled[0]!)).toEqual(marks(once.sampled[0]!));
    const other = await answer({ gateGreedy: true }, { seed: 2 });
    expect(marks(other.sampled[0]!)).not.toEqual(marks(once.sampled[0]!));
    // Nothing is drawn greedily.
    expect(marks(other.greedy!)).toEqual(marks(more.greedy!));
  });

  it('end when cancelled', async () => {
    const signal = AbortSignal.abort(new Error('stop asked'));
    await expect(answer({}, { signal })).rejects.toMatchObject({ code: 'request_cancelled' });
  });
});

describe('answers in a checkpoint', () => {
  const stored = (answers: GateAnswers): Weights =>
    parseSafetensors(formatSafetensors(packAnswers(answers)), 'answers');

  it.each([{ gateSamples: 1 }, { gateSamples: 3, gateGreedy: true }])(
    'come back as they were: %j',
    async (settings) => {
      const answers = await answer(settings);
      expect(unpackAnswers(stored(answers), TASKS)).toEqual(answers);
    },
  );

  it('are refused when they are of other tasks', async () => {
    const arrays = stored(await answer({}));
    expect(() => unpackAnswers(arrays, TASKS.slice(1))).toThrowError(
      expect.objectContaining({
        code: 'storage_failed',
        message: 'answers to 30 gate tasks, not 29',
      }),
    );
  });
});
