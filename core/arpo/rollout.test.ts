/**
 * Group rollouts on a table-driven policy, for many seeds: groups are filled exactly, shared
 * prefixes are shared, counts add up, nothing depends on timing, and everything is closed in the
 * end.
 */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import {
  FunctionTools,
  TableSampler,
  echoTools,
  tableContext,
  tableWith,
  type TableSamplerOptions,
} from '../../test/support/table-policy.ts';
import { groupAdvantages } from './advantage.ts';
import { forestSteps, rolloutGroups, type RolloutGroup, type RolloutOptions } from './rollout.ts';
import { parseSettings } from './settings.ts';
import { trainRows } from './train-rows.ts';
import type { StepRecord, Task } from '../records.ts';

const TASKS = ['who?', 'where?', 'when?'].map((question, i): Task => ({
  id: `task_${i}`,
  family: 'letters',
  split: 'train',
  question,
  truths: ['a'],
  verifier: 'exact',
  tools: ['search', 'lookup'],
  metadata: {},
}));

interface Set {
  sampler?: TableSamplerOptions;
  tools?: FunctionTools;
  settings?: Record<string, unknown>;
  algorithm?: 'arpo' | 'grpo';
  seed?: number;
  tasks?: readonly Task[];
  signal?: AbortSignal;
}

async function roll(set: Set = {}) {
  const sampler = new TableSampler(set.sampler);
  const tools = set.tools ?? echoTools();
  const options: RolloutOptions = {
    sampler,
    context: tableContext(tools),
    tasks: set.tasks ?? TASKS,
    settings: parseSettings(set.algorithm ?? 'arpo', set.settings),
    seed: set.seed ?? 1,
    runId: 'trn_1',
    version: 2,
    source: 'rollout',
    ...(set.signal && { signal: set.signal }),
  };
  const settled = await rolloutGroups(options).then(
    (groups) => ({ groups, error: null }),
    (error: unknown) => ({ groups: [] as RolloutGroup[], error }),
  );
  return { ...settled, sampler, tools };
}

/** What a group is, without ids and times. */
const shape = (group: RolloutGroup) =>
  group.trajectories.map(({ steps, branch, root, reward, record }) => ({
    steps: steps.map(({ kind, text, sampling }) => `${kind} ${sampling?.seed ?? ''} ${text}`),
    from: branch === null ? null : [branch.parent, branch.stepIndex],
    root,
    reward,
    end: record.endReason,
  }));

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const policy = (steps: readonly StepRecord[]) => steps.filter((step) => step.kind === 'policy');
const seeds = [1, 2, 3, 4, 5, 6, 7, 8];

describe.each(seeds)('arpo, seed %i', (seed) => {
  it('fills groups exactly; the counts are those of the forest', async () => {
    const { groups, sampler, tools } = await roll({ seed });
    expect(groups.map(({ task }) => task.id)).toEqual(TASKS.map(({ id }) => id));
    for (const group of groups) {
      const { trajectories, counts } = group;
      expect(trajectories).toHaveLength(16);
      expect(trajectories.map(({ index }) => index)).toEqual([...Array(16).keys()]);
      expect(counts.rootRollouts + counts.branches).toBe(16);
      expect(counts.rootRollouts).toBeGreaterThanOrEqual(8);
      const unique = forestSteps(group);
      const ran = counts.toolCallsExecuted + counts.toolCallsCached;
      expect(ran).toBe(unique.filter(({ kind }) => kind === 'tool').length);
      expect(counts.tokensSampled).toBe(sum(policy(unique).map(({ tokens }) => tokens.length)));
      const flatCalls = sum(trajectories.map(({ record }) => record.toolCalls));
      expect(ran + counts.toolCallsSaved).toBe(flatCalls);
      const flatTokens = sum(trajectories.map(({ record }) => record.sampledTokens));
      expect(counts.tokensSampled + counts.tokensShared).toBe(flatTokens);
      expect(sum(group.decisions.map(({ siblings }) => siblings))).toBe(counts.branches);
    }
    expect(tools.calls).toHaveLength(sum(groups.map(({ counts }) => counts.toolCallsExecuted)));
    expect(sum(groups.map(({ counts }) => counts.toolCallsCached))).toBeGreaterThan(0);
    expect(sampler.sampledTokens).toBe(sum(groups.map(({ counts }) => counts.tokensSampled)));
    expect(sampler.openSequences).toBe(0);
    expect(sampler.openSequencesMax).toBeLessThanOrEqual(3 * 17);
  });

  it('parent links form one tree a group; branches leave from tool results', async () => {
    const { groups } = await roll({ seed });
    for (const group of groups) {
      const byId = new Map(forestSteps(group).map((step) => [step.id, step]));
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
        if (branch === null) {
          expect(root).toBe(index);
          continue;
        }
        const parent = group.trajectories[branch.parent];
        expect(byId.get(branch.stepId)?.kind).toBe('tool');
        expect(root).toBe(parent?.root);
        // Same records, not copies, up to the branch; different steps after it.
        steps.forEach((step, i) => {
          expect(step === parent?.steps[i]).toBe(i <= branch.stepIndex);
        });
      }
    }
  });

  it('every draw has its own key', async () => {
    const { groups } = await roll({ seed });
    const steps = groups.flatMap((group) => policy(forestSteps(group)));
    expect(new Set(steps.map(({ sampling }) => sampling?.seed)).size).toBe(steps.length);
  });

  it('is the same whatever the timing, and differs by seed', async () => {
    const straight = await roll({ seed });
    const jittered = await roll({ seed, sampler: { delay: (call) => (call * 7919) % 13 } });
    const alone = await roll({ seed, tasks: TASKS.slice(0, 1) });
    expect(jittered.groups.map(shape)).toEqual(straight.groups.map(shape));
    expect(alone.groups.map(shape)).toEqual(straight.groups.slice(0, 1).map(shape));
    expect((await roll({ seed: seed + 100 })).groups.map(shape)).not.toEqual(
      straight.groups.map(shape),
    );
  });

  it('trains on sampled tokens only, at the probabilities that were recorded', async () => {
    const { groups } = await roll({ seed, settings: { maxTokens: 17 } });
    for (const group of groups) {
      const rewards = group.trajectories.map(({ reward }) => reward);
      const advantages = groupAdvantages(rewards);
      const rows = trainRows(group, advantages);
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

describe('branching rule', () => {
  const certain = tableWith({ '</think>': { '<search>': 1 } });

  it('grpo samples every trajectory from the prompt', async () => {
    const { groups, tools } = await roll({ algorithm: 'grpo' });
    for (const { counts, trajectories, decisions } of groups) {
      expect(counts).toMatchObject({ rootRollouts: 16, branches: 0, toolCallsSaved: 0 });
      expect(trajectories.every(({ branch }) => branch === null)).toBe(true);
      expect(decisions).toEqual([]);
    }
    expect(tools.calls).toHaveLength(sum(groups.map(({ counts }) => counts.toolCallsExecuted)));
  });

  it('always branching spends the shares at the first results', async () => {
    const settings = {
      groupSize: 7,
      initialRollouts: 4,
      alpha: 1,
      beta: 0,
      maxToolCalls: 2,
      cassette: false,
    };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const { trajectories, counts } of groups) {
      const parents = trajectories.slice(4).map(({ branch }) => branch?.parent);
      expect(new Set(parents).size).toBe(3);
      expect(trajectories.slice(4).every(({ branch }) => branch?.stepIndex === 2)).toBe(true);
      // 4 roots run two calls each; 3 forks take over one and run one.
      expect(counts).toMatchObject({ toolCallsExecuted: 11, toolCallsSaved: 3, branches: 3 });
    }
  });

  it('beamSize opens several siblings, never more than there are slots', async () => {
    const settings = { groupSize: 6, initialRollouts: 2, alpha: 1, beta: 0, beamSize: 4 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const { trajectories, decisions } of groups) {
      const parents = trajectories.slice(2).map(({ branch }) => branch?.parent);
      expect([
        [0, 0, 0, 1],
        [1, 1, 1, 0],
      ]).toContainEqual(parents);
      expect(decisions.map(({ siblings }) => siblings).sort()).toEqual([1, 3]);
    }
  });

  it('a threshold decides by dH alone', async () => {
    const settings = { groupSize: 8, initialRollouts: 4, branchThreshold: 0.5 };
    const { groups } = await roll({ settings });
    const decisions = groups.flatMap((group) => group.decisions);
    expect(decisions.some(({ siblings }) => siblings === 1)).toBe(true);
    for (const { deltaEntropy, probability, siblings } of decisions) {
      expect(probability).toBeCloseTo(Math.min(1, Math.max(0, 0.5 + 2 * deltaEntropy)), 12);
      expect(siblings).toBe(probability > 0.5 ? 1 : 0);
    }
    // A sure policy never passes it: the group is filled by fresh roots.
    const sure = tableWith({
      '</result>|<think>': { b: 1 },
      '</user>|<think>': { a: 0.5, b: 0.5 },
    });
    const filled = await roll({ settings: { ...settings, beta: 5 }, sampler: { table: sure } });
    for (const { counts, decisions: asked } of filled.groups) {
      expect(counts.rootRollouts + counts.branches).toBe(8);
      for (const { deltaEntropy, siblings } of asked)
        expect(siblings).toBe(deltaEntropy > 0 ? 1 : 0);
    }
  });

  it('fills the group with fresh roots when nothing calls a tool', async () => {
    const table = tableWith({ '</think>': { '<answer>': 1 } });
    const { groups } = await roll({ sampler: { table } });
    for (const { counts, trajectories } of groups) {
      expect(counts).toMatchObject({ rootRollouts: 16, branches: 0, toolCallsExecuted: 0 });
      expect(new Set(trajectories.map(({ reward }) => reward))).toEqual(new Set([0, 1]));
    }
  });

  it('branches at the rate P over many decisions', async () => {
    const settings = { groupSize: 15, initialRollouts: 8, alpha: 0.3, beta: 0 };
    let asked = 0;
    let opened = 0;
    for (let seed = 0; seed < 30; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      // Only first results: later decisions stop when the slots are gone, which biases the count.
      for (const { decisions } of groups) {
        for (const { siblings } of decisions.slice(0, 7)) {
          asked++;
          opened += siblings;
        }
      }
    }
    // Standard error sqrt(.3 * .7 / 630) = .018; the bound is 4 of them.
    expect(asked).toBe(630);
    expect(Math.abs(opened / asked - 0.3)).toBeLessThan(0.073);
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
    const rows = trainRows(group, new Array<number>(16).fill(1));
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
      for (const algorithm of ['arpo', 'grpo'] as const) {
        const failed = await roll({ algorithm, sampler: { failAt: { call, error } } });
        expect(failed.error).toBe(error);
        expect(failed.sampler.openSequences).toBe(0);
      }
    }
  });
});
