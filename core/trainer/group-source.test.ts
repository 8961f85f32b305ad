/** Which source a job gets, how two of them share a step, and what the log gets of a group. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createBigramSampler, createBigramSession } from './testing/bigram-policy.ts';
import { colourTasks, createColourSetting, type ColourSetting } from './testing/colour-task.ts';
import { loggedAnswers, numberedTasks } from './testing/logged-answers.ts';
import { testJob } from './testing/test-job.ts';
import type { LiveSample } from '../records.ts';
import { groupSource, logOf, type GroupSource } from './group-source.ts';
import { settingsOf } from './job-settings.ts';
import type { TrainingJob } from './types.ts';

let setting: ColourSetting;
let liked: LiveSample[];
let disliked: LiveSample[];
beforeAll(async () => {
  setting = createColourSetting();
  const conversations = (rate: () => number): Promise<LiveSample[]> =>
    loggedAnswers({
      sampler: createBigramSampler(setting.config, setting.freshWeights()),
      context: setting.context,
      tasks: numberedTasks(colourTasks('red', 12)),
      seed: 3,
      rate,
    });
  liked = await conversations(() => 1);
  disliked = await conversations(() => -1);
});
afterAll(() => setting.remove());

const { signal } = new AbortController();
const TASKS = colourTasks('red', 8);

function sourceOf(change: Partial<TrainingJob>, promptsPerStep = 4): GroupSource {
  const settings = { groupSize: 8, promptsPerStep, maxTokens: 40 };
  const job: TrainingJob = {
    ...testJob(settings, setting.directory),
    algorithm: 'arpo',
    // With tasks for the gate no question is held out.
    gateTasks: TASKS,
    ...change,
  };
  const weights = setting.freshWeights();
  return groupSource({
    job,
    settings: settingsOf(job),
    sampler: createBigramSampler(setting.config, weights),
    session: createBigramSession(setting.config, weights),
    context: setting.context,
  });
}

/** Groups of a step of tasks, and of questions. */
async function shares(source: GroupSource): Promise<[number, number]> {
  const { groups } = await source.groups(1, signal);
  const ofTasks = groups.filter(({ task }) => task.id.startsWith('task_')).length;
  return [ofTasks, groups.length - ofTasks];
}

describe('the source of a job', () => {
  it('is its tasks, its questions, or half of each, the larger half of questions', async () => {
    const both = { trainTasks: TASKS, liveSamples: liked };
    expect(await shares(sourceOf({ trainTasks: TASKS }))).toEqual([4, 0]);
    expect(await shares(sourceOf({ liveSamples: liked }))).toEqual([0, 4]);
    expect(await shares(sourceOf(both))).toEqual([2, 2]);
    expect(await shares(sourceOf(both, 5))).toEqual([2, 3]);
    // One prompt would be a question's alone.
    expect(() => sourceOf(both, 1)).toThrowError(
      expect.objectContaining({ param: 'settings.promptsPerStep' }),
    );
    expect(await shares(sourceOf({ liveSamples: liked }, 1))).toEqual([0, 1]);
    // Conversations of which none is of use are as good as none.
    expect(await shares(sourceOf({ trainTasks: TASKS, liveSamples: disliked }))).toEqual([4, 0]);
  });

  it('lays questions and tasks into one another, so that a mini-batch has both', async () => {
    const { groups } = await sourceOf({ trainTasks: TASKS, liveSamples: liked }, 5).groups(
      1,
      signal,
    );
    const kinds = groups.map(({ task }) => task.id.startsWith('task_'));
    expect(kinds).toEqual([false, true, false, true, false]);
  });

  it('is refused when there is nothing to train on, with why', () => {
    const nothing = { code: 'invalid_request' };
    expect(() => sourceOf({})).toThrowError(expect.objectContaining(nothing));
    expect(() => sourceOf({ liveSamples: disliked })).toThrowError(
      expect.objectContaining({
        ...nothing,
        message: expect.stringMatching(/nothing to train on.*left out: no_liked_answer 12$/),
      }),
    );
  });

  it('goes on after a restart, both halves of it', async () => {
    const both = { trainTasks: TASKS, liveSamples: liked };
    const whole = sourceOf(both);
    const asked: string[][] = [];
    for (let step = 1; step <= 4; step++) {
      const { groups } = await whole.groups(step, signal);
      asked.push(groups.map(({ task }) => task.id));
    }
    const first = sourceOf(both);
    for (let step = 1; step <= 2; step++) await first.groups(step, signal);
    const second = sourceOf(both);
    second.restore(JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>);
    const rest: string[][] = [];
    for (let step = 3; step <= 4; step++) {
      const { groups } = await second.groups(step, signal);
      rest.push(groups.map(({ task }) => task.id));
    }
    expect(rest).toEqual(asked.slice(2));
    expect(rest).not.toEqual(asked.slice(0, 2));
  });
});

describe('what the log gets', () => {
  it('is every step of a group of a task, once', async () => {
    const { groups } = await sourceOf({ trainTasks: TASKS }).groups(1, signal);
    for (const group of groups) {
      const { steps, trajectories } = logOf(group);
      const ids = steps.map(({ id }) => id);
      expect(new Set(ids).size).toBe(ids.length);
      const paths = group.trajectories.flatMap((one) => one.steps.map(({ id }) => id));
      expect(new Set(ids)).toEqual(new Set(paths));
      expect(paths.length).toBeGreaterThan(ids.length);
      expect(trajectories).toEqual(group.trajectories.map(({ record }) => record));
    }
  });

  it('is of a conversation only what was sampled here, on top of what it has', async () => {
    const { groups } = await sourceOf({ liveSamples: liked }).groups(1, signal);
    const stored = new Set(liked.flatMap(({ steps }) => steps.map(({ id }) => id)));
    let onStored = 0;
    for (const group of groups) {
      const { steps, trajectories } = logOf(group);
      const own = group.trajectories.filter(({ given }) => given !== true);
      expect(own.length).toBe(group.trajectories.length - 1);
      expect(trajectories).toEqual(own.map(({ record }) => record));
      const known = new Set(stored);
      for (const { id, parentId } of steps) {
        expect(stored.has(id)).toBe(false);
        // Parents come before children, those of the conversation are there already.
        expect(parentId === null || known.has(parentId)).toBe(true);
        onStored += Number(parentId !== null && stored.has(parentId));
        known.add(id);
      }
      for (const { steps: path } of own)
        for (const { id } of path) expect(known.has(id)).toBe(true);
    }
    expect(onStored).toBeGreaterThan(0);
  });
});
