/**
 * A group around a logged conversation: what was logged stays as it was, forks share its recorded
 * results, rewards come from ratings, and the weights of now are what the update counts from.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must } from '../assert.ts';
import type { TrainingSession, Weights } from '../model/types.ts';
import type { LiveSample } from '../records.ts';
import {
  createBigramSampler,
  createBigramSession,
  tableOf,
} from '../trainer/testing/bigram-policy.ts';
import type { ColourSetting } from '../trainer/testing/colour-task.ts';
import { colourTasks, createColourSetting } from '../trainer/testing/colour-task.ts';
import { loggedAnswers } from '../trainer/testing/logged-answers.ts';
import { liveQuestions, type LiveQuestion } from './live-questions.ts';
import { rebuiltGroups } from './rebuilt-group.ts';
import { parseSettings } from './settings.ts';
import { trainRows } from './train-rows.ts';

let setting: ColourSetting;
let logged: LiveSample[];
beforeAll(async () => {
  setting = createColourSetting();
  const sampler = createBigramSampler(setting.config, setting.freshWeights());
  // The same question, so that several answers of it are rated.
  const tasks = Array.from({ length: 40 }, () => must(colourTasks('red', 1)[0], 'a task'));
  logged = await loggedAnswers({ sampler, context: setting.context, tasks, seed: 5 });
});
afterAll(() => setting.remove());

/** Weights that are not those of the log: the same table, flatter. */
function otherWeights(): Weights {
  const weights = setting.freshWeights();
  const table = tableOf(weights);
  for (let i = 0; i < table.length; i++) table[i] = (table[i] as number) * 0.8;
  return weights;
}

function questionOf(samples: readonly LiveSample[]): LiveQuestion {
  const { train } = liveQuestions(samples, {
    tools: setting.context.tools,
    version: 3,
    maxStaleness: 4,
    limits: { maxToolCalls: 4, maxTokens: 40 },
    heldOut: 0,
  });
  return must(train[0], 'one question');
}

async function rebuilt(question: LiveQuestion, overrides: Record<string, unknown> = {}) {
  const weights = otherWeights();
  const settings = parseSettings(
    'arpo',
    { groupSize: 8, maxTokens: 40, maxToolCalls: 4, ...overrides },
    'full',
    'live',
  );
  let calls = 0;
  const { tools } = setting.context;
  const counted: typeof tools = {
    has: (name) => tools.has(name),
    specs: (names) => tools.specs(names),
    call: (...call) => {
      calls++;
      return tools.call(...call);
    },
  };
  const session: TrainingSession = createBigramSession(setting.config, weights);
  const groups = await rebuiltGroups([question], {
    sampler: createBigramSampler(setting.config, weights),
    context: { ...setting.context, tools: counted },
    settings,
    seed: 11,
    runId: 'trn_1',
    version: 3,
    score: (rows) => session.score(rows),
  });
  return { group: must(groups[0], 'a group'), settings, session, calls: () => calls };
}

const withTool = (): LiveSample[] => logged.filter(({ trajectory }) => trajectory.toolCalls > 0);

describe('rebuiltGroups', () => {
  it('begins with what was logged, as it was', async () => {
    const question = questionOf(logged);
    const { group } = await rebuilt(question);
    const given = group.trajectories.filter((trajectory) => trajectory.given);
    expect(given).toHaveLength(2);
    given.forEach(({ record, steps }, i) => {
      const sample = must(question.logged[i], 'the conversation');
      expect(record).toBe(sample.trajectory);
      expect(steps.map(({ id, tokens, logprobs }) => [id, tokens, logprobs])).toEqual(
        sample.steps.map(({ id, tokens, logprobs }) => [id, tokens, logprobs]),
      );
    });
    expect(group.trajectories).toHaveLength(8);
    for (const { record } of group.trajectories.slice(2)) {
      expect(record).toMatchObject({
        source: 'rollout',
        trainingRunId: 'trn_1',
        groupId: group.id,
      });
      expect(record.policyVersion).toBe(3);
    }
  });

  it('opens forks behind recorded results, and calls no tool for them', async () => {
    const { group, calls } = await rebuilt(questionOf(withTool()));
    const given = group.trajectories.filter((trajectory) => trajectory.given);
    const forks = group.trajectories.filter(
      ({ branch }) => branch !== null && branch.parent < given.length,
    );
    expect(forks.length).toBeGreaterThan(0);
    for (const { branch, steps, record } of forks) {
      const at = must(branch, 'a fork').stepIndex;
      const parent = must(given[branch?.parent ?? -1], 'its parent');
      expect(steps.slice(0, at + 1)).toEqual(parent.steps.slice(0, at + 1));
      expect(steps[at]).toMatchObject({ kind: 'tool' });
      expect(record.branchedFromStepId).toBe(steps[at]?.id);
      expect(steps.length).toBeGreaterThan(at + 1);
    }
    expect(calls()).toBe(group.counts.toolCallsExecuted);
    expect(group.counts.toolCallsSaved).toBeGreaterThan(0);
    expect(group.decisions.filter(({ rule }) => rule === 'given').length).toBeGreaterThan(0);
  });

  it('runs no call again that the log has', async () => {
    const { group, calls } = await rebuilt(questionOf(withTool()), { branch: 'none' });
    const stepsOf = (given: boolean) =>
      group.trajectories
        .filter((trajectory) => (trajectory.given === true) === given)
        .flatMap(({ steps }) => steps.flatMap(({ toolCall }) => toolCall ?? []));
    const known = new Map(stepsOf(true).map((call) => [call.arguments, call.result]));
    const again = stepsOf(false).filter((call) => known.has(call.arguments));
    expect(again.length).toBeGreaterThan(0);
    for (const { served, result, arguments: asked } of again) {
      expect({ served, result }).toEqual({ served: 'recorded', result: known.get(asked) });
    }
    expect(calls()).toBe(stepsOf(false).length - again.length);
  });

  it('runs a call again whose failure another try may mend', async () => {
    const failed = withTool().map((sample) => ({
      ...sample,
      steps: sample.steps.map((step) => ({
        ...step,
        toolCall: step.toolCall && { ...step.toolCall, error: 'tool_timeout' as const },
      })),
    }));
    const { group, calls } = await rebuilt(questionOf(failed), { branch: 'none' });
    expect(calls()).toBe(group.counts.toolCallsExecuted);
    expect(calls()).toBeGreaterThan(0);
  });

  it.each([
    ...['paper', 'released-code', 'aepo', 'deferred', 'uniform', 'random', 'surprisal', 'none'],
    'value',
  ])('is grown by %s, and trains only what a policy sampled', async (rule) => {
    const branch = rule === 'value' ? { branch: 'deferred', forkBy: 'value' } : { branch: rule };
    const { group, settings } = await rebuilt(questionOf(withTool()), { ...branch, groupSize: 16 });
    expect(group.trajectories).toHaveLength(16);
    expect(group.trajectories.filter(({ given }) => given)).toHaveLength(4);
    const rows = trainRows(group, settings);
    expect(rows).toHaveLength(16);
    group.trajectories.forEach(({ steps }, i) => {
      const sampled = steps.flatMap(({ kind, tokens }) => [...tokens].map(() => kind === 'policy'));
      const { weights } = must(rows[i], 'its row');
      expect([...weights].map((weight) => weight > 0)).toEqual(sampled);
    });
    const own = group.trajectories.filter(({ given }) => given !== true);
    expect(own.some(({ branch: fork }) => fork !== null)).toBe(rule !== 'none');
  });

  it('forks nowhere when nothing shall branch', async () => {
    const { group } = await rebuilt(questionOf(withTool()), { branch: 'none' });
    expect(group.trajectories.every(({ branch }) => branch === null)).toBe(true);
    expect(group.decisions).toEqual([]);
  });

  it('rewards by ratings: the liked answer, others as far as they agree', async () => {
    const { group } = await rebuilt(questionOf(logged));
    for (const { answer, formatError, reward, correct, record, given } of group.trajectories) {
      const expected = formatError !== null || answer === null ? -1 : Number(answer === 'red');
      expect({ answer, reward, correct }).toEqual({
        answer,
        reward: expected,
        correct: expected > 0,
      });
      if (given !== true) expect(record.reward).toBe(expected);
    }
    expect(new Set(group.trajectories.map(({ reward }) => reward)).size).toBeGreaterThan(1);
  });

  it('measures surprise at logged results by the weights of now', async () => {
    const question = questionOf(withTool());
    const { group, session } = await rebuilt(question, { branch: 'surprisal' });
    const { vocabularySize } = setting.context.tokenizer;
    const meanOf = (values: ArrayLike<number>): number => {
      const first = Array.from(values).slice(0, 20);
      return -first.reduce((a, b) => a + b, 0) / first.length / Math.log(vocabularySize);
    };
    let looked = 0;
    for (const [index, { steps, given }] of group.trajectories.entries()) {
      if (given !== true) continue;
      const row = Uint32Array.from(steps.flatMap(({ tokens }) => [...tokens]));
      const now = must((await session.score([row])).logprobs[0], 'scored');
      let start = 0;
      const surprise = steps.map(({ tokens }) => {
        start += tokens.length;
        return meanOf(now.slice(start - tokens.length, start));
      });
      const initial = must(surprise[steps.findIndex(({ kind }) => kind === 'policy')], 'a step');
      for (const { rule, trajectory, stepId, signal } of group.decisions) {
        if (rule !== 'surprisal' || trajectory !== index) continue;
        const at = steps.findIndex(({ id }) => id === stepId);
        expect(signal).toBeCloseTo(must(surprise[at + 1], 'a step follows') - initial, 5);
        looked++;
      }
    }
    expect(looked).toBeGreaterThan(0);
  });

  it('counts from the weights of now, with what sampled as the behaviour', async () => {
    const { group, settings, session } = await rebuilt(questionOf(logged));
    const rows = trainRows(group, settings);
    const at = group.trajectories.findIndex(({ given, steps }) => given && steps.length > 2);
    const { steps } = must(group.trajectories[at], 'a logged trajectory');
    const row = must(rows[at], 'its row');
    const { logprobs } = await session.score([row.tokens]);
    const now = must(logprobs[0], 'scored');
    let start = 0;
    let differing = 0;
    for (const step of steps) {
      for (let t = 0; t < step.tokens.length; t++) {
        const i = start + t;
        if (step.kind !== 'policy') {
          expect(row.weights[i]).toBe(0);
          continue;
        }
        const behaviour = must(step.logprobs, 'recorded')[t] as number;
        expect(row.oldLogprobs[i]).toBeCloseTo(now[i] as number, 6);
        const weight = Math.min(2, Math.exp((now[i] as number) - behaviour));
        expect(row.weights[i]).toBeCloseTo(weight, 5);
        if (Math.abs(weight - 1) > 0.01) differing++;
      }
      start += step.tokens.length;
    }
    expect(differing).toBeGreaterThan(0);
    // What was sampled here needs no correction.
    const root = group.trajectories.findIndex(({ branch, given }) => !branch && !given);
    const fresh = must(rows[root], 'a fresh root');
    for (const weight of fresh.weights) expect([0, 1]).toContain(weight);
  });

  it('asks anew where no conversation is young enough, by the logged prompt', async () => {
    const old = logged.map((sample) => ({
      ...sample,
      steps: sample.steps.map((step) => ({ ...step, policyVersion: 40 })),
    }));
    const question = questionOf(old);
    expect(question.logged).toEqual([]);
    const { group } = await rebuilt(question);
    expect(group.trajectories).toHaveLength(8);
    for (const { steps, given } of group.trajectories) {
      expect(given).toBeUndefined();
      expect(steps[0]?.tokens).toEqual(logged[0]?.steps[0]?.tokens);
    }
  });

  it('is the same again', async () => {
    const outline = async () =>
      (await rebuilt(questionOf(logged))).group.trajectories.map(({ steps, reward, branch }) => [
        steps.map(({ tokens }) => [...tokens]),
        reward,
        branch?.stepIndex,
      ]);
    expect(await outline()).toEqual(await outline());
  });
});
