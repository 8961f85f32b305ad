/**
 * Held-out evaluation on a table-driven policy: greedy, sampled, paired seeds, figures by family.
 */
import { describe, expect, it } from 'vitest';
import {
  TableSampler,
  echoTools,
  tableContext,
  tableWith,
} from '../../test/support/table-policy.ts';
import { evalScores, evaluateTasks, type EvaluateOptions } from './evaluate.ts';
import { TurningTools } from './testing/table-rollouts.ts';
import type { Task } from '../records.ts';

const TASKS = Array.from({ length: 80 }, (_, i): Task => ({
  id: `task_${i}`,
  family: i % 4 === 0 ? 'rare' : 'common',
  split: 'gate',
  question: `q${i}`,
  truths: ['a'],
  verifier: 'qa-f1',
  tools: ['search', 'lookup'],
  metadata: {},
}));

function evaluate(changes: Partial<EvaluateOptions> = {}, table = tableWith({})) {
  const sampler = new TableSampler({ table });
  const results = evaluateTasks({
    sampler,
    context: tableContext(),
    tasks: TASKS,
    version: 1,
    limits: { maxToolCalls: 4, maxTokens: 100 },
    temperature: 1,
    seed: 3,
    runId: 'trn_1',
    ...changes,
  });
  return { sampler, results };
}

describe('evaluateTasks', () => {
  it('greedy takes the likeliest path of every task', async () => {
    const table = tableWith({
      '</think>': { '<answer>': 0.6, '<search>': 0.4 },
      '\\boxed{': { a: 0.9, b: 0.1 },
    });
    const results = await evaluate({ temperature: 0 }, table).results;
    expect(results.map(({ task }) => task.id)).toEqual(TASKS.map(({ id }) => id));
    for (const result of results) {
      expect(result).toMatchObject({ correct: true, reward: 1, formatOk: true, toolCalls: 0 });
      expect(result.record).toMatchObject({
        source: 'eval',
        trainingRunId: 'trn_1',
        groupId: null,
      });
    }
  });

  it('calls no tool that got effects meanwhile', async () => {
    const tools = new TurningTools();
    const results = await evaluate({ context: tableContext(tools) }).results;
    expect(tools.calls).toHaveLength(1);
    const errors = results.flatMap(({ steps }) => steps.map(({ toolCall }) => toolCall?.error));
    expect(errors).toContain('tool_failed');
  });

  it('equal seeds draw equally, whatever the other tasks are', async () => {
    const texts = async (changes: Partial<EvaluateOptions>) =>
      (await evaluate(changes).results).map(({ steps }) => steps.map(({ text }) => text).join(''));
    const all = await texts({});
    expect(await texts({})).toEqual(all);
    expect(await texts({ tasks: TASKS.slice(0, 5) })).toEqual(all.slice(0, 5));
    expect(await texts({ seed: 4 })).not.toEqual(all);
  });

  it('keeps a bounded number of sequences open, and closes them all', async () => {
    const { sampler, results } = evaluate();
    await results;
    expect(sampler.openSequencesMax).toBeLessThanOrEqual(64);
    expect(sampler.openSequences).toBe(0);
  });

  it('cancels', async () => {
    const { sampler, results } = evaluate({ signal: AbortSignal.abort() });
    await expect(results).rejects.toMatchObject({ code: 'request_cancelled' });
    expect(sampler.openSequences).toBe(0);
  });
});

describe('evalScores', () => {
  it('counts what the trajectories say, by family and over all', async () => {
    const tools = echoTools();
    const results = await evaluate({ context: tableContext(tools) }).results;
    const scores = evalScores(results);
    expect(Object.keys(scores).sort()).toEqual(['all', 'common', 'rare']);
    expect([scores.rare?.tasks, scores.common?.tasks, scores.all?.tasks]).toEqual([20, 60, 80]);
    expect((scores.all?.toolCallsPerTask ?? 0) * 80).toBeCloseTo(tools.calls.length, 9);
    const correct = results.filter(({ answer, formatError }) => answer === 'a' && !formatError);
    expect((scores.all?.accuracy ?? 0) * 80).toBeCloseTo(correct.length, 9);
    const weighted = (scores.rare?.accuracy ?? 0) * 20 + (scores.common?.accuracy ?? 0) * 60;
    expect(weighted).toBeCloseTo(correct.length, 9);
    const wrongFormat = results.filter(({ reward }) => reward === -1);
    expect((scores.all?.formatErrors ?? 0) * 80).toBeCloseTo(wrongFormat.length, 9);
    expect(wrongFormat.length).toBeGreaterThan(0);
  });

  it('has figures for no tasks at all', () => {
    expect(evalScores([]).all).toEqual({
      tasks: 0,
      accuracy: 0,
      formatErrors: 0,
      toolCallsPerTask: 0,
    });
  });
});
