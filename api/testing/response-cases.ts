/** Cases of the operations tagged responses. */
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Case } from './cases.ts';
import { CAPITAL_SCRIPT } from './harness.ts';
import type { Answer, CallOptions, Harness, Parsed } from './harness.ts';

const QUESTION = 'What is the capital of France?';
export const RESPONSE = { model: 'ramify', input: QUESTION };
export const SEARCH = {
  type: 'function',
  name: 'search',
  parameters: { type: 'object', properties: {} },
};
export const SERVER_SEARCH = { type: 'mcp', server_label: 'ramify', allowed_tools: ['search'] };

export const respond = (h: Harness, body: object, options: CallOptions = {}): Promise<Answer> =>
  h.call('createResponse', { body: { ...RESPONSE, ...body }, ...options });

export async function storedResponse(h: Harness): Promise<CallOptions> {
  const { body } = await respond(h, {});
  return { path: { response_id: body.id } };
}

const at = (id: string): CallOptions => ({ path: { response_id: id } });

/** Of a finished answer: types and statuses of its items. */
const kinds = (body: Parsed): string[] =>
  body.output.map(({ type, status }: Parsed) => `${type} ${status}`);
const types = (frames: Parsed[]): string[] => frames.map(({ type }: Parsed) => type);

const asksClient = (h: Harness, extra: object, session = false): Promise<Answer> => {
  h.engine.script = CAPITAL_SCRIPT;
  const headers: Record<string, string> = session ? { 'x-session-id': 'session-1' } : {};
  return respond(h, { tools: [SEARCH], ...extra }, { headers });
};
const FOUND = 'Paris is the capital of France.';
const outputFor = (body: Parsed) => {
  const call = body.output.find(({ type }: Parsed) => type === 'function_call');
  return { type: 'function_call_output', call_id: call.call_id, output: FOUND };
};

/** A response in the background that is still at work, for some seconds or the tenth of that. */
export async function working(h: Harness, sentences = 20): Promise<string> {
  h.engine.pieceMs = 20;
  const thought = 'I need to search for France. '.repeat(sentences);
  h.engine.script = () => `<think>${thought}</think><answer>\\boxed{Paris}</answer><|im_end|>`;
  const { body } = await respond(h, { background: true });
  expect(body.status).toBe('in_progress');
  return body.id as string;
}

const CREATED: Case[] = [
  {
    operation: 'createResponse',
    what: 'thoughts and answer as items, stored',
    status: 200,
    call: (h) => respond(h, { instructions: 'Be short.', metadata: { a: 'b' }, temperature: 0.5 }),
    check: async ({ body, headers }, h) => {
      expect(body.status).toBe('completed');
      expect(kinds(body)).toEqual(['reasoning completed', 'message completed']);
      const [thought, message] = body.output;
      expect(thought.content).toEqual([{ type: 'reasoning_text', text: 'I know it.' }]);
      expect(message.content).toEqual([{ type: 'output_text', text: 'Paris', annotations: [] }]);
      expect([thought.id, message.id].join()).toMatch(/^rs_.*,msg_/);
      const id = headers.get('x-ramify-trajectory') as string;
      expect(body.trajectory_id).toBe(id);
      const { steps } = h.deps.stores.trajectories.get(id);
      const sampled = steps[1]?.tokens.length ?? 0;
      expect(body.usage).toMatchObject({
        input_tokens: steps[0]?.tokens.length,
        output_tokens: sampled,
        total_tokens: (steps[0]?.tokens.length ?? 0) + sampled,
      });
      const { reasoning_tokens: thoughts } = body.usage.output_tokens_details;
      expect(thoughts).toBeGreaterThan(2);
      expect(thoughts).toBeLessThan(sampled);
      expect(body).toMatchObject({
        metadata: { a: 'b' },
        temperature: 0.5,
        tools: [],
        store: true,
      });
      const read = await h.call('getResponse', at(body.id as string));
      expect(read.body).toEqual(body);
    },
  },
  {
    operation: 'createResponse',
    what: 'the stream: every event in its order, the same end as a plain answer',
    status: 200,
    call: (h) =>
      respond(h, { stream: true, include: ['message.output_text.logprobs'], top_logprobs: 2 }),
    check: async ({ body: frames, text }, h) => {
      expect(frames.map(({ sequence_number: n }: Parsed) => n)).toEqual([...frames.keys()]);
      const order = types(frames).filter((type, i, all) => type !== all[i - 1]);
      expect(order).toEqual([
        ...['response.created', 'response.in_progress', 'response.output_item.added'],
        ...['response.content_part.added', 'response.reasoning_text.delta'],
        ...['response.reasoning_text.done', 'response.content_part.done'],
        ...['response.output_item.done', 'response.output_item.added'],
        ...['response.content_part.added', 'response.output_text.delta'],
        ...['response.output_text.done', 'response.content_part.done'],
        ...['response.output_item.done', 'response.completed'],
      ]);
      expect(text).not.toContain('[DONE]');
      const { response } = frames.at(-1);
      const [{ logprobs }] = response.output[1].content;
      const { steps } = h.deps.stores.trajectories.get(response.trajectory_id as string);
      expect(logprobs).toHaveLength(steps[1]?.tokens.length ?? -1);
      for (const one of logprobs) expect(one.top_logprobs).toHaveLength(2);
      const deltas = frames.filter(({ type }: Parsed) => type === 'response.output_text.delta');
      expect(deltas.flatMap((frame: Parsed) => frame.logprobs)).toEqual(logprobs);
      expect((await h.call('getResponse', at(response.id as string))).body).toEqual(response);
    },
  },
  {
    operation: 'createResponse',
    what: 'a tool of this server is run here',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return respond(h, { tools: [SERVER_SEARCH] });
    },
    check: ({ body }, h) => {
      expect(kinds(body)).toEqual([
        'reasoning completed',
        'mcp_call completed',
        'reasoning completed',
        'message completed',
      ]);
      const call = body.output[1];
      expect(call).toMatchObject({ name: 'search', error: null, server_label: 'ramify' });
      expect(JSON.parse(call.arguments as string)).toEqual({ query: 'capital of France' });
      expect(call.output).toContain(FOUND);
      const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      const given = steps.filter(({ kind }) => kind !== 'policy');
      const sum = given.reduce((total, { tokens }) => total + tokens.length, 0);
      expect(body.usage.input_tokens).toBe(sum);
    },
  },
  {
    operation: 'createResponse',
    what: 'events of a call that is run here',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return respond(h, { tools: [SERVER_SEARCH], stream: true });
    },
    check: ({ body }) => {
      const calls = types(body).filter((type) => type.includes('mcp'));
      expect(calls).toEqual([
        'response.mcp_call.in_progress',
        'response.mcp_call_arguments.delta',
        'response.mcp_call_arguments.done',
        'response.mcp_call.completed',
      ]);
    },
  },
  {
    operation: 'createResponse',
    what: 'calls of this server over their limit end it incomplete',
    status: 200,
    call: (h) => {
      h.engine.script = () => '<search>capital of France</search>';
      return respond(h, { tools: [SERVER_SEARCH], max_tool_calls: 2 });
    },
    check: ({ body }) => {
      expect(body.status).toBe('incomplete');
      expect(body.incomplete_details).toEqual({ reason: 'max_tool_calls' });
      expect(kinds(body)).toEqual([
        'mcp_call completed',
        'mcp_call completed',
        'mcp_call incomplete',
      ]);
    },
  },
  {
    operation: 'createResponse',
    what: 'a limit on tokens cuts it: incomplete',
    status: 200,
    call: (h) => respond(h, { max_output_tokens: 3 }),
    check: ({ body }) => {
      expect(body.status).toBe('incomplete');
      expect(body.incomplete_details).toEqual({ reason: 'max_output_tokens' });
      expect(kinds(body)).toEqual(['reasoning incomplete']);
      expect(body.usage.output_tokens).toBe(3);
    },
  },
  ...(['previous_response_id', 'items', 'item references', 'conversation'] as const).map(
    (way): Case => ({
      operation: 'createResponse',
      what: `a function's output goes on from the stored tokens, by ${way}`,
      status: 200,
      call: async (h) => {
        const first = await asksClient(h, {}, way === 'conversation');
        expect(kinds(first.body)).toEqual(['reasoning completed', 'function_call completed']);
        const { id, output, conversation } = first.body;
        const said = { role: 'user', content: [{ type: 'input_text', text: QUESTION }] };
        const references = output.map((item: Parsed) => ({ type: 'item_reference', id: item.id }));
        const input = [outputFor(first.body)];
        const body = {
          previous_response_id: { previous_response_id: id, input },
          items: { input: [said, ...output, ...input] },
          'item references': { input: [said, ...references, ...input] },
          conversation: { conversation, input },
        }[way];
        return asksClient(h, body);
      },
      check: ({ body }, h) => {
        expect(body.output.at(-1).content[0].text).toBe('Paris');
        const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
        expect(steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy', 'tool', 'policy']);
        expect(steps[2]?.toolCall).toMatchObject({ result: FOUND, served: 'client' });
        const held = steps.slice(0, 3).flatMap(({ tokens }) => [...tokens]);
        expect(h.engine.promptTokens).toEqual(held);
      },
    }),
  ),
  {
    operation: 'createResponse',
    what: 'a conversation with a call of this server goes on from its stored tokens',
    status: 200,
    call: async (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      const { body } = await respond(h, { tools: [SERVER_SEARCH] });
      return respond(h, {
        ...{ previous_response_id: body.id, tools: [SERVER_SEARCH], input: 'Sure?' },
        max_tool_calls: 1,
      });
    },
    check: async ({ body }, h) => {
      const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(steps.map(({ kind }) => kind)).toEqual([
        ...['prompt', 'policy', 'tool', 'policy', 'prompt', 'policy'],
      ]);
      expect(body.status).toBe('completed');
      const list = await h.call('listResponseInputItems', {
        ...at(body.id as string),
        query: { order: 'asc', limit: 100 },
      });
      expect(list.body.data.map(({ type }: Parsed) => type)).toEqual([
        ...['message', 'reasoning', 'mcp_call', 'reasoning', 'message', 'message'],
      ]);
    },
  },
  {
    operation: 'createResponse',
    what: 'other instructions make the conversation be read anew',
    status: 200,
    call: async (h) => {
      const { body } = await respond(h, { instructions: 'Be short.' });
      const next = { previous_response_id: body.id, input: 'Sure?', instructions: 'Be long.' };
      return respond(h, next);
    },
    check: ({ body }, h) => {
      const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy']);
      expect(steps[0]?.text).toContain('Be long.');
      expect(steps[0]?.text).not.toContain('Be short.');
    },
  },
  {
    operation: 'createResponse',
    what: 'one that is not stored is logged all the same',
    status: 200,
    call: (h) => respond(h, { store: false }),
    check: async ({ body }, h) => {
      expect(h.deps.stores.trajectories.get(body.trajectory_id as string).steps).toHaveLength(2);
      expect((await h.call('getResponse', at(body.id as string))).code).toBe('response_not_found');
      const next = await respond(h, { previous_response_id: body.id });
      expect(next.code).toBe('previous_response_not_found');
    },
  },
  {
    operation: 'createResponse',
    what: 'in the background it is read later',
    status: 200,
    call: (h) => respond(h, { background: true }),
    check: async ({ body }, h) => {
      const { body: end } = await h.call('getResponse', {
        ...at(body.id as string),
        query: { stream: 'true' },
      });
      expect(end.at(-1).response).toMatchObject({ id: body.id, status: 'completed' });
    },
  },
  {
    operation: 'createResponse',
    what: 'an engine that fails in the middle of a stream: error, then response.failed',
    status: 200,
    call: (h) => {
      h.engine.script = (text) => {
        h.engine.sampleFault = new AppError('engine_unavailable', 'the worker stopped');
        return CAPITAL_SCRIPT(text);
      };
      return respond(h, { tools: [SERVER_SEARCH], stream: true });
    },
    check: async ({ body }, h) => {
      const [error, failed] = body.slice(-2);
      expect(error).toMatchObject({ type: 'error', code: 'engine_unavailable', param: null });
      expect(failed).toMatchObject({ type: 'response.failed', response: { status: 'failed' } });
      expect(failed.response.error.code).toBe('engine_unavailable');
      const read = await h.call('getResponse', at(failed.response.id as string));
      expect(read.body).toEqual(failed.response);
    },
  },
];

const STORED: Case[] = [
  ...(
    ['getResponse', 'deleteResponse', 'cancelResponse', 'listResponseInputItems'] as const
  ).flatMap((operation): Case[] => [
    {
      operation,
      what: 'no such response',
      status: 404,
      code: 'response_not_found',
      call: (h) => h.call(operation, at('resp_nothing')),
    },
    {
      operation,
      what: 'a wrong id',
      status: 400,
      code: 'invalid_request',
      call: (h) => h.call(operation, at('run_1')),
    },
    {
      operation,
      what: 'a stored response',
      status: 200,
      call: async (h) => h.call(operation, await storedResponse(h)),
    },
  ]),
  {
    operation: 'getResponse',
    what: 'the events of one at work, after some of them',
    status: 200,
    call: async (h) => {
      const id = await working(h, 2);
      return h.call('getResponse', { ...at(id), query: { stream: 'true', starting_after: 3 } });
    },
    check: ({ body }) => {
      expect(body[0].sequence_number).toBe(4);
      expect(body.at(-1).type).toBe('response.completed');
    },
  },
  {
    operation: 'getResponse',
    what: 'events that are not kept',
    status: 400,
    code: 'invalid_request',
    call: async (h) =>
      h.call('getResponse', { ...(await storedResponse(h)), query: { stream: 'true' } }),
  },
  {
    operation: 'getResponse',
    what: 'too many streams are open',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const id = await working(h);
      const url = `http://127.0.0.1:8787/v1/responses/${id}?stream=true`;
      const open: Response[] = [];
      while (open.length < LIMITS.eventStreamsMax) open.push(await h.app.request(url));
      const answer = await h.call('getResponse', { ...at(id), query: { stream: 'true' } });
      for (const response of open) await response.body?.cancel();
      await h.call('cancelResponse', at(id));
      return answer;
    },
  },
  {
    operation: 'cancelResponse',
    what: 'one at work ends, and its rows are kept',
    status: 200,
    call: async (h) => h.call('cancelResponse', at(await working(h))),
    check: async ({ body }, h) => {
      expect(body.status).toBe('cancelled');
      expect(body.error).toBeNull();
      const { trajectory } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      expect(trajectory.status).toBe('cancelled');
      expect((await h.call('getResponse', at(body.id as string))).body).toEqual(body);
      const next = await respond(h, { previous_response_id: body.id });
      expect(next.code).toBe('invalid_request');
    },
  },
  {
    operation: 'deleteResponse',
    what: 'it can not be read any more, and those that went on from it can be gone on from',
    status: 200,
    call: async (h) => {
      const { body: first } = await respond(h, {});
      const { body: second } = await respond(h, { previous_response_id: first.id, input: 'Sure?' });
      const answer = await h.call('deleteResponse', at(first.id as string));
      expect(answer.body.deleted).toBe(true);
      expect((await h.call('getResponse', at(first.id as string))).status).toBe(404);
      const third = await respond(h, { previous_response_id: second.id, input: 'Sure?' });
      const { steps } = h.deps.stores.trajectories.get(third.body.trajectory_id as string);
      expect(steps).toHaveLength(6);
      return answer;
    },
  },
  {
    operation: 'listResponseInputItems',
    what: 'pages, newest first',
    status: 200,
    call: async (h) => {
      const input = ['one', 'two', 'three'].map((content) => ({ role: 'user', content }));
      const { body } = await respond(h, { input });
      const first = await h.call('listResponseInputItems', {
        ...at(body.id as string),
        query: { limit: 2 },
      });
      expect(first.body.data.map(({ content }: Parsed) => content[0].text)).toEqual([
        'three',
        'two',
      ]);
      expect(first.body.has_more).toBe(true);
      return h.call('listResponseInputItems', {
        ...at(body.id as string),
        query: { limit: 2, after: first.body.last_id as string },
      });
    },
    check: ({ body }) => {
      expect(body.data.map(({ content }: Parsed) => content[0].text)).toEqual(['one']);
      expect(body.has_more).toBe(false);
    },
  },
];

export const RESPONSE_CASES: Case[] = [...CREATED, ...STORED];
