/** Figures of a training step against counts made by hand over real rollouts. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RolloutGroup } from '../arpo/rollout.ts';
import { rolloutGroups } from '../arpo/rollout.ts';
import { parseSettings } from '../arpo/settings.ts';
import { countGroups, rolloutFigures } from './figures.ts';
import { createBigramSampler } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';

let setting: ColourSetting;
let groups: RolloutGroup[];
beforeAll(async () => {
  setting = createColourSetting();
  groups = await rolloutGroups({
    sampler: createBigramSampler(setting.config, setting.freshWeights()),
    context: setting.context,
    tasks: colourTasks('red', 6),
    settings: parseSettings('arpo', { groupSize: 8, maxTokens: 40 }),
    seed: 3,
    runId: null,
    version: 1,
    source: 'rollout',
  });
});
afterAll(() => setting.remove());

it('counts rollouts, branches, tool calls and tokens', () => {
  const counts = countGroups(groups);
  const trajectories = groups.flatMap((group) => group.trajectories);
  const branches = trajectories.filter((trajectory) => trajectory.branch !== null);
  expect(counts.rollouts).toBe(48);
  expect(counts.branches).toBe(branches.length);
  expect(counts.branches).toBeGreaterThan(0);
  // A branch of this task starts right after the one search, which it does not repeat.
  expect(counts.toolCallsSaved).toBe(branches.length);
  const calls = trajectories.reduce((sum, { record }) => sum + record.toolCalls, 0);
  const cached = rolloutFigures(groups)['tool_calls_cached'] ?? 0;
  expect(cached).toBeGreaterThan(0);
  expect(counts.toolCallsExecuted + cached + counts.toolCallsSaved).toBe(calls);
  const unique = new Map(trajectories.flatMap(({ steps }) => steps.map((step) => [step.id, step])));
  const sampled = [...unique.values()].reduce((sum, step) => sum + (step.logprobs?.length ?? 0), 0);
  expect(counts.tokensSampled).toBe(sampled);
  const figures = rolloutFigures(groups);
  expect(figures['root_rollouts']).toBe(48 - branches.length);
  const all = trajectories.reduce((sum, { record }) => sum + record.sampledTokens, 0);
  expect(figures['tokens_shared']).toBe(all - sampled);
});

it('averages rewards over all, and by family', () => {
  const figures = rolloutFigures(groups);
  const rewards = (family?: string): number[] =>
    groups
      .filter((group) => family === undefined || group.task.family === family)
      .flatMap((group) => group.trajectories.map(({ reward }) => reward));
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  expect(figures['reward_mean']).toBeCloseTo(mean(rewards()), 12);
  expect(figures['reward_mean.sky']).toBeCloseTo(mean(rewards('sky')), 12);
  expect(figures['reward_mean.sea']).toBeCloseTo(mean(rewards('sea')), 12);
  expect(figures['accuracy']).toBeCloseTo(mean(rewards().map((r) => Number(r >= 1))), 12);
  expect(figures['format_error_share']).toBeCloseTo(mean(rewards().map((r) => Number(r < 0))), 12);
});

it('measures the entropy jump after results, by tool, and dH where branches opened', () => {
  const figures = rolloutFigures(groups);
  // After the result the policy first writes <answer>, which is certain, then the colour; the first
  // step was a fair choice between two tags.
  const after = groups.flatMap((group) =>
    group.trajectories.flatMap(({ steps, branch }) =>
      steps.filter((step, i) => steps[i - 1]?.kind === 'tool' && i > (branch?.stepIndex ?? 0)),
    ),
  );
  const unique = [...new Map(after.map((step) => [step.id, step.deltaEntropy ?? 0])).values()];
  const mean = unique.reduce((a, b) => a + b, 0) / unique.length;
  expect(figures['entropy_jump']).toBeCloseTo(mean, 12);
  expect(figures['entropy_jump.search']).toBeCloseTo(mean, 12);
  const opened = groups.flatMap(({ decisions }) => decisions.filter((d) => d.siblings > 0));
  const dH = opened.reduce((sum, decision) => sum + decision.deltaEntropy, 0) / opened.length;
  expect(figures['branch_delta_entropy_mean']).toBeCloseTo(dH, 12);
});

it('leaves out figures over nothing', () => {
  expect(rolloutFigures([])).toEqual({
    rollouts: 0,
    root_rollouts: 0,
    branches: 0,
    tool_calls_executed: 0,
    tool_calls_saved: 0,
    tool_calls_cached: 0,
    tokens_sampled: 0,
    tokens_shared: 0,
  });
});
