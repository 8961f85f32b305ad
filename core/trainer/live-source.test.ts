/**
 * Whole runs on live conversations alone, with the tiny colour policy: ratings make it better, the
 * gate compares on questions that were never trained on, and inverted ratings do not pass it.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must } from '../assert.ts';
import { formatSafetensors } from '../model/safetensors.ts';
import type { LiveSample, TrajectoryRecord } from '../records.ts';
import { settingsOf } from './job-settings.ts';
import { questionsOf } from './live-source.ts';
import { createBigramSampler, createBigramSession, tableOf } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';
import { loggedAnswers, numberedTasks } from './testing/logged-answers.ts';
import { train } from './train.ts';
import type { TrainerEvent, TrainingJob } from './types.ts';

let setting: ColourSetting;
let out: string;
let made = 0;
beforeAll(() => {
  setting = createColourSetting();
  out = mkdtempSync(join(tmpdir(), 'ramify-live-'));
});
afterAll(() => {
  setting.remove();
  rmSync(out, { recursive: true });
});

/** Conversations on the first policy, rated by a client who knows that everything is red. */
function conversations(count: number, rate?: (correct: boolean, index: number) => number) {
  return loggedAnswers({
    sampler: createBigramSampler(setting.config, setting.freshWeights()),
    context: setting.context,
    tasks: numberedTasks(colourTasks('red', count)),
    seed: 3,
    ...(rate && { rate }),
  });
}

function job(liveSamples: LiveSample[], change: Partial<TrainingJob> = {}): TrainingJob {
  return {
    runId: 'trn_live',
    algorithm: 'arpo',
    steps: 8,
    settings: {
      groupSize: 8,
      promptsPerStep: 4,
      learningRate: 0.3,
      warmupSteps: 2,
      maxTokens: 40,
    },
    seed: 7,
    baseVersion: 1,
    baseDirectory: setting.directory,
    candidateDirectory: join(out, `candidate-${made++}`),
    trainTasks: [],
    gateTasks: [],
    liveSamples,
    threads: 1,
    ...change,
  };
}

async function run(aJob: TrainingJob) {
  const weights = setting.freshWeights();
  const sampler = Object.assign(createBigramSampler(setting.config, weights), {
    reload: async () => undefined,
  });
  const { context } = setting;
  const events: TrainerEvent[] = [];
  await train(
    aJob,
    {
      sampler,
      session: createBigramSession(setting.config, weights),
      context,
      clock: context.clock,
      writeWeights: async (directory) =>
        writeFileSync(join(directory, 'model.safetensors'), formatSafetensors(weights)),
    },
    async (event) => void events.push(event),
    new AbortController().signal,
  );
  const last = events.at(-1);
  return { events, weights, gate: must(last?.type === 'candidate' ? last.gate : null, 'a gate') };
}

const steps = (events: readonly TrainerEvent[]) =>
  events.flatMap((event) => (event.type === 'step' ? [event] : []));

describe('a run on live conversations alone', () => {
  it('gets better by ratings, and is compared on questions that it never saw', async () => {
    const samples = await conversations(600);
    const aJob = job(samples);
    const { events, gate } = await run(aJob);
    const figures = steps(events).map(({ values }) => values);
    expect(figures[0]).toMatchObject({ live_groups: 4, live_trajectories: 4 });
    expect(figures[0]?.['accuracy']).toBeLessThan(0.6);
    expect(figures.at(-1)?.['accuracy']).toBeGreaterThan(0.9);
    expect(figures[0]?.['importance_weight_max']).toBeLessThanOrEqual(2);

    expect(gate.passed).toBe(true);
    expect(gate.candidate['live']?.accuracy).toBeGreaterThan(0.9);
    const questions = questionsOf(aJob, settingsOf(aJob), setting.context.tools);
    expect(gate.tasks).toBe(questions.heldOut.length);
    // As many answers as gateTasks, by several samples of each question.
    expect(gate.samples).toBe(Math.ceil(120 / gate.tasks));
    const heldOut = new Set(questions.heldOut.map(({ task }) => task.id));
    const trained = new Set<TrajectoryRecord['taskId']>();
    for (const event of events) {
      if (event.type !== 'rollouts') continue;
      for (const { taskId } of event.trajectories) trained.add(taskId);
    }
    expect(trained.size).toBeGreaterThan(10);
    for (const id of trained) expect(heldOut.has(id ?? '')).toBe(false);
  });

  it('writes no logged conversation again', async () => {
    const samples = await conversations(40);
    const { events } = await run(job(samples, { steps: 2 }));
    const logged = new Set(
      samples.flatMap(({ trajectory, steps: path }) => [
        trajectory.id,
        ...path.map(({ id }) => id),
      ]),
    );
    let rollouts = 0;
    for (const event of events) {
      if (event.type !== 'rollouts') continue;
      for (const { id, source, reward } of event.trajectories) {
        expect(logged.has(id)).toBe(false);
        expect(source).toBe('rollout');
        expect(reward).not.toBeNull();
        rollouts++;
      }
      const here = new Set(event.steps.map(({ id }) => id));
      for (const { id, parentId } of event.steps) {
        expect(logged.has(id)).toBe(false);
        expect(parentId === null || here.has(parentId) || logged.has(parentId)).toBe(true);
      }
    }
    expect(rollouts).toBe(2 * 4 * 7);
  });

  it('does not pass the gate on inverted ratings, when trusted tasks are held out', async () => {
    const inverted = await conversations(80, (correct) => 1 - Number(correct));
    const gateTasks = colourTasks('red', 60).map((task) => ({ ...task, split: 'gate' as const }));
    const { gate } = await run(job(inverted, { gateTasks }));
    expect(gate.passed).toBe(false);
    expect(gate.tasks).toBe(60);
    expect(gate.candidate['all']?.accuracy).toBeLessThan(gate.base['all']?.accuracy ?? 0);
  });

  it('refuses a bonus for tools, which ratings know nothing of', async () => {
    const samples = await conversations(4);
    const bonus = (change: Partial<TrainingJob>) =>
      job(samples, { ...change, settings: { multiToolBonus: 0.2 } });
    expect(() => settingsOf(bonus({}))).toThrowError(
      expect.objectContaining({
        code: 'invalid_request',
        param: 'settings.multiToolBonus',
        message: expect.stringContaining("source 'live'"),
      }),
    );
    const both = settingsOf(bonus({ trainTasks: colourTasks('red', 2) }));
    expect(both.multiToolBonus).toBe(0.2);
  });

  it('says what is missing when nothing is liked', async () => {
    const disliked = await conversations(10, () => -1);
    await expect(run(job(disliked))).rejects.toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining('conversations left out: no_liked_answer 10'),
    });
  });
});

describe('a run on tasks and conversations', () => {
  it('takes half of its prompts from each, and compares on the tasks of the gate', async () => {
    const samples = await conversations(30);
    const gateTasks = colourTasks('red', 20);
    // Twenty tasks, and 120 answers are asked for.
    const answersOf20 = 6;
    const trainTasks = colourTasks('red', 20);
    const { events, gate } = await run(job(samples, { steps: 2, trainTasks, gateTasks }));
    const groups = events.flatMap((event) => (event.type === 'rollouts' ? [event] : []));
    const ofLive = groups.filter(({ trajectories }) =>
      trajectories[0]?.taskId?.startsWith('live_'),
    );
    expect([groups.length, ofLive.length]).toEqual([8, 4]);
    expect([gate.tasks, gate.samples]).toEqual([20, answersOf20]);
    expect(Object.keys(gate.base)).not.toContain('live');
  });

  it('is a run on tasks when no conversation is of use', async () => {
    const { events, weights } = await run(
      job([], { steps: 1, trainTasks: colourTasks('red', 20), gateTasks: colourTasks('red', 20) }),
    );
    expect(steps(events)[0]?.values).not.toHaveProperty('live_groups');
    expect(tableOf(weights)).not.toEqual(tableOf(setting.freshWeights()));
  });
});
