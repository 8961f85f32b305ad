/**
 * Agent runs that stop between two steps: they wait for their client, alone or beside server tools,
 * and they are found by a new process at every step that they can be at.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { AppError } from '../core/errors.ts';
import type { Tool } from '../core/ports.ts';
import type { AgentRunRecord } from '../core/records.ts';
import { LIMITS } from '../core/limits.ts';
import type { ToolRegistry } from '../core/tools/registry.ts';
import { SEARCH } from './testing/chat-cases.ts';
import { CAPITAL_SCRIPT, startHarness, until } from './testing/harness.ts';
import type { Harness, HarnessOptions, Parsed } from './testing/harness.ts';

let h: Harness;

async function start(options: HarnessOptions = {}): Promise<void> {
  h = await startHarness(options);
  h.engine.script = CAPITAL_SCRIPT;
}

afterEach(() => h.close());

async function create(body: object): Promise<Parsed> {
  const answer = await h.call('createAgentRun', { body: { input: 'capital?', ...body } });
  await h.deps.agentRuns.live(answer.body.id as string)?.done;
  return read(answer.body.id as string);
}

async function read(run_id: string): Promise<Parsed> {
  const query = { include: 'tokens' };
  return (await h.call('getAgentRun', { path: { run_id }, query })).body;
}

/** Waits for the end of what a start has taken up. */
async function settled(run_id: string): Promise<Parsed> {
  await until(() => {
    const { status } = h.deps.stores.agentRuns.get(run_id);
    return status !== 'in_progress' && status !== 'queued';
  });
  return read(run_id);
}

async function submit(run: Parsed, outputs: Record<string, string>): Promise<Parsed> {
  const tool_outputs = Object.entries(outputs).map(([name, output]) => {
    const { tool_calls } = run.required_action;
    const call = tool_calls.find((one: Parsed) => one.function.name === name);
    return { tool_call_id: call.id as string, output };
  });
  const path = { run_id: run.id as string };
  const { body } = await h.call('submitToolOutputs', { path, body: { tool_outputs } });
  await h.deps.agentRuns.live(body.id as string)?.done;
  return read(body.id as string);
}

/** A copy of a run as a process leaves it that is killed when the step of this index is durable. */
async function crashed(id: string, index: number, fields: Partial<AgentRunRecord> = {}) {
  const { stores, newId } = h.deps;
  const record = stores.agentRuns.get(id);
  const steps = stores.trajectories.path(record.leafStepId as string);
  const copy: AgentRunRecord = {
    ...record,
    id: newId('agentRun'),
    trajectoryId: newId('trajectory'),
    ...{ status: 'in_progress', answer: null, usage: null, error: null, endedAt: null },
    leafStepId: must(steps[index], 'a step').id,
    ...fields,
  };
  await stores.agentRuns.create(copy);
  return copy.id;
}

const kinds = (run: Parsed): string[] => run.steps.map(({ kind }: { kind: string }) => kind);
const tokens = (run: Parsed): number[][] =>
  run.steps.map((step: { tokens: number[] }) => step.tokens);

/** Steps of the log on the path of a run's trajectory. */
const logged = (run: Parsed): string[] =>
  h.deps.stores.trajectories.get(run.trajectory_id as string).steps.map(({ id }) => id);

describe('a run of an earlier process', () => {
  test.each([0, 1, 2, 3])('goes on from step %i to the same end', async (index) => {
    await start();
    const whole = await create({ tools: ['search'], background: true, seed: 7 });
    const id = await crashed(whole.id as string, index);
    await h.restartAgents();
    const run = await settled(id);
    expect(run).toMatchObject({ status: 'completed', answer: 'Paris', usage: whole.usage });
    expect(kinds(run)).toEqual(['prompt', 'policy', 'tool', 'policy']);
    expect(tokens(run)).toEqual(tokens(whole));
    expect(run.steps.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2, 3]);
    expect(logged(run)).toEqual(run.steps.map(({ id }: { id: string }) => id));
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory).toMatchObject({ endReason: 'answer', formatOk: true, toolCalls: 1 });
  });

  test('keeps its limits: what was sampled and called before counts', async () => {
    await start();
    h.engine.script = () => '<think>again</think><search>capital of France</search>';
    const whole = await create({ tools: ['search'], background: true, max_tool_calls: 2 });
    const { max_tokens } = { max_tokens: whole.steps[1].token_count as number };
    const id = await crashed(whole.id as string, 2);
    const request = { ...h.deps.stores.agentRuns.get(id).request, max_tokens };
    await h.deps.stores.agentRuns.update(id, { request });
    const other = await crashed(whole.id as string, 2);
    await h.restartAgents();
    expect(kinds(await settled(id))).toEqual(['prompt', 'policy', 'tool']);
    expect(kinds(await settled(other))).toEqual(kinds(whole));
    const ends = [id, other].map((one) => {
      const { trajectoryId } = h.deps.stores.agentRuns.get(one);
      return h.deps.stores.trajectories.find(trajectoryId as string)?.endReason;
    });
    expect(ends).toEqual(['max_tokens', 'max_tool_calls']);
  });

  test('in the foreground is cancelled, with its steps', async () => {
    await start();
    const whole = await create({ tools: ['search'] });
    const id = await crashed(whole.id as string, 2);
    await h.restartAgents();
    const run = await settled(id);
    expect(run).toMatchObject({ status: 'cancelled', error: { code: 'agent_run_interrupted' } });
    expect(kinds(run)).toEqual(['prompt', 'policy', 'tool']);
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory).toMatchObject({ status: 'cancelled', reward: null });
  });

  test('fails when its version is gone, or when it never gets further', async () => {
    await start();
    const whole = await create({ tools: ['search'], background: true });
    const gone = await crashed(whole.id as string, 2, { policyVersion: 77 });
    const record = h.deps.stores.agentRuns.get(whole.id as string);
    const steps = h.deps.stores.trajectories.path(record.leafStepId as string);
    const leafStepId = must(steps[2], 'a step').id;
    const tired = (count: number, leaf: string): Promise<string> => {
      const progress = must(record.progress, 'a run has progress');
      const attempts = { leafStepId: leaf, count };
      return crashed(whole.id as string, 2, { progress: { ...progress, attempts } });
    };
    const never = await tired(LIMITS.agentRunAttemptsMax, leafStepId);
    const further = await tired(LIMITS.agentRunAttemptsMax, 'step_before');
    await h.restartAgents();
    expect((await settled(gone)).error).toMatchObject({
      code: 'model_not_found',
      message: expect.stringContaining('policy version 77'),
    });
    expect((await settled(never)).error.code).toBe('agent_run_interrupted');
    expect((await settled(further)).status).toBe('completed');
    const { progress } = h.deps.stores.agentRuns.get(further);
    expect(progress?.attempts).toEqual({ leafStepId, count: 1 });
  });

  test('is queued while the engine starts, and can be cancelled then', async () => {
    await start();
    const whole = await create({ tools: ['search'], background: true });
    const [one, other] = [
      await crashed(whole.id as string, 2),
      await crashed(whole.id as string, 2),
    ];
    h.engine.state = 'starting';
    await h.restartAgents();
    await until(() => h.deps.stores.agentRuns.get(one).status === 'queued');
    expect((await read(one)).status).toBe('queued');
    const { body } = await h.call('cancelAgentRun', { path: { run_id: one } });
    expect(body).toMatchObject({ status: 'cancelled', error: { code: 'request_cancelled' } });
    h.engine.state = 'ready';
    expect(await settled(other)).toMatchObject({ status: 'completed', answer: 'Paris' });
  });
});

describe('a tool call whose result is lost', () => {
  const counted = (effects: Tool['effects']): { tool: Tool; calls: string[] } => {
    const calls: string[] = [];
    const run = async ({ query }: Record<string, unknown>): Promise<string> => {
      calls.push(query as string);
      return 'Paris is the capital of France.';
    };
    const parameters = { type: 'object', properties: { query: { type: 'string' } } };
    const fixed = { name: 'search', description: 's', primaryArgument: 'query', timeoutMs: 1_000 };
    return { tool: { ...fixed, parameters, effects, run }, calls };
  };

  test.each(['none', 'writes'] as const)('of a tool with effects: %s', async (effects) => {
    const { tool, calls } = counted(effects);
    await start({ tools: [tool] });
    const whole = await create({ tools: ['search'], background: true });
    expect(calls).toEqual(['capital of France']);
    const id = await crashed(whole.id as string, 1);
    await h.restartAgents();
    const run = await settled(id);
    if (effects === 'none') {
      expect(run.status).toBe('completed');
      expect(calls).toHaveLength(2);
      return;
    }
    expect(run).toMatchObject({ status: 'failed', error: { code: 'tool_call_uncertain' } });
    expect(run.error.message).toContain('search({"query":"capital of France"})');
    expect(calls).toHaveLength(1);
    // It is no fault of the policy, so it does not count against its version.
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory.status).toBe('cancelled');
  });

  /** A run that was cut off in its call, taken up while the tool is not there. */
  async function crashedInLateTool(effects: 'none' | 'writes', retryMs: number) {
    const { tool, calls } = counted(effects);
    await start({ tools: [], agentRuns: { retryMs } });
    const registry = h.deps.tools as ToolRegistry;
    registry.replaceGroup('late', [tool]);
    const whole = await create({ tools: ['search'], background: true });
    const id = await crashed(whole.id as string, 1);
    registry.replaceGroup('late', []);
    await h.restartAgents();
    return { registry, tool, calls, id };
  }

  test.each(['none', 'writes'] as const)('of a tool that connects late: %s', async (effects) => {
    const { registry, tool, calls, id } = await crashedInLateTool(effects, 20);
    await until(() => h.deps.stores.agentRuns.get(id).status === 'queued');
    registry.replaceGroup('late', [tool]);
    const run = await settled(id);
    const again = effects === 'none';
    expect(run.status).toBe(again ? 'completed' : 'failed');
    expect(run.error?.code).toBe(again ? undefined : 'tool_call_uncertain');
    expect(calls).toHaveLength(again ? 2 : 1);
  });

  test('of a tool that never comes back is not forgotten, and not made', async () => {
    const { id } = await crashedInLateTool('writes', 1);
    const run = await settled(id);
    expect(run).toMatchObject({ status: 'failed', error: { code: 'tool_call_uncertain' } });
    expect(kinds(run)).toEqual(['prompt', 'policy']);
  });

  test('with effects is begun only when it is durable that it will be', async () => {
    const { tool } = counted('writes');
    let stepsThen: string[] = [];
    const run = async (): Promise<string> => {
      const [record] = h.deps.stores.agentRuns.unfinished();
      const steps = h.deps.stores.trajectories.path(record?.leafStepId ?? '');
      stepsThen = steps.map(({ kind }) => kind);
      return 'Paris';
    };
    await start({ tools: [{ ...tool, run }] });
    await create({ tools: ['search'] });
    expect(stepsThen).toEqual(['prompt', 'policy']);
  });
});

describe('client functions', () => {
  const LOOKUP = {
    type: 'function',
    function: { name: 'lookup', parameters: { type: 'object' } },
  };
  const call = (name: string, query: string): string =>
    `<tool_call>\n{"name": "${name}", "arguments": {"query": "${query}"}}\n</tool_call>`;
  /** A client's call before and behind a server's, in one step. */
  const MIXED = (prompt: string): string =>
    prompt.includes('<tool_response>')
      ? 'It is Paris.<|im_end|>'
      : `${[call('lookup', 'a'), call('search', 'France'), call('lookup', 'b')].join('\n')}<|im_end|>`;

  test.each([false, true])('beside a server tool in one step; restart: %s', async (restart) => {
    await start({ protocol: 'hermes', contextTokens: 2_048 });
    h.engine.script = MIXED;
    const waiting = await create({ tools: ['search', LOOKUP], background: true });
    expect(waiting.status).toBe('requires_action');
    const { tool_calls } = waiting.required_action;
    expect(tool_calls.map((one: Parsed) => one.function.name)).toEqual(['lookup', 'lookup']);
    // The server's call has been made, and its result is durable.
    expect(kinds(waiting)).toEqual(['prompt', 'policy', 'tool']);
    expect(waiting.steps[2].tool_call.result).toContain('Paris is the capital');
    if (restart) await h.restartAgents();
    const path = { run_id: waiting.id as string };
    const tool_outputs = [
      { tool_call_id: tool_calls[1].id as string, output: 'second' },
      { tool_call_id: tool_calls[0].id as string, output: 'first' },
    ];
    const missing = await h.call('submitToolOutputs', {
      path,
      body: { tool_outputs: tool_outputs.slice(0, 1) },
    });
    expect(missing.code).toBe('invalid_request');
    expect(missing.body.error.message).toContain(`'${tool_calls[0].id}' has no output`);
    await h.call('submitToolOutputs', { path, body: { tool_outputs } });
    const run = await settled(waiting.id as string);
    expect(run).toMatchObject({ status: 'completed', answer: 'It is Paris.' });
    expect(kinds(run)).toEqual(['prompt', 'policy', 'tool', 'tool', 'tool', 'policy']);
    // The policy reads the results in the order of its calls, whoever was first.
    const seen = run.steps[4].text as string;
    const places = ['first', 'Paris is the capital', 'second'].map((text) => seen.indexOf(text));
    expect(places.every((place) => place >= 0)).toBe(true);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(run.steps.slice(2, 5).map((step: Parsed) => step.tool_call.served)).toEqual([
      'live',
      'client',
      'client',
    ]);
    expect(logged(run)).toEqual(run.steps.map(({ id }: { id: string }) => id));
    expect(run.trajectory_id).toBe(waiting.trajectory_id);
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory).toMatchObject({ toolCalls: 3, endReason: 'answer' });
  });

  test('one after the other: the run waits again, and its tokens go on as they are', async () => {
    await start();
    h.engine.script = (prompt) => {
      const results = prompt.split('<result>').length - 1;
      if (results === 2) return '<think>both</think><answer>\\boxed{Paris}</answer><|im_end|>';
      return `<think>${results}</think><search>capital of France</search>`;
    };
    let run = await create({ tools: [SEARCH], max_tool_calls: 2 });
    const first = run.required_action.tool_calls[0].id;
    run = await submit(run, { search: 'one' });
    expect(run.status).toBe('requires_action');
    expect(run.required_action.tool_calls[0].id).not.toBe(first);
    await h.restartAgents();
    const given = tokens(run).flat();
    run = await submit(run, { search: 'two' });
    expect(run).toMatchObject({ status: 'completed', answer: 'Paris' });
    expect(h.engine.promptTokens.slice(0, given.length)).toEqual(given);
    expect(tokens(run).flat().slice(0, given.length)).toEqual(given);
  });

  test('over the limit of calls the run ends and does not wait', async () => {
    await start();
    const run = await create({ tools: [SEARCH], max_tool_calls: 0 });
    expect(run).toMatchObject({ status: 'completed', answer: null, required_action: null });
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory.endReason).toBe('max_tool_calls');
  });

  test('results that do not fit the window end the run; they are in the log', async () => {
    await start();
    const run = await submit(await create({ tools: [SEARCH] }), { search: 'capital '.repeat(600) });
    expect(run).toMatchObject({ status: 'completed', answer: null });
    expect(run.steps[2]).toMatchObject({ token_count: 0 });
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory.endReason).toBe('context');
  });

  test('a run that waits too long fails, and takes no results any more', async () => {
    await start({ agentRuns: { waitMs: 30, sweepMs: 5 } });
    const run = await create({ tools: [SEARCH] });
    await until(() => h.deps.stores.agentRuns.get(run.id as string).status === 'failed');
    const after = await read(run.id as string);
    expect(after).toMatchObject({ error: { code: 'agent_run_expired' }, expires_at: null });
    const { trajectory } = h.deps.stores.trajectories.get(run.trajectory_id as string);
    expect(trajectory.status).toBe('cancelled');
    const path = { run_id: run.id as string };
    const tool_outputs = [{ tool_call_id: run.required_action.tool_calls[0].id, output: 'x' }];
    const late = await h.call('submitToolOutputs', { path, body: { tool_outputs } });
    expect(late.code).toBe('agent_run_not_waiting');
  });

  test('a version that is gone ends the run that goes on', async () => {
    await start();
    const run = await create({ tools: [SEARCH] });
    await h.deps.stores.agentRuns.update(run.id as string, { policyVersion: 77 });
    await h.restartAgents();
    const after = await submit(run, { search: 'one' });
    expect(after).toMatchObject({ status: 'failed', error: { code: 'model_not_found' } });
  });

  test('events: a follower stays through the wait; a submitted stream goes on behind it', async () => {
    await start();
    const { body: begun } = await h.call('createAgentRun', {
      body: { input: 'x', tools: [SEARCH], stream: true },
    });
    expect(begun.at(-1).type).toBe('run.requires_action');
    const { run } = begun.at(-1);
    const path = { run_id: run.id as string };
    const following = h.call('streamAgentRunEvents', { path, query: { after: '1' } });
    await until(() => h.deps.lifecycle.active > 0);
    const tool_outputs = [{ tool_call_id: run.required_action.tool_calls[0].id, output: 'Paris' }];
    const body = { tool_outputs, stream: true };
    const rest = await h.call('submitToolOutputs', { path, body });
    const types = (await following).body.map(({ type }: { type: string }) => type);
    expect(types).toEqual([
      ...['step.delta', 'step.completed', 'run.requires_action'],
      ...rest.body.map(({ type }: { type: string }) => type),
    ]);
    expect(types.at(-1)).toBe('run.completed');
  });
});

describe('an engine that fails', () => {
  const failing = new AppError('engine_unavailable', 'the worker stopped');

  test('lets a background run go on from its last step when it is back', async () => {
    await start({ agentRuns: { retryMs: 5 } });
    const whole = await create({ tools: ['search'], seed: 7 });
    let failures = 0;
    h.engine.script = (prompt) => {
      if (prompt.includes('<result>') && failures++ < 3) throw failing;
      return CAPITAL_SCRIPT(prompt);
    };
    const request = { input: 'capital?', tools: ['search'], seed: 7, background: true };
    const { body } = await h.call('createAgentRun', { body: request });
    const run = await settled(body.id as string);
    expect(failures).toBe(4);
    expect(run).toMatchObject({ status: 'completed', answer: 'Paris', usage: whole.usage });
    expect(tokens(run)).toEqual(tokens(whole));
  });

  test('again and again fails it in the end, and a foreground run at once', async () => {
    await start({ agentRuns: { retryMs: 5 } });
    h.engine.sampleFault = failing;
    const { body } = await h.call('createAgentRun', { body: { input: 'x', background: true } });
    await until(() => h.deps.stores.agentRuns.get(body.id as string).status === 'queued');
    expect(await settled(body.id as string)).toMatchObject({
      status: 'failed',
      error: { code: 'engine_unavailable', message: 'the worker stopped' },
    });
    const { progress } = h.deps.stores.agentRuns.get(body.id as string);
    expect(progress?.attempts?.count).toBe(LIMITS.agentRunAttemptsMax);
    const foreground = await h.call('createAgentRun', { body: { input: 'x' } });
    expect(foreground.code).toBe('engine_unavailable');
  });
});

test('more runs at once than the limit are refused; one that waits still waits', async () => {
  await start();
  h.engine.sequencesMax = 2 * LIMITS.agentRunsActiveMax;
  const waiting = await create({ tools: [SEARCH] });
  h.engine.pieceMs = 200;
  h.engine.script = () => '<think>capital of France '.repeat(20);
  const ids: string[] = [];
  for (let i = 0; i < LIMITS.agentRunsActiveMax; i++) {
    const { body } = await h.call('createAgentRun', { body: { input: 'x', background: true } });
    ids.push(body.id as string);
  }
  const refused = await h.call('createAgentRun', { body: { input: 'x' } });
  expect(refused.code).toBe('queue_full');
  const [call] = waiting.required_action.tool_calls;
  const options = {
    path: { run_id: waiting.id as string },
    body: { tool_outputs: [{ tool_call_id: call.id, output: 'Paris' }] },
  };
  expect((await h.call('submitToolOutputs', options)).code).toBe('queue_full');
  await Promise.all(ids.map((run_id) => h.call('cancelAgentRun', { path: { run_id } })));
  h.engine.script = CAPITAL_SCRIPT;
  h.engine.pieceMs = 0;
  expect((await h.call('submitToolOutputs', options)).body.status).toBe('completed');
});

test('a log that cannot be written fails the run; nothing more is sampled', async () => {
  await start();
  h.engine.pieceMs = 5;
  h.engine.script = () => '<think>x</think><search>capital of France</search>';
  const { body } = await h.call('createAgentRun', {
    body: { input: 'x', tools: ['search'], background: true, max_tool_calls: 64 },
  });
  const live = must(h.deps.agentRuns.live(body.id as string), 'a live run');
  await until(() => live.feed.steps.length > 2);
  h.fault.thrown = new TypeError('secret detail');
  await live.done;
  h.fault.thrown = null;
  expect(live.record).toMatchObject({ status: 'failed', error: { code: 'internal' } });
  expect(live.record.error?.message).not.toContain('secret');
  expect(h.engine.stats().openSequences).toBe(0);
});
