/** Cases of the operations tagged agent. */
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Case } from './cases.ts';
import { QUESTION, SEARCH, withFault } from './chat-cases.ts';
import { CAPITAL_SCRIPT } from './harness.ts';
import type { Answer, CallOptions, Harness } from './harness.ts';

const agent = (h: Harness, body: object, options: CallOptions = {}): Promise<Answer> =>
  h.call('createAgentRun', { body, ...options });

export async function finishedRun(h: Harness): Promise<string> {
  h.engine.script = CAPITAL_SCRIPT;
  const { body } = await agent(h, { input: 'What is the capital of France?', tools: ['search'] });
  return body.id as string;
}

/** A background run that waits for its client's search. */
export async function waitingRun(h: Harness): Promise<{ id: string; call: string }> {
  h.engine.script = CAPITAL_SCRIPT;
  const { body } = await agent(h, { messages: QUESTION, tools: [SEARCH], background: true });
  const id = body.id as string;
  await h.deps.agentRuns.live(id)?.done;
  const { body: run } = await h.call('getAgentRun', { path: { run_id: id } });
  return { id, call: run.required_action.tool_calls[0].id as string };
}

const outputs = (call: string, output = 'Paris is the capital of France.') => [
  { tool_call_id: call, output },
];

/** Sends results to a foreground run that waits. */
async function submit(h: Harness, fields: object = {}, body?: object): Promise<Answer> {
  h.engine.script = CAPITAL_SCRIPT;
  const { body: run } = await agent(h, { messages: QUESTION, tools: [SEARCH], seed: 5 });
  const call = run.required_action.tool_calls[0].id as string;
  return h.call('submitToolOutputs', {
    path: { run_id: run.id },
    body: body ?? { tool_outputs: outputs(call), ...fields },
  });
}

export const AGENT_CASES: Case[] = [
  {
    operation: 'createAgentRun',
    what: 'steps with entropies, the tool run by the server, the answer',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      const input = 'What is the capital of France?';
      return agent(h, { input, tools: ['search'], seed: 3, metadata: { k: 'v' } });
    },
    check: async ({ body, headers }, h) => {
      expect(body.status).toBe('completed');
      expect(body.answer).toBe('Paris');
      expect(body.metadata).toEqual({ k: 'v' });
      const kinds = body.steps.map(({ kind }: { kind: string }) => kind);
      expect(kinds).toEqual(['prompt', 'policy', 'tool', 'policy']);
      expect(body.steps[2].tool_call.result).toContain('Paris is the capital');
      expect(body.steps[1].entropy.mean).toBeGreaterThan(0);
      expect(body.steps[1].entropy.delta).toBe(0);
      expect(headers.get('x-ramify-trajectory')).toBe(body.trajectory_id);
      const stored = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(stored.steps).toHaveLength(4);
      expect(h.deps.stores.agentRuns.get(body.id as string).status).toBe('completed');
    },
  },
  {
    operation: 'createAgentRun',
    what: 'as a stream of its events',
    status: 200,
    call: (h) => agent(h, { input: 'x', stream: true }),
    check: ({ body }) => {
      const types = body.map(({ type }: { type: string }) => type);
      expect([types.at(0), types.at(-1)]).toEqual(['run.created', 'run.completed']);
    },
  },
  {
    operation: 'createAgentRun',
    what: 'a call of a client function makes the run wait',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return agent(h, { messages: QUESTION, tools: [SEARCH] });
    },
    check: ({ body }, h) => {
      expect(body.status).toBe('requires_action');
      expect(body.required_action.tool_calls[0].function.name).toBe('search');
      expect(body.ended_at).toBeNull();
      const waitMs = Date.parse(body.expires_at as string) - Date.parse(body.created_at as string);
      expect(waitMs).toBeGreaterThanOrEqual(LIMITS.agentRunWaitMs);
      const { trajectory } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(trajectory.endReason).toBe('tool_calls');
    },
  },
  {
    operation: 'createAgentRun',
    what: 'a run whose time is over',
    status: 200,
    call: async (h) => {
      h.engine.pieceMs = 300;
      h.engine.script = () => '<think>capital of France '.repeat(20);
      const answer = await agent(h, { input: 'x', timeout_s: 1 });
      h.engine.pieceMs = 0;
      return answer;
    },
    check: ({ body }) => {
      expect(body.status).toBe('failed');
      expect(body.error.code).toBe('request_timeout');
      expect(body.error.message).toContain('1 s');
    },
  },
  {
    operation: 'createAgentRun',
    what: 'a tool failure is a result that the policy reads, not an error',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return agent(h, { input: 'x', tools: ['search'], max_tool_calls: 0 });
    },
    check: ({ body }, h) => {
      expect(body.status).toBe('completed');
      expect(body.answer).toBeNull();
      const { trajectory } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(trajectory.endReason).toBe('max_tool_calls');
    },
  },
  {
    operation: 'createAgentRun',
    what: 'in the background',
    status: 202,
    call: (h) => agent(h, { input: 'x', background: true }),
    check: async ({ body }, h) => {
      await h.deps.agentRuns.live(body.id as string)?.done;
      const { body: after } = await h.call('getAgentRun', { path: { run_id: body.id } });
      expect(after.status).toBe('completed');
    },
  },
  ...[
    {},
    { input: 'x', messages: QUESTION },
    { input: 'x', tools: ['search', 'search'] },
    { input: 'x', max_tool_calls: 1000 },
    { input: 'x', timeout_s: 0 },
    { input: 'x', tools: ['search', SEARCH] },
  ].map((body): Case => ({
    operation: 'createAgentRun',
    what: `refuses ${JSON.stringify(body)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => agent(h, body),
  })),
  {
    operation: 'createAgentRun',
    what: 'a part that is no text',
    status: 400,
    code: 'unsupported_parameter',
    call: (h) => agent(h, { messages: [{ role: 'user', content: [{ type: 'file' }] }] }),
  },
  {
    operation: 'createAgentRun',
    what: 'a prompt that is longer than the window',
    status: 400,
    code: 'context_length_exceeded',
    call: (h) => agent(h, { input: 'capital '.repeat(600) }),
  },
  {
    operation: 'createAgentRun',
    what: 'a server tool that does not exist',
    status: 400,
    code: 'unknown_tool',
    call: (h) => agent(h, { input: 'x', tools: ['telescope'] }),
  },
  {
    operation: 'createAgentRun',
    what: 'an unknown model',
    status: 404,
    code: 'model_not_found',
    call: (h) => agent(h, { input: 'x', model: 'ramify@77' }),
  },
  {
    operation: 'createAgentRun',
    what: 'no slot is left',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      h.engine.sequencesMax = 0;
      const answer = await agent(h, { input: 'x' });
      h.engine.sequencesMax = 64;
      return answer;
    },
  },
  {
    operation: 'createAgentRun',
    what: 'no more runs may wait for their clients',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const { id } = await waitingRun(h);
      const waiting = h.deps.stores.agentRuns.get(id);
      await Promise.all(
        Array.from({ length: LIMITS.agentRunsWaitingMax }, (_, i) =>
          h.deps.stores.agentRuns.create({ ...waiting, id: `${id}-${i}` }),
        ),
      );
      // One that needs no client is not refused.
      expect((await agent(h, { input: 'x' })).status).toBe(200);
      return agent(h, { input: 'x', tools: [SEARCH] });
    },
  },
  {
    operation: 'createAgentRun',
    what: 'the policy worker stopped before the first token',
    status: 503,
    code: 'engine_unavailable',
    call: (h) =>
      withFault(h, new AppError('engine_unavailable', 'the worker stopped'), () =>
        agent(h, { input: 'x' }),
      ),
  },
  {
    operation: 'listAgentRuns',
    what: 'pages by status, newest first',
    status: 200,
    call: async (h) => {
      const ended = await finishedRun(h);
      const { id } = await waitingRun(h);
      await finishedRun(h);
      const first = await h.call('listAgentRuns', {
        query: { status: 'completed', limit: 1 },
      });
      expect(first.body.has_more).toBe(true);
      const waiting = await h.call('listAgentRuns', { query: { status: 'requires_action' } });
      expect(waiting.body.data.map((run: { id: string }) => run.id)).toEqual([id]);
      expect(waiting.body.data[0].required_action.tool_calls).toHaveLength(1);
      const next = await h.call('listAgentRuns', {
        query: { status: 'completed', cursor: first.body.next_cursor as string },
      });
      expect(next.body.data.map((run: { id: string }) => run.id)).toEqual([ended]);
      return next;
    },
  },
  {
    operation: 'listAgentRuns',
    what: 'a status that does not exist',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listAgentRuns', { query: { status: 'idle' } }),
  },
  {
    operation: 'submitToolOutputs',
    what: 'the same run and trajectory go on to the answer',
    status: 200,
    call: (h) => submit(h),
    check: ({ body, headers }, h) => {
      expect(body).toMatchObject({ status: 'completed', answer: 'Paris', expires_at: null });
      expect(body.required_action).toBeNull();
      const kinds = body.steps.map(({ kind }: { kind: string }) => kind);
      expect(kinds).toEqual(['prompt', 'policy', 'tool', 'policy']);
      const call = { served: 'client', effects: 'writes', error: null };
      expect(body.steps[2].tool_call).toMatchObject(call);
      expect(body.steps[2].text).toBe('<result>Paris is the capital of France.</result>');
      expect(headers.get('x-ramify-trajectory')).toBe(body.trajectory_id);
      const { trajectory, steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(trajectory).toMatchObject({ endReason: 'answer', toolCalls: 1, formatOk: true });
      expect(steps.map(({ id }) => id)).toEqual(body.steps.map(({ id }: { id: string }) => id));
      expect(body.usage.completion_tokens).toBe(trajectory.sampledTokens);
    },
  },
  {
    operation: 'submitToolOutputs',
    what: 'as a stream of what comes after the wait',
    status: 200,
    call: (h) => submit(h, { stream: true }),
    check: ({ body }) => {
      const types = body.map(({ type }: { type: string }) => type);
      expect(types[0]).toBe('step.completed');
      expect(types.at(-1)).toBe('run.completed');
      expect(body[0].step.tool_call.served).toBe('client');
    },
  },
  {
    operation: 'submitToolOutputs',
    what: 'in the background',
    status: 202,
    call: async (h) => {
      const { id, call } = await waitingRun(h);
      const body = { tool_outputs: outputs(call) };
      return h.call('submitToolOutputs', { path: { run_id: id }, body });
    },
    check: async ({ body }, h) => {
      expect(body.steps[2].kind).toBe('tool');
      await h.deps.agentRuns.live(body.id as string)?.done;
      const { body: after } = await h.call('getAgentRun', { path: { run_id: body.id } });
      expect(after).toMatchObject({ status: 'completed', answer: 'Paris' });
    },
  },
  ...(
    [
      ['an unknown id', () => outputs('call_0'), /call_0.*no call that the run waits for/],
      ['an id twice', (id) => [...outputs(id), ...outputs(id)], /given twice/],
    ] as [string, (id: string) => object[], RegExp][]
  ).map(([what, tool_outputs, message]): Case => ({
    operation: 'submitToolOutputs',
    what,
    status: 400,
    code: 'invalid_request',
    call: async (h) => {
      const { id, call } = await waitingRun(h);
      const body = { tool_outputs: tool_outputs(call) };
      return h.call('submitToolOutputs', { path: { run_id: id }, body });
    },
    check: async ({ body }, h) => {
      expect(body.error.message).toMatch(message);
      const { data } = (await h.call('listAgentRuns')).body;
      expect(data[0].status).toBe('requires_action');
    },
  })),
  {
    operation: 'submitToolOutputs',
    what: 'a run that has ended',
    status: 409,
    code: 'agent_run_not_waiting',
    call: async (h) => {
      const body = { tool_outputs: outputs('call_0') };
      return h.call('submitToolOutputs', { path: { run_id: await finishedRun(h) }, body });
    },
    check: ({ body }) => expect(body.error.message).toContain('is completed'),
  },
  {
    operation: 'submitToolOutputs',
    what: 'the same results a second time',
    status: 409,
    code: 'agent_run_not_waiting',
    call: async (h) => {
      const { id, call } = await waitingRun(h);
      const options = { path: { run_id: id }, body: { tool_outputs: outputs(call) } };
      const [first, second] = await Promise.all([
        h.call('submitToolOutputs', options),
        h.call('submitToolOutputs', options),
      ]);
      expect(first.status).toBe(202);
      return second;
    },
  },
  {
    operation: 'submitToolOutputs',
    what: 'no slot is left; the run still waits',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const { id, call } = await waitingRun(h);
      const options = { path: { run_id: id }, body: { tool_outputs: outputs(call) } };
      h.engine.sequencesMax = 0;
      const refused = await h.call('submitToolOutputs', options);
      h.engine.sequencesMax = 64;
      expect((await h.call('submitToolOutputs', options)).status).toBe(202);
      return refused;
    },
  },
  {
    operation: 'submitToolOutputs',
    what: 'the policy worker is not there; the run still waits',
    status: 503,
    code: 'engine_unavailable',
    call: async (h) => {
      const { id, call } = await waitingRun(h);
      const options = { path: { run_id: id }, body: { tool_outputs: outputs(call) } };
      h.engine.state = 'starting';
      const refused = await h.call('submitToolOutputs', options);
      h.engine.state = 'ready';
      expect((await h.call('submitToolOutputs', options)).status).toBe(202);
      return refused;
    },
  },
  {
    operation: 'cancelAgentRun',
    what: 'a run that waits for its client',
    status: 200,
    call: async (h) => h.call('cancelAgentRun', { path: { run_id: (await waitingRun(h)).id } }),
    check: async ({ body }, h) => {
      expect(body).toMatchObject({ status: 'cancelled', required_action: null });
      const { trajectory } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(trajectory).toMatchObject({ status: 'cancelled', endReason: 'cancelled' });
      const again = await h.call('cancelAgentRun', { path: { run_id: body.id } });
      expect(again.body).toEqual(body);
    },
  },
  {
    operation: 'getAgentRun',
    what: 'with tokens, from memory',
    status: 200,
    call: async (h) => {
      const id = await finishedRun(h);
      return h.call('getAgentRun', { path: { run_id: id }, query: { include: 'tokens' } });
    },
    check: ({ body }) => {
      const policy = body.steps[1];
      expect(policy.tokens).toHaveLength(policy.token_count as number);
      expect(policy.entropies).toHaveLength(policy.token_count as number);
      expect(body.steps[0].logprobs.every((value: unknown) => value === null)).toBe(true);
    },
  },
  {
    operation: 'streamAgentRunEvents',
    what: 'every event of a run that has ended, in order',
    status: 200,
    call: async (h) => {
      const id = await finishedRun(h);
      return h.call('streamAgentRunEvents', { path: { run_id: id } });
    },
    check: ({ body }) => {
      const types = body.map(({ type }: { type: string }) => type);
      expect(types[0]).toBe('run.created');
      expect(types.at(-1)).toBe('run.completed');
      expect(types.filter((type: string) => type === 'step.completed')).toHaveLength(4);
    },
  },
  {
    operation: 'cancelAgentRun',
    what: 'a background run',
    status: 200,
    call: async (h) => {
      h.engine.pieceMs = 5;
      h.engine.script = () => '<think>capital of France '.repeat(20);
      const { body } = await agent(h, { input: 'x', background: true });
      return h.call('cancelAgentRun', { path: { run_id: body.id } });
    },
    check: ({ body }, h) => {
      h.engine.pieceMs = 0;
      expect(body.status).toBe('cancelled');
      expect(body.error.code).toBe('request_cancelled');
    },
  },
  {
    operation: 'cancelAgentRun',
    what: 'a run that has ended is returned as it is',
    status: 200,
    call: async (h) => h.call('cancelAgentRun', { path: { run_id: await finishedRun(h) } }),
    check: ({ body }) => expect(body.status).toBe('completed'),
  },
  ...(
    ['getAgentRun', 'streamAgentRunEvents', 'submitToolOutputs', 'cancelAgentRun'] as const
  ).flatMap((operation): Case[] => {
    const body =
      operation === 'submitToolOutputs' ? { body: { tool_outputs: outputs('call_0') } } : {};
    return [
      {
        operation,
        what: 'an unknown run',
        status: 404,
        code: 'agent_run_not_found',
        call: (h) => h.call(operation, { path: { run_id: 'run_0' }, ...body }),
      },
      {
        operation,
        what: 'an id of another kind',
        status: 400,
        code: 'invalid_request',
        call: (h) => h.call(operation, { path: { run_id: 'traj_0' }, ...body }),
      },
    ];
  }),
  {
    operation: 'streamAgentRunEvents',
    what: 'an id that is no place in a run',
    status: 400,
    code: 'invalid_request',
    call: async (h) => {
      const path = { run_id: await finishedRun(h) };
      return h.call('streamAgentRunEvents', { path, headers: { 'last-event-id': '3.x' } });
    },
  },
  {
    operation: 'streamAgentRunEvents',
    what: 'too many streams',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const id = await finishedRun(h);
      const path = { run_id: id };
      h.engine.pieceMs = 20;
      h.engine.script = () => '<think>capital of France '.repeat(20);
      const { body } = await agent(h, { input: 'x', background: true });
      const url = `http://127.0.0.1/v1/agent/runs/${body.id}/events`;
      const open = await Promise.all(
        Array.from({ length: LIMITS.eventStreamsMax }, async () => await h.app.request(url)),
      );
      const answer = await h.call('streamAgentRunEvents', { path });
      for (const response of open) await response.body?.cancel();
      await h.call('cancelAgentRun', { path: { run_id: body.id } });
      h.engine.pieceMs = 0;
      return answer;
    },
  },
];
