/** Replay: drift of stored tokens, where a path is cut, and what tools answer in each mode. */
import { describe, expect, it } from 'vitest';
import {
  echoTools,
  tableContext,
  TableSampler,
  tableWith,
} from '../../test/support/table-policy.ts';
import type { StepKind, StepRecord } from '../records.ts';
import { runAgent } from './run-agent.ts';
import { replayTools, resample, scorePaths, stepsBefore } from './replay.ts';

const TABLE = tableWith({
  '</user>|<think>': { a: 1 },
  '<think>|a': { '</think>': 1 },
  '</think>': { '<search>': 1 },
  '<search>': { a: 1 },
  '</result>': { '<think>': 1 },
  '</result>|<think>': { b: 1 },
  '<think>|b': { '</think>': 1 },
  'b|</think>': { '<answer>': 1 },
  '\\boxed{': { b: 1 },
});

const sampling = { temperature: 1, topP: 1, topK: 0, seed: 1 };

/** A logged run: prompt, call, result, answer. */
async function logged() {
  const tools = echoTools();
  const sampler = new TableSampler({ table: TABLE });
  const context = tableContext(tools);
  const outcome = await runAgent(context, {
    sequence: sampler.open({ policyVersion: 5 }),
    messages: [{ role: 'user', content: 'who?' }],
    toolNames: ['search'],
    limits: { maxToolCalls: 3, maxTokens: 100 },
    ...{ sampling, source: 'live', tenant: 'default', conversationId: null, taskId: null },
  });
  return { sampler, context, tools, steps: outcome.steps };
}

describe('scorePaths', () => {
  it('finds the largest and the mean distance over policy tokens alone', async () => {
    const { steps } = await logged();
    const flat = steps.flatMap(({ tokens, logprobs }) => [
      ...(logprobs ?? new Float32Array(tokens.length)),
    ]);
    const policy = steps.flatMap(({ kind, tokens }) =>
      Array<boolean>(tokens.length).fill(kind === 'policy'),
    );
    const count = policy.filter(Boolean).length;
    // Every token that was not sampled is far off, and the last sampled one by a half.
    const moved = flat.map((value, i) => (policy[i] ? value : -50));
    moved[policy.lastIndexOf(true)]! -= 0.5;
    const [score] = await scorePaths([steps], async ([row]) => {
      expect([...row!]).toEqual(steps.flatMap(({ tokens }) => [...tokens]));
      return { logprobs: [Float32Array.from(moved)], entropies: [new Float32Array(moved.length)] };
    });
    expect(score).toMatchObject({ tokens: count, maxDrift: 0.5 });
    expect(score!.meanDrift).toBeCloseTo(0.5 / count, 6);
    expect(score!.meanLoggedLogprob - score!.meanLogprob).toBeCloseTo(0.5 / count, 6);
  });
});

describe('stepsBefore', () => {
  const kinds: StepKind[] = ['prompt', 'policy', 'tool', 'tool', 'policy', 'prompt'];
  const steps = kinds.map((kind, index) => ({ kind, index }) as StepRecord);
  it.each([
    [0, 1],
    [1, 1],
    [2, 4],
    [3, 4],
    [4, 4],
    [5, 6],
  ])('of step %i: %i steps', (at, count) => {
    expect(stepsBefore(steps, at)).toHaveLength(count);
  });
});

describe('replayTools', () => {
  it('recorded answers calls of the log without a run, and others with an error', async () => {
    const { tools, steps } = await logged();
    const call = steps.find(({ toolCall }) => toolCall !== null)!.toolCall!;
    const before = tools.calls.length;
    const replayed = replayTools(tools, 'recorded', steps);
    const known = await replayed.call(call.name, ` ${call.arguments} `);
    expect(known).toMatchObject({ result: call.result, error: null, served: 'recorded' });
    for (const [name, args] of [
      [call.name, '{"query":"new"}'],
      ['gone', '{}'],
    ] as const) {
      expect(await replayed.call(name, args)).toMatchObject({ error: 'tool_failed' });
    }
    expect(tools.calls).toHaveLength(before);
  });

  it('live runs tools without effects; a tool with effects is never run; deny runs none', async () => {
    const { tools, steps } = await logged();
    const call = steps.find(({ toolCall }) => toolCall !== null)!.toolCall!;
    const before = tools.calls.length;
    const run = (mode: 'live' | 'deny', runner = tools) =>
      replayTools(runner, mode, steps).call(call.name, call.arguments);
    expect(await run('deny')).toMatchObject({ error: 'tool_failed' });
    expect(tools.calls).toHaveLength(before);
    expect(await run('live')).toMatchObject({ error: null, served: 'live' });
    expect(tools.calls).toHaveLength(before + 1);
    const writing = echoTools();
    const specs = writing.specs.bind(writing);
    writing.specs = (names) =>
      specs(names).map((spec) => ({ ...spec, effects: 'writes' as const }));
    expect(await run('live', writing)).toMatchObject({ error: 'tool_failed', effects: 'writes' });
    expect(writing.calls).toHaveLength(0);
  });
});

describe('resample', () => {
  it('keeps the logged steps, continues from them, and closes its sequence', async () => {
    const { sampler, context, tools, steps } = await logged();
    const prefix = stepsBefore(steps, 1);
    const path = await resample({
      ...{ sampler, prefix, version: 5, temperature: 1, key: [1, 0], task: null },
      context: { ...context, tools: replayTools(tools, 'recorded', steps) },
      limits: { maxToolCalls: 3, maxTokens: 100 },
      offered: new Set(['search']),
    });
    expect(path.steps.slice(0, prefix.length)).toEqual(prefix);
    expect(path.newSteps[0]!.parentId).toBe(prefix.at(-1)!.id);
    const texts = (of: readonly StepRecord[]) => of.map(({ text }) => text);
    expect(texts(path.steps)).toEqual(texts(steps));
    expect(path.newSteps.find(({ kind }) => kind === 'tool')!.toolCall!.served).toBe('recorded');
    expect(path.record).toMatchObject({ source: 'replay', reward: null, answer: 'b' });
  });
});
