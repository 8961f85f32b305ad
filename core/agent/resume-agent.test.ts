/**
 * Runs that stop between two steps and go on: at every step of a path, suspended in the middle of
 * one, waiting for a client beside server tools. What comes out is what would have come out.
 */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import type { StepRecord, ToolCallRecord } from '../records.ts';
import {
  FunctionTools,
  TableSampler,
  echoTools,
  tableContext,
  tableWith,
} from '../../test/support/table-policy.ts';
import { runAgent } from './run-agent.ts';
import type { AgentRequest } from './types.ts';

/** Searches once or more, by chance, then answers. */
const TABLE = tableWith({
  '</think>': { '<search>': 1 },
  '<search>': { a: 1, b: 1 },
  '</result>': { '<think>': 1 },
  'b|</think>': { '<answer>': 1 },
  '\\boxed{': { b: 1 },
});
const CLIENT_SEARCH = { name: 'search', description: 's', parameters: { type: 'object' } };

function setUp(tools = echoTools()) {
  const engine = new TableSampler({ table: TABLE });
  const context = tableContext(tools);
  const run = (changes: Partial<AgentRequest> = {}) =>
    runAgent(context, {
      sequence: engine.open({ policyVersion: 5 }),
      messages: [{ role: 'user', content: 'who?' }],
      toolNames: ['search'],
      limits: { maxToolCalls: 6, maxTokens: 120 },
      sampling: { temperature: 1, topP: 1, topK: 0, seed: 1 },
      source: 'live',
      tenant: 'default',
      conversationId: null,
      taskId: null,
      waits: true,
      ...changes,
    });
  return { engine, tools, run };
}

const tokensOf = (steps: readonly StepRecord[]) => steps.map(({ tokens }) => [...tokens]);
const none = { calls: [], results: [] };

describe('a run that goes on', () => {
  it('from any step, with any seed, ends as the run that did not stop', async () => {
    const { run, engine } = setUp();
    for (let seed = 0; seed < 25; seed++) {
      const sampling = { temperature: 1, topP: 1, topK: 0, seed };
      // Some runs end by a limit of tokens, some by one of calls.
      const limits = { maxToolCalls: seed % 4, maxTokens: 20 + 5 * seed };
      const whole = await run({ sampling, limits });
      for (let length = 1; length <= whole.steps.length; length++) {
        const resume = { ...none, steps: whole.steps.slice(0, length) };
        const outcome = await run({ sampling, limits, resume });
        const what = `seed ${seed}, from ${length} of ${whole.steps.length} steps`;
        expect(tokensOf(outcome.steps), what).toEqual(tokensOf(whole.steps));
        expect(outcome.steps.slice(0, length), what).toEqual(whole.steps.slice(0, length));
        const { answer, endReason, formatOk, promptTokens, sampledTokens } = whole;
        const same = { answer, endReason, formatOk, promptTokens, sampledTokens };
        expect(outcome, what).toMatchObject(same);
      }
    }
    expect(engine.openSequences).toBe(0);
  });

  it('was suspended in the middle of a step, which is forgotten', async () => {
    const { run, engine } = setUp();
    const whole = await run();
    const suspend = new AbortController();
    const durable: StepRecord[] = [];
    const stopped = await run({
      suspend: suspend.signal,
      log: async (steps) => void durable.push(...steps),
      onTokens: () => {
        if (durable.length === 3) suspend.abort();
      },
    });
    expect(stopped.suspended).toBe(true);
    expect(tokensOf(durable)).toEqual(tokensOf(whole.steps.slice(0, 3)));
    const outcome = await run({ resume: { ...none, steps: durable } });
    expect(outcome.suspended).toBe(false);
    expect(tokensOf(outcome.steps)).toEqual(tokensOf(whole.steps));
    expect(engine.openSequences).toBe(0);
  });

  it('suspended during a tool call ends behind its result; a cancel is no suspension', async () => {
    const suspend = new AbortController();
    const tools = new FunctionTools({
      search: {
        run: () => {
          suspend.abort();
          return 'a';
        },
      },
    });
    const durable: StepRecord[] = [];
    const { run } = setUp(tools);
    const log = async (steps: readonly StepRecord[]) => void durable.push(...steps);
    expect((await run({ suspend: suspend.signal, log })).suspended).toBe(true);
    expect(durable.map(({ kind }) => kind)).toEqual(['prompt', 'policy', 'tool']);
    const both = new AbortController();
    both.abort();
    const cancelled = await setUp().run({ signal: both.signal });
    expect(cancelled).toMatchObject({ suspended: false, endReason: 'cancelled' });
  });

  it('makes no call again whose tool it does not know: it may have had effects', async () => {
    const whole = await setUp().run();
    const steps = whole.steps.slice(0, 2);
    expect(steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy']);
    const { run, engine } = setUp(new FunctionTools({}));
    await expect(run({ resume: { ...none, steps } })).rejects.toMatchObject({
      code: 'tool_call_uncertain',
    });
    expect(engine.openSequences).toBe(0);
  });

  it('has used up some of its time', async () => {
    const { run } = setUp();
    const time = { limitMs: 60_000, usedMs: 60_000 };
    const tools = new FunctionTools({
      search: { run: () => new Promise((resolve) => setTimeout(() => resolve('a'), 50)) },
    });
    const { run: slow } = setUp(tools);
    const outcome = await slow({ time });
    expect(outcome.error).toMatchObject({ code: 'request_timeout' });
    expect(outcome.error?.message).toContain('60 s');
    expect((await run({ time: { limitMs: 60_000, usedMs: 0 } })).error).toBeNull();
  });
});

describe('the log of a run', () => {
  it('gets each step once; a failure ends the run and is thrown', async () => {
    const { run, engine } = setUp();
    const batches: (readonly StepRecord[])[] = [];
    const { steps } = await run({ log: async (batch) => void batches.push(batch) });
    expect(batches.flat()).toEqual(steps);
    const failure = new AppError('storage_failed', 'no disk');
    let written = 0;
    const log = async (): Promise<void> => {
      if (++written === 2) throw failure;
    };
    await expect(run({ log })).rejects.toBe(failure);
    expect(engine.openSequences).toBe(0);
  });
});

describe('a run that waits for its client', () => {
  it('goes on with the results, given the same calls by their ids', async () => {
    const { run, tools } = setUp();
    const whole = await run();
    const request = { toolNames: [], clientTools: [CLIENT_SEARCH] };
    let outcome = await run(request);
    while (outcome.endReason === 'tool_calls') {
      expect(outcome.calls).toEqual(outcome.pendingCalls);
      const results = outcome.pendingCalls.map((call): ToolCallRecord => ({
        ...call,
        // What the server's tool says.
        result: `found ${(JSON.parse(call.arguments) as { query: string }).query}`,
        error: null,
        durationMs: 1,
        effects: 'writes',
        served: 'client',
      }));
      const { steps, calls } = outcome;
      outcome = await run({ ...request, resume: { steps, calls, results } });
      expect(outcome.steps.slice(0, steps.length)).toEqual(steps);
      const told = calls.map(({ id }) => id);
      expect(outcome.steps[steps.length]?.toolCall?.id).toBe(told[0]);
    }
    expect(tokensOf(outcome.steps)).toEqual(tokensOf(whole.steps));
    expect(outcome).toMatchObject({ answer: whole.answer });
    expect(tools.calls.length).toBe(whole.steps.filter(({ kind }) => kind === 'tool').length);
  });

  it('ends at the limits of the whole run instead', async () => {
    const { run } = setUp();
    const request = { toolNames: [], clientTools: [CLIENT_SEARCH] };
    const calls = await run({ ...request, limits: { maxToolCalls: 0, maxTokens: 100 } });
    expect(calls).toMatchObject({ endReason: 'max_tool_calls', pendingCalls: [], calls: [] });
    const { sampledTokens } = await run(request);
    const tokens = await run({
      ...request,
      limits: { maxToolCalls: 3, maxTokens: sampledTokens },
    });
    expect(tokens.endReason).toBe('max_tokens');
  });
});
