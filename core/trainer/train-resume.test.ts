/**
 * A run that is cut off between any two events and started again ends with the same weights, and
 * sends the same events, as one that was left alone: with everything on that a step leaves to the
 * next one. Real kills, which fall inside a write too, are in api/trainer-resume.test.ts.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatSafetensors } from '../model/safetensors.ts';
import { Prng } from '../prng.ts';
import { createBigramSampler, createBigramSession, tableOf } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';
import { train } from './train.ts';
import type { TrainerEvent, TrainingJob } from './types.ts';
import { copyInto, copyOf } from './weight-lag.ts';

let setting: ColourSetting;
let out: string;
let name = 0;
beforeAll(() => {
  setting = createColourSetting();
  out = mkdtempSync(join(tmpdir(), 'ramify-train-resume-'));
});
afterAll(() => {
  setting.remove();
  rmSync(out, { recursive: true });
});

const EVERYTHING = {
  groupSize: 4,
  promptsPerStep: 4,
  miniBatches: 2,
  epochs: 2,
  learningRate: 0.2,
  warmupSteps: 2,
  gateTasks: 20,
  gateSamples: 2,
  gateGreedy: true,
  maxTokens: 40,
  rolloutLag: 2,
  dynamicSampling: true,
  maxResample: 3,
  curriculum: 'solved-share',
  earlyStop: 'plateau',
  stopWindow: 2,
  stopPatience: 100,
  checkpointEvery: 2,
};

const job = (
  settings: Record<string, unknown>,
  change: Partial<TrainingJob> = {},
): TrainingJob => ({
  runId: 'trn_test',
  algorithm: 'arpo',
  steps: 7,
  settings,
  seed: 7,
  baseVersion: 1,
  baseDirectory: setting.directory,
  candidateDirectory: join(out, `candidate-${name++}`),
  trainTasks: colourTasks('red', 10),
  gateTasks: colourTasks('red', 20),
  threads: 1,
  ...change,
});

/** One process's life: until the end, or until `emit` was called `cutAfter` times. */
async function live(aJob: TrainingJob, cutAfter = Infinity) {
  const weights = setting.freshWeights();
  const lagging = aJob.settings['rolloutLag'] !== undefined && aJob.settings['rolloutLag'] !== 0;
  const sampledWeights = lagging ? copyOf(weights) : weights;
  // As the engine does, it samples from what it was loaded with.
  const loaded = copyOf(sampledWeights);
  const sampler = Object.assign(createBigramSampler(setting.config, loaded), {
    reload: async () => copyInto(loaded, sampledWeights),
  });
  const { context } = setting;
  const events: TrainerEvent[] = [];
  const parts = {
    ...{ sampler, sampledWeights, context, clock: context.clock },
    session: createBigramSession(setting.config, weights),
    writeWeights: async (directory: string): Promise<void> =>
      writeFileSync(join(directory, 'model.safetensors'), formatSafetensors(weights)),
  };
  const emit = async (event: TrainerEvent): Promise<void> => {
    if (events.length === cutAfter) throw new Error('cut off here');
    events.push(event);
  };
  let cut = false;
  await train(aJob, parts, emit, new AbortController().signal).catch((error: unknown) => {
    if ((error as Error).message !== 'cut off here') throw error;
    cut = true;
  });
  return { events, table: tableOf(weights), cut };
}

/** What an event says, without ids, times and speeds. */
function contents(event: TrainerEvent): unknown {
  if (event.type === 'rollouts') {
    return {
      step: event.step,
      steps: event.steps.map(({ tokens, logprobs, kind }) => [kind, tokens, logprobs]),
      rewards: event.trajectories.map(({ reward, taskId }) => [taskId, reward]),
    };
  }
  if (event.type === 'step') {
    const values = Object.entries(event.values).filter(([key]) => !/_ms$|_per_s$/.test(key));
    return { step: event.step, values: Object.fromEntries(values), counts: event.counts };
  }
  return event.type === 'candidate' ? event.gate : event;
}

/** Events by step, where those of a step that was done again take the place of the first ones. */
function merged(lives: readonly TrainerEvent[][]): Map<string, unknown[]> {
  const result = new Map<string, unknown[]>();
  for (const events of lives) {
    const own = new Map<string, unknown[]>();
    for (const event of events) {
      if (event.type === 'started' || event.type === 'resumed') continue;
      const key = 'step' in event ? `step ${event.step}` : event.type;
      own.set(key, [...(own.get(key) ?? []), contents(event)]);
    }
    for (const [key, list] of own) result.set(key, list);
  }
  return result;
}

describe('a run that is cut off', () => {
  it('ends like one that was not, wherever it was cut', async () => {
    const whole = await live(job(EVERYTHING));
    expect(whole.table).not.toEqual(tableOf(setting.freshWeights()));
    const figures = whole.events.flatMap((event) => (event.type === 'step' ? [event.values] : []));
    // Everything that is on has something to do.
    expect(figures.some((values) => (values['groups_replaced'] ?? 0) > 0)).toBe(true);
    expect(figures.some((values) => (values['clip_share'] ?? 0) > 0)).toBe(true);

    const random = new Prng(11);
    for (let trial = 0; trial < 2; trial++) {
      const cutJob = job(EVERYTHING, { checkpointDirectory: join(out, `checkpoints-${trial}`) });
      const lives: TrainerEvent[][] = [];
      let resumes = 0;
      for (let attempt = 0; attempt < 40; attempt++) {
        // Later attempts live longer, so that each trial comes to its end.
        const { events, table, cut } = await live(cutJob, 1 + random.below(12 + 4 * attempt));
        lives.push(events);
        const resumed = events.find((event) => event.type === 'resumed');
        if (resumed?.type === 'resumed') {
          expect(resumed.refused).toEqual([]);
          if (resumed.step > 0) resumes++;
        }
        if (cut) continue;
        expect(table).toEqual(whole.table);
        break;
      }
      expect(resumes).toBeGreaterThan(0);
      expect(merged(lives)).toEqual(merged([whole.events]));
    }
  }, 300_000);

  it('goes on where it was, and says so', async () => {
    const settings = { ...EVERYTHING, checkpointEvery: 3 };
    const cutJob = job(settings, { checkpointDirectory: join(out, 'says') });
    const first = await live(cutJob, 30);
    expect(first.cut).toBe(true);
    const done = first.events.flatMap((event) => (event.type === 'step' ? [event.step] : []));
    expect(done.at(-1)).toBeGreaterThanOrEqual(3);
    const second = await live(cutJob);
    expect(second.events.slice(0, 2)).toMatchObject([
      { type: 'started' },
      { type: 'resumed', step: 3, savedAt: expect.any(Number), refused: [] },
    ]);
    const steps = second.events.flatMap((event) => (event.type === 'step' ? [event.step] : []));
    expect(steps).toEqual([4, 5, 6, 7]);
    // After the end nothing is left to do but to judge and to write.
    rmSync(cutJob.candidateDirectory, { recursive: true });
    const third = await live(cutJob);
    expect(third.events.map(({ type }) => type)).toEqual(['started', 'resumed', 'candidate']);
    expect(contents(third.events.at(-1)!)).toEqual(contents(second.events.at(-1)!));
  });

  it('does not go on with another job, and says why it starts over', async () => {
    const checkpointDirectory = join(out, 'other');
    await live(job(EVERYTHING, { checkpointDirectory }), 25);
    const { events } = await live(job(EVERYTHING, { checkpointDirectory, seed: 8 }), 3);
    expect(events[1]).toMatchObject({
      type: 'resumed',
      step: 0,
      refused: [expect.stringContaining('seed differ'), expect.stringContaining('seed differ')],
    });
    const settings = { ...EVERYTHING, learningRate: 0.1 };
    const other = await live(job(settings, { checkpointDirectory }), 3);
    expect(other.events[1]).toMatchObject({ step: 0 });
  });

  it('keeps to an early stop that it had decided on', async () => {
    const settings = { ...EVERYTHING, stopWindow: 1, stopPatience: 2, learningRate: 1e-6 };
    const stopJob = job(settings, { steps: 30, checkpointDirectory: join(out, 'stopped') });
    const first = await live(stopJob);
    const stopped = first.events.find((event) => event.type === 'stopped');
    expect(stopped?.type === 'stopped' && stopped.step).toBeLessThan(30);
    rmSync(stopJob.candidateDirectory, { recursive: true });
    const again = await live(stopJob);
    expect(again.events.map(({ type }) => type)).toEqual([
      'started',
      'resumed',
      'stopped',
      'candidate',
    ]);
    expect(again.events[2]).toEqual(stopped);
  });

  it('fails when a checkpoint cannot be written', async () => {
    const checkpointDirectory = join(out, 'a-file');
    writeFileSync(checkpointDirectory, 'in the way');
    await expect(live(job(EVERYTHING, { checkpointDirectory }))).rejects.toMatchObject({
      code: 'storage_failed',
    });
  });
});
