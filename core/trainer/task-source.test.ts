/** Which tasks a step gets, which of their groups are replaced, and that a restart goes on so. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isZeroVariance } from '../arpo/advantage.ts';
import type { RolloutGroup } from '../arpo/rollout.ts';
import { parseSettings } from '../arpo/settings.ts';
import type { Task } from '../records.ts';
import { createBigramSampler, createBigramSession } from './testing/bigram-policy.ts';
import { colourTasks, createColourSetting, type ColourSetting } from './testing/colour-task.ts';
import { testJob } from './testing/test-job.ts';
import { TaskSource } from './task-source.ts';

let setting: ColourSetting;
beforeAll(() => void (setting = createColourSetting()));
afterAll(() => setting.remove());

const { signal } = new AbortController();
const DYNAMIC = { dynamicSampling: true, maxResample: 3, groupSize: 2 };

function source(
  overrides: Record<string, unknown> = {},
  { seed = 1, trainTasks = colourTasks('red', 12) }: { seed?: number; trainTasks?: Task[] } = {},
): TaskSource {
  const weights = setting.freshWeights();
  return new TaskSource({
    job: { ...testJob({}, setting.directory), seed, trainTasks },
    settings: parseSettings('grpo', {
      ...{ groupSize: 4, promptsPerStep: 4, maxTokens: 40 },
      ...overrides,
    }),
    sampler: createBigramSampler(setting.config, weights),
    session: createBigramSession(setting.config, weights),
    context: setting.context,
  });
}

/** Steps of a source, from `first` on. */
async function steps(from: TaskSource, count: number, first = 1) {
  const all: Awaited<ReturnType<TaskSource['groups']>>[] = [];
  for (let step = first; step < first + count; step++) all.push(await from.groups(step, signal));
  return all;
}

const dull = ({ trajectories }: RolloutGroup): boolean =>
  isZeroVariance(trajectories.map(({ reward }) => reward));

/** What was asked and sampled, without ids and times. */
const contents = (list: Awaited<ReturnType<typeof steps>>) =>
  list.map(({ groups, figures }) => ({
    figures,
    groups: groups.map(({ task, trajectories }) => [
      task.id,
      ...trajectories.map((one) => one.steps.flatMap(({ tokens }) => [...tokens]).join()),
    ]),
  }));

const idsOf = (list: Awaited<ReturnType<typeof steps>>): string[] =>
  list.flatMap(({ groups }) => groups.map(({ task }) => task.id));

describe('tasks of a step', () => {
  it('are as many as asked for, balanced over families, each again only after all others', async () => {
    const list = await steps(source(), 3);
    for (const { groups, figures } of list) {
      expect(groups.map(({ task }) => task.family).sort()).toEqual(['sea', 'sea', 'sky', 'sky']);
      for (const { trajectories } of groups) expect(trajectories.length).toBe(4);
      expect(figures).toEqual({});
    }
    expect(new Set(idsOf(list)).size).toBe(12);
  });

  it('and their rollouts are those of the seed and the step', async () => {
    const once = contents(await steps(source(), 2));
    expect(contents(await steps(source(), 2))).toEqual(once);
    expect(contents(await steps(source({}, { seed: 2 }), 2))).not.toEqual(once);
    // The same task at another step is sampled anew.
    const [only] = colourTasks('red', 1) as [Task];
    const [first, second] = contents(await steps(source({}, { trainTasks: [only] }), 2));
    expect(second!.groups).not.toEqual(first!.groups);
  });

  it('cannot be drawn from none', () => {
    const none = { trainTasks: [] };
    for (const curriculum of ['off', 'solved-share']) {
      expect(() => source({ curriculum }, none)).toThrowError(
        expect.objectContaining({ code: 'invalid_request' }),
      );
    }
  });
});

describe('dynamic sampling', () => {
  it('replaces what teaches nothing until all slots are filled or its draws are used up', async () => {
    const list = await steps(source(DYNAMIC), 12);
    let [filled, usedUp] = [0, 0];
    for (const { groups, figures } of list) {
      const replaced = figures['groups_replaced'] as number;
      // Dull ones are handed on too: the log and the counts have them all.
      expect(groups.length).toBe(4 + replaced);
      const useful = groups.filter((group) => !dull(group)).length;
      expect(useful).toBeLessThanOrEqual(4);
      expect(replaced).toBeLessThanOrEqual(3);
      expect(useful === 4 || replaced === 3).toBe(true);
      filled += Number(useful === 4);
      usedUp += Number(replaced === 3);
    }
    expect(filled).toBeGreaterThan(0);
    expect(usedUp).toBeGreaterThan(0);
  });

  it('draws other tasks, leaves the first round as it is and lies within it', async () => {
    const [plain] = await steps(source({ groupSize: 2 }), 1);
    const [more] = await steps(source(DYNAMIC), 1);
    expect(more!.groups.length).toBeGreaterThan(4);
    const first = new Set(idsOf([plain!]));
    const isFirst = idsOf([more!]).map((id) => first.has(id));
    const groups = contents([more!])[0]!.groups;
    expect(groups.filter((_, i) => isFirst[i])).toEqual(contents([plain!])[0]!.groups);
    expect(isFirst.indexOf(false)).toBeLessThan(isFirst.lastIndexOf(true));
    expect(new Set(idsOf([more!])).size).toBe(more!.groups.length);
  });
});

it('replacements of one task are sampled anew, round by round and step by step', async () => {
  // Nothing is ever right, so every round is replaced by another one.
  const trainTasks = colourTasks('black', 1);
  const settings = { ...DYNAMIC, groupSize: 8, promptsPerStep: 1 };
  const groups = contents(await steps(source(settings, { trainTasks }), 2)).flatMap(
    (one) => one.groups,
  );
  expect(groups.length).toBe(2 * (1 + 3));
  expect(new Set(groups.map((group) => group.join())).size).toBe(groups.length);
});

describe('a curriculum', () => {
  it('draws a family that is never solved less than one that is sometimes', async () => {
    const trainTasks = colourTasks('red', 12).map((task) =>
      task.family === 'sea' ? { ...task, truths: ['black'] } : task,
    );
    const settings = { curriculum: 'solved-share', groupSize: 8 };
    const families = (await steps(source(settings, { trainTasks }), 12)).flatMap(({ groups }) =>
      groups.map(({ task }) => task.family),
    );
    const unsolved = (list: string[]) => list.filter((family) => family === 'sea').length;
    // Half at first; then by 0.05 against p (1 - p) + 0.05 of a guess among four colours.
    expect(unsolved(families.slice(8))).toBeLessThan(0.35 * families.slice(8).length);
    expect(unsolved(families)).toBeGreaterThan(0);
  });
});

describe.each([
  ['a deck', {}],
  ['replacements', DYNAMIC],
  ['a curriculum', { curriculum: 'solved-share' }],
  ['both', { ...DYNAMIC, curriculum: 'solved-share' }],
])('a source with %s', (_name, settings) => {
  it('goes on after a restart as if nothing had happened', async () => {
    const whole = await steps(source(settings), 5);
    const first = source(settings);
    await steps(first, 3);
    const state = JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>;
    const second = source(settings);
    second.restore(state);
    expect(contents(await steps(second, 2, 4))).toEqual(contents(whole.slice(3)));
    // Without what was remembered it goes on otherwise.
    expect(contents(await steps(source(settings), 2, 4))).not.toEqual(contents(whole.slice(3)));
  });
});
