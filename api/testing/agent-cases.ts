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
    what: 'a client function among server tools ends the run with requires_action',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return agent(h, { messages: QUESTION, tools: [SEARCH] });
    },
    check: ({ body }) => {
      expect(body.status).toBe('requires_action');
      expect(body.required_action.tool_calls[0].function.name).toBe('search');
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
    what: 'the policy worker stopped before the first token',
    status: 503,
    code: 'engine_unavailable',
    call: (h) =>
      withFault(h, new AppError('engine_unavailable', 'the worker stopped'), () =>
        agent(h, { input: 'x' }),
      ),
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
  ...(['getAgentRun', 'streamAgentRunEvents', 'cancelAgentRun'] as const).flatMap(
    (operation): Case[] => [
      {
        operation,
        what: 'an unknown run',
        status: 404,
        code: 'agent_run_not_found',
        call: (h) => h.call(operation, { path: { run_id: 'run_0' } }),
      },
      {
        operation,
        what: 'an id of another kind',
        status: 400,
        code: 'invalid_request',
        call: (h) => h.call(operation, { path: { run_id: 'traj_0' } }),
      },
    ],
  ),
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
