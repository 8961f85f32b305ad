/**
 * Group rollouts on a table-driven policy, for every branch rule and several seeds: groups are
 * filled exactly, shared prefixes are shared, counts add up, nothing depends on timing or on other
 * groups, and everything is closed in the end. What single rules do is in the tests of their
 * growth.
 */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import { FunctionTools, tableWith } from '../../test/support/table-policy.ts';
import { groupAdvantages } from './advantage.ts';
import { forestSteps, type RolloutGroup } from './rollout.ts';
import { parseSettings } from './settings.ts';
import {
  jittered,
  policySteps as policyOf,
  roll,
  shapeOf,
  sum,
  TASKS,
} from './testing/table-rollouts.ts';
import { trainRows } from './train-rows.ts';
import type { StepRecord } from '../records.ts';

const policy = (steps: readonly StepRecord[]) => steps.filter((step) => step.kind === 'policy');

/** Every rule, with more than one sibling a branch too, and with a policy that is unsure. */
const RULES: [string, Record<string, unknown>][] = [
  ['none', { branch: 'none' }],
  ['paper', { branch: 'paper' }],
  ['paper, two siblings', { branch: 'paper', beamSize: 3, initialRollouts: 4 }],
  ['paper, threshold', { branch: 'paper', branchThreshold: 0.5, initialRollouts: 3 }],
  ['random', { branch: 'random', initialRollouts: 3 }],
  ['surprisal', { branch: 'surprisal', entropy: 'max' }],
  ['released-code', { branch: 'released-code', initialRollouts: 5 }],
  ['released-code, three siblings', { branch: 'released-code', beamSize: 4 }],
  ['released-code and its entropy', { branch: 'released-code', entropy: 'released-code' }],
  ['aepo', { branch: 'aepo', beamSize: 3 }],
  ['deferred by entropy', { branch: 'deferred', waves: 2, initialRollouts: 4 }],
  ['deferred by value', { branch: 'deferred', forkBy: 'value', beamSize: 3 }],
  ['uniform', { branch: 'uniform', initialRollouts: 4, forksPerPoint: 1 }],
];

describe.each(RULES)('%s', (name, settings) => {
  const seeds = [1, 2, 3];

  it.each(seeds)(
    'fills groups exactly; the counts are those of the forest: seed %i',
    async (seed) => {
      const { groups, sampler, tools } = await roll({ seed, settings });
      expect(groups.map(({ task }) => task.id)).toEqual(TASKS.map(({ id }) => id));
      for (const group of groups) {
        const { trajectories, counts } = group;
        expect(trajectories.map(({ index }) => index)).toEqual([...Array(16).keys()]);
        expect(counts.rootRollouts + counts.branches).toBe(16);
        const unique = forestSteps(group);
        const ran = counts.toolCallsExecuted + counts.toolCallsCached;
        expect(ran).toBe(unique.filter(({ kind }) => kind === 'tool').length);
        expect(counts.tokensSampled).toBe(sum(policy(unique).map(({ tokens }) => tokens.length)));
        const flatCalls = sum(trajectories.map(({ record }) => record.toolCalls));
        expect(ran + counts.toolCallsSaved).toBe(flatCalls);
        const flatTokens = sum(trajectories.map(({ record }) => record.sampledTokens));
        expect(counts.tokensSampled + counts.tokensShared).toBe(flatTokens);
        expect(sum(group.decisions.map(({ siblings }) => siblings))).toBe(counts.branches);
        expect(new Set(group.decisions.map(({ rule }) => rule)).size).toBeLessThanOrEqual(1);
      }
      const branches = sum(groups.map(({ counts }) => counts.branches));
      if (name === 'none') expect(branches).toBe(0);
      else expect(branches).toBeGreaterThan(0);
      expect(tools.calls).toHaveLength(sum(groups.map(({ counts }) => counts.toolCallsExecuted)));
      expect(sampler.sampledTokens).toBe(sum(groups.map(({ counts }) => counts.tokensSampled)));
      expect(sampler.openSequences).toBe(0);
      expect(sampler.openSequencesMax).toBeLessThanOrEqual(3 * 17);
    },
  );

  it.each(seeds)(
    'branches share what lies before them, and nothing else: seed %i',
    async (seed) => {
      const { groups, sampler } = await roll({ seed, settings });
      let given = 0;
      for (const group of groups) {
        const byId = new Map(forestSteps(group).map((step) => [step.id, step]));
        given += sum(
          [...byId.values()].map(({ kind, tokens }) => (kind === 'policy' ? 0 : tokens.length)),
        );
        expect([...byId.values()].filter(({ parentId }) => parentId === null)).toHaveLength(1);
        for (const { steps, record, branch, root, index } of group.trajectories) {
          const climbed: string[] = [];
          let at: string | null = record.leafStepId;
          while (at !== null) {
            climbed.unshift(at);
            at = byId.get(at)?.parentId ?? null;
          }
          expect(climbed).toEqual(steps.map(({ id }) => id));
          expect(record).toMatchObject({
            groupId: group.id,
            trainingRunId: 'trn_1',
            source: 'rollout',
          });
          expect(record.branchedFromStepId).toBe(branch?.stepId ?? null);
          const own = policy(steps);
          // H_init is that of the whole path, so a branch has its parent's.
          for (const { stepEntropy, deltaEntropy } of own) {
            expect(deltaEntropy).toBeCloseTo((stepEntropy ?? 0) - (own[0]?.stepEntropy ?? 0), 12);
          }
          if (branch === null) {
            expect(root).toBe(index);
            continue;
          }
          const parent = group.trajectories[branch.parent];
          expect(branch.parent).toBeLessThan(index);
          expect(byId.get(branch.stepId)?.kind).toBe('tool');
          expect(root).toBe(parent?.root);
          // Same records, not copies, up to the branch; different steps after it.
          steps.forEach((step, i) => {
            expect(step === parent?.steps[i]).toBe(i <= branch.stepIndex);
          });
        }
      }
      // One prompt a group and each result once: no fork was given its prefix again.
      expect(sampler.appendedTokens).toBe(given);
      expect(sampler.openCalls).toBe(groups.length);
    },
  );

  it.each(seeds)('every draw has its own key: seed %i', async (seed) => {
    const { groups } = await roll({ seed, settings });
    const steps = groups.flatMap(policyOf);
    expect(new Set(steps.map(({ sampling }) => sampling?.seed)).size).toBe(steps.length);
  });

  it.each(seeds)('is the same whatever the timing, and differs by seed: %i', async (seed) => {
    const straight = (await roll({ seed, settings })).groups.map(shapeOf);
    for (const timing of [1, 2]) {
      const late = await roll({ seed, settings, ...jittered(timing) });
      expect(late.groups.map(shapeOf)).toEqual(straight);
    }
    const plain = await roll({ seed, settings: { ...settings, cassette: false }, ...jittered(4) });
    expect(plain.groups.map(shapeOf)).toEqual(straight);
    const alone = await roll({ seed, settings, tasks: TASKS.slice(0, 1), ...jittered(5) });
    expect(alone.groups.map(shapeOf)).toEqual(straight.slice(0, 1));
    expect((await roll({ seed: seed + 100, settings })).groups.map(shapeOf)).not.toEqual(straight);
  });
});

it('a group without tool calls is filled by fresh roots under every rule', async () => {
  const table = tableWith({ '</think>': { '<answer>': 1 } });
  for (const [, settings] of RULES) {
    const { groups } = await roll({ settings, sampler: { table } });
    for (const { counts, trajectories, decisions } of groups) {
      expect(counts).toMatchObject({ rootRollouts: 16, branches: 0, toolCallsExecuted: 0 });
      expect(new Set(trajectories.map(({ reward }) => reward))).toEqual(new Set([0, 1]));
      expect(decisions).toEqual([]);
    }
  }
});

describe.each([1, 2, 3, 4, 5, 6, 7, 8])('rows of training, seed %i', (seed) => {
  it('trains on sampled tokens only, at the probabilities that were recorded', async () => {
    const { groups } = await roll({ seed, settings: { maxTokens: 17 } });
    for (const group of groups) {
      const rewards = group.trajectories.map(({ reward }) => reward);
      const advantages = groupAdvantages(rewards);
      const rows = trainRows(group, parseSettings('arpo', { maxTokens: 17 }));
      group.trajectories.forEach(({ steps, record }, i) => {
        const row = rows[i] as (typeof rows)[number];
        expect([...row.tokens]).toEqual(steps.flatMap(({ tokens }) => [...tokens]));
        const kinds = steps.flatMap(({ kind, tokens }) => [...tokens].map(() => kind));
        kinds.forEach((kind, t) => expect(row.weights[t]).toBe(kind === 'policy' ? 1 : 0));
        const logprobs = steps.flatMap(({ logprobs: logp, tokens }) => [
          ...(logp ?? new Float32Array(tokens.length)),
        ]);
        expect([...row.oldLogprobs]).toEqual(logprobs);
        kinds.forEach((kind, t) => {
          const expected = kind === 'policy' ? Math.fround(advantages[i] as number) : 0;
          expect(row.advantages[t]).toBe(expected);
        });
        expect(sum([...row.weights])).toBe(record.sampledTokens);
        expect(record.sampledTokens).toBeLessThanOrEqual(17);
      });
    }
  });
});

describe('odd endings', () => {
  it('malformed calls are -1, run nothing, and are logged as stop', async () => {
    const table = tableWith({ '<search>|a': { '</lookup>': 1 }, '<search>|b': { '</lookup>': 1 } });
    const { groups } = await roll({ sampler: { table } });
    const all = groups.flatMap(({ trajectories }) => trajectories);
    const broken = all.filter(({ record }) => record.endReason === 'stop');
    expect(broken.length).toBeGreaterThan(0);
    for (const { reward, record, formatError } of broken) {
      expect(reward).toBe(-1);
      expect(formatError).toContain('tags');
      expect(record).toMatchObject({ formatOk: false, status: 'completed', reward: -1 });
    }
  });

  it('failing tools end nothing, earn no bonus, and their code is in the log', async () => {
    const tools = new FunctionTools({
      search: {
        run: () => {
          throw new AppError('tool_failed', 'down');
        },
      },
      lookup: { run: (query) => `entry ${query}` },
    });
    const { groups } = await roll({ tools });
    const calls = groups.flatMap((group) => forestSteps(group)).flatMap((s) => s.toolCall ?? []);
    const failed = calls.filter(({ name }) => name === 'search');
    expect(failed.length).toBeGreaterThan(0);
    for (const { error, result } of failed) {
      expect([error, result]).toEqual(['tool_failed', 'error: down']);
    }
    for (const { trajectories } of groups) {
      for (const { reward } of trajectories) expect([-1, 0, 1]).toContain(reward);
    }
  });

  it('two tools that worked earn the bonus', async () => {
    const { groups } = await roll();
    const all = groups.flatMap(({ trajectories }) => trajectories);
    for (const { steps, reward, correct } of all) {
      const used = new Set(steps.flatMap(({ toolCall }) => toolCall?.name ?? []));
      if (correct) expect(reward).toBeCloseTo(used.size >= 2 ? 1.1 : 1, 12);
    }
    expect(all.some(({ reward }) => reward > 1)).toBe(true);
  });

  it('limits cut trajectories without inventing a token', async () => {
    const settings = { maxTokens: 9 };
    const { groups } = await roll({
      settings,
      sampler: { table: tableWith({}), contextTokens: 60 },
    });
    const cut = groups
      .flatMap(({ trajectories }) => trajectories)
      .filter(({ record }) => record.endReason === 'max_tokens');
    expect(cut.length).toBeGreaterThan(0);
    for (const { steps, record, reward } of cut) {
      expect(sum(policy(steps).map(({ tokens }) => tokens.length))).toBe(9);
      expect(record.answer).toBeNull();
      expect(reward).toBe(-1);
    }
  });

  it('refuses tools with effects or without a name here, before any work', async () => {
    const tools = new FunctionTools({
      search: { run: () => 'x' },
      lookup: { run: () => 'x', effects: 'writes' },
    });
    const { error, sampler } = await roll({ tools });
    expect(error).toMatchObject({ code: 'invalid_request' });
    expect((error as AppError).message).toContain("'lookup'");
    const missing = await roll({ tools: new FunctionTools({ search: { run: () => 'x' } }) });
    expect(missing.error).toMatchObject({ code: 'unknown_tool' });
    expect(sampler.sampleCalls).toBe(0);
  });

  it('temperature: off-policy draws get truncated importance weights', async () => {
    const { groups } = await roll({ settings: { temperature: 0.7 } });
    const group = groups[0] as RolloutGroup;
    const rows = trainRows(group, parseSettings('arpo', { temperature: 0.7 }));
    const weights = new Set<number>();
    group.trajectories.forEach(({ steps }, i) => {
      let start = 0;
      for (const { kind, tokens, logprobs, behaviourLogprobs } of steps) {
        tokens.forEach((_, t) => {
          const weight = rows[i]?.weights[start + t] as number;
          if (kind !== 'policy') return expect(weight).toBe(0);
          const gap = (logprobs?.[t] as number) - (behaviourLogprobs?.[t] as number);
          expect(weight).toBeCloseTo(Math.min(2, Math.exp(gap)), 5);
          weights.add(weight);
        });
        start += tokens.length;
      }
    });
    expect(weights.size).toBeGreaterThan(2);
  });
});

describe('ends of the work', () => {
  it('a cancelled step throws and closes everything', async () => {
    const controller = new AbortController();
    const tools = new FunctionTools({
      search: {
        run: (query) => {
          controller.abort();
          return query;
        },
      },
      lookup: { run: (query) => query },
    });
    const { error, sampler } = await roll({ tools, signal: controller.signal });
    expect(error).toMatchObject({ code: 'request_cancelled' });
    expect(sampler.openSequences).toBe(0);
    const before = await roll({ signal: AbortSignal.abort() });
    expect(before.error).toMatchObject({ code: 'request_cancelled' });
    expect(before.sampler.sampleCalls).toBe(0);
  });

  it('an engine failure is thrown as it is, and closes everything', async () => {
    const error = new AppError('engine_unavailable', 'gone');
    for (const call of [0, 5, 60]) {
      for (const [, settings] of RULES) {
        const failed = await roll({ settings, sampler: { failAt: { call, error } } });
        expect(failed.error).toBe(error);
        expect(failed.sampler.openSequences).toBe(0);
      }
    }
  });
});
