/** Live runs on a table-driven policy: refusals, server tools, client tools, failures, time. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import {
  FunctionTools,
  TableSampler,
  echoTools,
  protocol,
  tableContext,
  tableWith,
  type TableSamplerOptions,
} from '../../test/support/table-policy.ts';
import { runAgent, runChoices } from './run-agent.ts';
import type { AgentRequest } from './types.ts';

const SEARCH_THEN_ANSWER = tableWith({
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
const SEARCH_FOREVER = tableWith({ '</think>': { '<search>': 1 }, '<search>': { a: 1 } });
const CLIENT_LOOKUP = { name: 'lookup', description: 'l', parameters: { type: 'object' } };

function setUp(sampler: TableSamplerOptions = {}, tools = echoTools()) {
  const engine = new TableSampler({ table: SEARCH_THEN_ANSWER, ...sampler });
  const context = tableContext(tools);
  const requestOf = (changes: Partial<AgentRequest> = {}): AgentRequest => ({
    sequence: engine.open({ policyVersion: 5 }),
    messages: [{ role: 'user', content: 'who?' }],
    toolNames: ['search'],
    limits: { maxToolCalls: 3, maxTokens: 100 },
    sampling: samplingOf(1),
    source: 'live',
    tenant: 'default',
    conversationId: 'conv_1',
    taskId: null,
    ...changes,
  });
  const run = (changes: Partial<AgentRequest> = {}) => runAgent(context, requestOf(changes));
  const runSeeds = (seeds: readonly number[], changes: Partial<AgentRequest> = {}) =>
    runChoices(
      context,
      requestOf(changes),
      seeds.map((seed) => ({ sampling: samplingOf(seed), trajectoryId: `traj_${seed}` })),
    );
  return { engine, tools, run, runSeeds };
}

const samplingOf = (seed: number) => ({ temperature: 1, topP: 1, topK: 0, seed });

async function refused(run: Promise<unknown>): Promise<AppError> {
  const error: unknown = await run.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(AppError);
  return error as AppError;
}

afterEach(() => vi.useRealTimers());

describe('runAgent', () => {
  it('tells of calls before it runs them, with the ids that the log has', async () => {
    const { run } = setUp();
    const told: string[] = [];
    const outcome = await run({
      onCalls: (calls) => told.push(...calls.map(({ id, name }) => `call ${name} ${id}`)),
      onStep: ({ kind, toolCall }) => told.push(`${kind} ${toolCall?.id ?? ''}`.trim()),
    });
    const id = outcome.steps[2]?.toolCall?.id;
    expect(told).toEqual(['prompt', 'policy', `call search ${id}`, `tool ${id}`, 'policy']);
  });

  it('searches, answers, and returns everything to log', async () => {
    const { run, engine } = setUp();
    const onStep = vi.fn();
    const outcome = await run({ onStep });
    expect(outcome).toMatchObject({
      answer: 'b',
      endReason: 'answer',
      formatOk: true,
      pendingCalls: [],
      error: null,
      promptTokens: 6,
    });
    expect(outcome.steps.map((step) => step.kind)).toEqual(['prompt', 'policy', 'tool', 'policy']);
    expect(onStep.mock.calls.map(([step]) => step)).toEqual(outcome.steps);
    expect(outcome.log.steps).toEqual(outcome.steps);
    expect(outcome.log.trajectories?.[0]).toMatchObject({
      id: outcome.trajectoryId,
      leafStepId: outcome.steps.at(-1)?.id,
      tenant: 'default',
      conversationId: 'conv_1',
      policyVersion: 5,
      status: 'completed',
      toolCalls: 1,
      sampledTokens: outcome.sampledTokens,
      reward: null,
    });
    expect(engine.openSequences).toBe(0);
  });

  it('refuses before work: unknown tool, a name twice, a prompt beyond the window', async () => {
    const { run, engine } = setUp({ contextTokens: 40 });
    expect(await refused(run({ toolNames: ['fly'] }))).toMatchObject({ code: 'unknown_tool' });
    const twice = await refused(run({ toolNames: ['lookup'], clientTools: [CLIENT_LOOKUP] }));
    expect(twice).toMatchObject({ code: 'invalid_request', param: 'tools' });
    const long = [{ role: 'user' as const, content: 'x'.repeat(50) }];
    const overflow = await refused(run({ messages: long }));
    expect(overflow.code).toBe('context_length_exceeded');
    expect(overflow.message).toMatch(/52 .* 40/);
    const asked = await refused(run({ contextTokens: 40 }));
    expect(asked.code).toBe('context_length_exceeded');
    expect(asked.message).toMatch(/6 tokens; with 100 .* 40/);
    expect(engine).toMatchObject({ openSequences: 0, sampleCalls: 0 });
  });

  it('refuses a prompt that leaves no room for a single token', async () => {
    const { run } = setUp({ contextTokens: 6 });
    const error = await refused(run());
    expect(error).toMatchObject({ code: 'context_length_exceeded', param: 'messages' });
  });

  it('hands a call of a client tool to the client', async () => {
    const { run, tools } = setUp();
    const search = { ...CLIENT_LOOKUP, name: 'search' };
    const outcome = await run({ toolNames: [], clientTools: [search] });
    expect(outcome).toMatchObject({ endReason: 'tool_calls', answer: null, formatOk: true });
    expect(outcome.pendingCalls).toEqual([
      { id: expect.stringMatching(/^call_/), name: 'search', arguments: '{"query":"a"}' },
    ]);
    expect(outcome.steps).toHaveLength(2);
    expect(tools.calls).toEqual([]);
  });

  it('goes on from a stored path: limits and figures are those of the new run', async () => {
    const { run, engine } = setUp();
    const clientTools = [{ ...CLIENT_LOOKUP, name: 'search' }];
    const first = await run({
      toolNames: [],
      clientTools,
      limits: { maxToolCalls: 0, maxTokens: 6 },
    });
    expect(first).toMatchObject({ endReason: 'tool_calls', sampledTokens: 6 });
    const [call] = first.pendingCalls as [(typeof first.pendingCalls)[number]];
    const tokens = protocol.renderToolResults([{ name: 'search', result: 'ok' }]);
    const answered = [
      { ...call, result: 'ok', error: null, durationMs: 1, effects: 'writes', served: 'client' },
    ] as const;
    const continuation = { steps: first.steps, answered, furtherMessages: false, tokens };
    const next = (maxTokens: number, contextTokens?: number) =>
      run({
        toolNames: [],
        clientTools,
        continuation,
        limits: { maxToolCalls: 0, maxTokens },
        ...(contextTokens !== undefined && { contextTokens }),
      });
    const onStep = vi.fn();
    const whole = await run({
      ...{ toolNames: [], clientTools, continuation, onStep },
      limits: { maxToolCalls: 0, maxTokens: 100 },
    });
    expect(whole).toMatchObject({ endReason: 'answer', answer: 'b', promptTokens: 16 });
    expect(whole.steps.map(({ kind }) => kind)).toEqual(['tool', 'policy']);
    expect(onStep.mock.calls.map(([step]) => step)).toEqual(whole.steps);
    expect(whole.sampledTokens).toBe(whole.steps[1]?.tokens.length);
    expect(whole.log.steps).toEqual(whole.steps);
    expect(whole.log.trajectories?.[0]).toMatchObject({
      ...{ leafStepId: whole.steps[1]?.id, toolCalls: 1, formatOk: true },
      sampledTokens: 6 + whole.sampledTokens,
    });
    expect(await next(3)).toMatchObject({ endReason: 'max_tokens', sampledTokens: 3 });
    const long = await refused(next(20, 35));
    expect(long.message).toMatch(/16 tokens; with 20 .* 35/);
    expect(engine.openSequences).toBe(0);
  });

  it('an engine failure before the first token of a continued path is thrown', async () => {
    const error = new AppError('engine_unavailable', 'the worker stopped');
    const { run } = setUp({ failAt: { call: 1, error } });
    const { steps } = await run({
      toolNames: [],
      clientTools: [{ ...CLIENT_LOOKUP, name: 'search' }],
    });
    const continuation = { steps, answered: [], furtherMessages: true, tokens: [1] };
    expect(await refused(run({ continuation }))).toBe(error);
  });

  it('a whole client call counts even where the token budget ends with it', async () => {
    const { run } = setUp();
    const search = { ...CLIENT_LOOKUP, name: 'search' };
    const limits = { maxToolCalls: 0, maxTokens: 6 };
    const whole = await run({ toolNames: [], clientTools: [search], limits });
    expect(whole.steps.at(-1)?.text).toBe('<think>a</think><search>a</search>');
    expect(whole.endReason).toBe('tool_calls');
    const cut = await run({
      toolNames: [],
      clientTools: [search],
      limits: { ...limits, maxTokens: 5 },
    });
    expect(cut).toMatchObject({ endReason: 'max_tokens', pendingCalls: [], formatOk: false });
  });

  it('a call of a tool that this run does not offer is answered, not run', async () => {
    const { run, tools } = setUp();
    const outcome = await run({ toolNames: ['lookup'] });
    expect(outcome.endReason).toBe('answer');
    expect(outcome.steps[2]?.toolCall?.error).toBe('unknown_tool');
    expect(tools.calls).toEqual([]);
  });

  it('the tool limit ends a run that never answers', async () => {
    const { run, tools } = setUp({ table: SEARCH_FOREVER });
    const outcome = await run();
    expect(outcome).toMatchObject({ endReason: 'max_tool_calls', answer: null, formatOk: false });
    expect(tools.calls).toHaveLength(3);
  });

  it('an engine failure before the first token is thrown, a later one is an outcome', async () => {
    const error = new AppError('engine_unavailable', 'the worker stopped');
    const first = setUp({ failAt: { call: 0, error } });
    expect(await refused(first.run())).toBe(error);
    const second = setUp({ failAt: { call: 1, error } });
    const outcome = await second.run();
    expect(outcome).toMatchObject({ endReason: 'failed', error });
    expect(outcome.log.trajectories?.[0]).toMatchObject({ status: 'failed' });
    expect(outcome.steps).toHaveLength(3);
    expect(first.engine.openSequences + second.engine.openSequences).toBe(0);
  });

  it('a client that goes away stops the sampling; the rows are kept as cancelled', async () => {
    const { run, engine } = setUp({ table: SEARCH_FOREVER });
    const controller = new AbortController();
    const outcome = await run({
      signal: controller.signal,
      onTokens: () => {
        if (engine.sampledTokens === 9) controller.abort();
      },
    });
    expect(outcome).toMatchObject({ endReason: 'cancelled', sampledTokens: 9, error: null });
    expect(outcome.log.trajectories?.[0]?.status).toBe('cancelled');
    expect(engine.openSequences).toBe(0);
  });

  it('a run beyond its time ends as failed with request_timeout', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const tools = new FunctionTools({
      search: {
        run: () => {
          vi.advanceTimersByTime(LIMITS.agentRunTimeoutMs);
          return 'slow';
        },
      },
    });
    const { run } = setUp({}, tools);
    const outcome = await run();
    expect(outcome.endReason).toBe('failed');
    expect(outcome.error?.code).toBe('request_timeout');
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('runChoices', () => {
  // Two first words that are equally likely, so that seeds tell.
  const table = tableWith({
    '</user>|<think>': { a: 0.5, b: 0.5 },
    '</think>': { '<answer>': 1 },
    '\\boxed{': { b: 1 },
  });
  const textsOf = ({ steps }: { steps: readonly { text: string }[] }) =>
    steps.map(({ text }) => text);

  it('each is what it would be alone; they share the prompt, which is appended once', async () => {
    const { engine, runSeeds, run } = setUp({ table });
    const seeds = Array.from({ length: 8 }, (_, i) => i + 1);
    const { outcomes, failure } = await runSeeds(seeds);
    expect(failure).toBeNull();
    expect(outcomes.map(({ trajectoryId }) => trajectoryId)).toEqual(seeds.map((s) => `traj_${s}`));
    expect(engine.appendedTokens).toBe(outcomes[0]?.steps[0]?.tokens.length);
    const prompts = new Set(outcomes.map(({ steps }) => steps[0]?.id));
    expect(prompts.size).toBe(1);
    expect(new Set(outcomes.map((outcome) => textsOf(outcome)[1])).size).toBeGreaterThan(1);
    for (const [i, seed] of seeds.entries()) {
      const alone = await run({ sampling: samplingOf(seed) });
      expect(textsOf(alone)).toEqual(textsOf(outcomes[i] ?? { steps: [] }));
    }
    expect(engine.openSequences).toBe(0);
  });

  it('one that fails stops the others, which are kept as cancelled', async () => {
    const error = new AppError('engine_unavailable', 'gone');
    const delay = (call: number) => (call === 1 ? 0 : 20);
    const { engine, runSeeds } = setUp({ table, failAt: { call: 1, error }, delay });
    const { outcomes, failure } = await runSeeds([1, 2, 3]);
    expect(failure).toBe(error);
    expect(outcomes.map(({ endReason }) => endReason)).toEqual(['cancelled', 'cancelled']);
    expect(engine.openSequences).toBe(0);
  });

  it('what does not fit is refused before anything is forked, with its field', async () => {
    const { engine, runSeeds } = setUp({ table, contextTokens: 4 });
    const told = await refused(runSeeds([1, 2]));
    expect(told).toMatchObject({ code: 'context_length_exceeded', param: 'messages' });
    expect(engine.openSequences).toBe(0);
    expect(engine.openSequencesMax).toBe(1);
  });
});
