/** Cases of the operations tagged chat. */
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { readTrajectoryLine } from '../trajectory-lines.ts';
import type { Case } from './cases.ts';
import { CAPITAL_SCRIPT } from './harness.ts';
import type { Answer, CallOptions, Harness } from './harness.ts';

const jsonSchema = (schema: Record<string, unknown>) => ({
  type: 'json_schema',
  json_schema: { name: 'answer', schema },
});

export const QUESTION = [{ role: 'user', content: 'What is the capital of France?' }];
export const CHAT = { model: 'ramify', messages: QUESTION };
export const SEARCH = {
  type: 'function',
  function: { name: 'search', parameters: { type: 'object', properties: {} } },
};

const chat = (h: Harness, body: object, options: CallOptions = {}): Promise<Answer> =>
  h.call('createChatCompletion', { body: { ...CHAT, ...body }, ...options });
export async function withFault(
  h: Harness,
  fault: AppError,
  call: () => Promise<Answer>,
): Promise<Answer> {
  h.engine.sampleFault = fault;
  try {
    return await call();
  } finally {
    h.engine.sampleFault = null;
  }
}

/** A request of each kind that must be refused with 400 invalid_request. */
const badMessages = [{ role: 'tool', content: 'x', tool_call_id: 'call_1' }, { role: 'assistant' }];

export const CHAT_CASES: Case[] = [
  {
    operation: 'createChatCompletion',
    what: 'a plain answer with thoughts and answer apart',
    status: 200,
    call: (h) => chat(h, {}),
    check: async ({ body, headers }, h) => {
      expect(body.model).toBe('ramify@1');
      expect(headers.get('x-ramify-policy')).toBe('1');
      const [choice] = body.choices;
      expect(choice.message.content).toBe('Paris');
      expect(choice.message.reasoning_content).toBe('I know it.');
      expect(choice.finish_reason).toBe('stop');
      const id = headers.get('x-ramify-trajectory') as string;
      const trajectory = h.deps.stores.trajectories.get(id);
      expect(trajectory.trajectory.answer).toBe('Paris');
      expect(trajectory.steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy']);
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'a call of a client tool named like a server tool runs on the client',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return chat(h, { tools: [SEARCH] });
    },
    check: ({ body }) => {
      const [{ message, finish_reason }] = body.choices;
      expect(finish_reason).toBe('tool_calls');
      expect(message.content).toBeNull();
      expect(message.tool_calls).toHaveLength(1);
      const [call] = message.tool_calls;
      expect(call.function).toEqual({
        name: 'search',
        arguments: '{"query":"capital of France"}',
      });
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'a tool call that was not offered is shown as text',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return chat(h, { tools: [SEARCH], tool_choice: 'none' });
    },
    check: ({ body }) => {
      const [{ message, finish_reason }] = body.choices;
      expect(finish_reason).toBe('stop');
      expect(message.content).toBe('<search>capital of France</search>');
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'a history with the tool result goes on to the answer',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      const fn = { name: 'search', arguments: '{"query":"capital of France"}' };
      const messages = [
        ...QUESTION,
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c', type: 'function', function: fn }],
        },
        { role: 'tool', tool_call_id: 'c', content: [{ type: 'text', text: 'It is Paris.' }] },
      ];
      return chat(h, { messages, tools: [SEARCH] });
    },
    check: ({ body }) => expect(body.choices[0].message.content).toBe('Paris'),
  },
  {
    operation: 'createChatCompletion',
    what: 'an answer sent back in parts with fields of the client is read as it was given',
    status: 200,
    call: async (h) => {
      const first = await chat(h, {});
      const { content, ...rest } = first.body.choices[0].message;
      const sent = { role: 'assistant', content: [{ type: 'text', text: content, ...rest }] };
      return chat(h, { messages: [...QUESTION, sent, ...QUESTION] });
    },
    check: ({ headers }, h) => {
      const id = headers.get('x-ramify-trajectory') as string;
      const { steps } = h.deps.stores.trajectories.get(id);
      expect(steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy', 'prompt', 'policy']);
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'a pinned version, sampling settings, a developer message, a session',
    status: 200,
    call: (h) =>
      chat(
        h,
        {
          model: 'ramify@1',
          messages: [{ role: 'developer', content: 'Be short.' }, ...QUESTION],
          temperature: 0.5,
          top_p: 0.9,
          top_k: 5,
          seed: 7,
          min_p: 0.02,
          repetition_penalty: 1.1,
          presence_penalty: -0.5,
          frequency_penalty: null,
          logit_bias: { 7: -3 },
          min_tokens: 2,
          logprobs: true,
          metadata: { a: 'b' },
        },
        { headers: { 'x-session-id': 'session-1' } },
      ),
    check: ({ body, headers }, h) => {
      const id = headers.get('x-ramify-trajectory') as string;
      const { trajectory, steps } = h.deps.stores.trajectories.get(id);
      const step = steps[1];
      expect(step?.sampling).toEqual({
        ...{ temperature: 0.5, topP: 0.9, topK: 5, seed: 7, minP: 0.02, repetitionPenalty: 1.1 },
        ...{ presencePenalty: -0.5, logitBias: { 7: -3 }, minTokens: 2 },
      });
      const { content } = body.choices[0].logprobs;
      expect(content).toHaveLength(step?.tokens.length ?? -1);
      expect(content[0].logprob).toBeCloseTo(step?.logprobs?.[0] ?? 0, 5);
      const conversation = h.deps.stores.conversations.findBySession({
        tenant: 'default',
        sessionKey: 'session-1',
      });
      expect(trajectory.conversationId).toBe(conversation?.id);
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'a limit on tokens cuts the answer: length',
    status: 200,
    call: (h) => chat(h, { max_completion_tokens: 3 }),
    check: ({ body }) => {
      expect(body.choices[0].finish_reason).toBe('length');
      expect(body.usage.completion_tokens).toBe(3);
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'a stop text ends the answer before it, and the log ends with it',
    status: 200,
    call: (h) => {
      h.engine.script = () =>
        '<think>one two three four</think><answer>\\boxed{4}</answer><|im_end|>';
      return chat(h, { stop: ['three'] });
    },
    check: ({ body, headers }, h) => {
      const [{ message, finish_reason }] = body.choices;
      expect(message.reasoning_content).toBe('one two');
      expect(finish_reason).toBe('stop');
      const id = headers.get('x-ramify-trajectory') as string;
      const text = h.deps.stores.trajectories.get(id).steps[1]?.text;
      expect(text).toContain('three');
      expect(text).not.toContain('four');
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'three choices: three branches of one prompt',
    status: 200,
    call: (h) => chat(h, { n: 3, seed: 5, metadata: { order: '17' } }),
    check: ({ body, headers }, h) => {
      const ids = (headers.get('x-ramify-trajectory') ?? '').split(', ');
      expect(body.choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2]);
      const paths = ids.map((id) => h.deps.stores.trajectories.get(id).steps);
      expect(new Set(paths.map(([prompt]) => prompt?.id)).size).toBe(1);
      expect(new Set(paths.map((steps) => steps[1]?.sampling?.seed)).size).toBe(3);
      const { usage } = body;
      expect(usage.prompt_tokens).toBe(paths[0]?.[0]?.tokens.length);
      const sampled = paths.reduce((sum, steps) => sum + (steps[1]?.tokens.length ?? 0), 0);
      expect(usage.completion_tokens).toBe(sampled);
      for (const id of ids) {
        expect(h.deps.stores.trajectories.offerOf(id).metadata).toEqual({ order: '17' });
      }
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'the likeliest tokens of each place',
    status: 200,
    call: (h) => chat(h, { logprobs: true, top_logprobs: 2 }),
    check: ({ body }) => {
      for (const { token, bytes, logprob, top_logprobs } of body.choices[0].logprobs.content) {
        expect(top_logprobs).toHaveLength(2);
        expect(top_logprobs[0]).toEqual({ token, bytes, logprob });
      }
      expect(body.usage.completion_tokens_details.reasoning_tokens).toBeGreaterThan(2);
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'the functions that the policy was shown are kept with the trajectory',
    status: 200,
    call: (h) => chat(h, { tools: [SEARCH], metadata: { order: '17' } }),
    check: async ({ headers }, h) => {
      const path = { trajectory_id: headers.get('x-ramify-trajectory') ?? '' };
      const { body } = await h.call('getTrajectory', { path });
      const { name, parameters } = SEARCH.function;
      expect(body.client_tools).toEqual([{ name, description: '', parameters }]);
      expect(body.metadata).toEqual({ order: '17' });
      // A file has it too, and gives it to the log that reads it.
      const { text } = await h.call('exportTrajectories');
      expect(readTrajectoryLine(text.trim()).trajectory.offer).toEqual({
        tools: body.client_tools,
        metadata: body.metadata,
      });
    },
  },
  ...[
    { messages: [] },
    { messages: [{ role: 'robot', content: 'x' }] },
    { temperature: 3 },
    { unknown_field: 1 },
    { max_tokens: 5, max_completion_tokens: 5 },
    { n: 0 },
    { n: 17 },
    { top_logprobs: 21, logprobs: true },
    { top_logprobs: 2 },
    { tools: [SEARCH, SEARCH] },
    { model: '' },
    { stop: ['a', 'b', 'c', 'd', 'e'] },
    { tool_choice: 'required' },
    { tools: [SEARCH], tool_choice: { type: 'function', function: { name: 'weather' } } },
    { tool_choice: { type: 'allowed_tools' } },
    { response_format: { type: 'json_object' }, min_tokens: 3 },
    { response_format: { type: 'json_schema' } },
    { response_format: jsonSchema({ type: 'string', pattern: 'a' }) },
    { response_format: jsonSchema({ $ref: '#' }) },
    { frequency_penalty: 2.5 },
    { repetition_penalty: 0 },
    { logit_bias: { ab: 1 } },
    { logit_bias: { 1: 101 } },
    { min_p: 1.5 },
    ...badMessages.map((message) => ({ messages: [...QUESTION, message] })),
  ].map((body): Case => ({
    operation: 'createChatCompletion',
    what: `refuses ${JSON.stringify(body).slice(0, 60)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => chat(h, body),
    check: (answer) => expect(answer.body.error.param).not.toBeNull(),
  })),
  ...[
    { reasoning_effort: 'low' },
    { audio: { voice: 'alloy', format: 'mp3' } },
    ...[
      { type: 'image_url', image_url: { url: 'x' } },
      { type: 'input_audio', input_audio: { data: '', format: 'wav' } },
      { type: 'file', file: { file_id: 'x' } },
    ].map((part) => ({
      messages: [{ role: 'user', content: [{ type: 'text', text: 'a' }, part] }],
    })),
    { tools: [{ type: 'custom', custom: { name: 'x' } }] },
  ].map((body): Case => ({
    operation: 'createChatCompletion',
    what: `does not offer ${JSON.stringify(body).slice(0, 60)}`,
    status: 400,
    code: 'unsupported_parameter',
    call: (h) => chat(h, body),
    check: (answer) => expect(answer.body.error.param).not.toBeNull(),
  })),
  {
    operation: 'createChatCompletion',
    what: 'a prompt that is longer than the window',
    status: 400,
    code: 'context_length_exceeded',
    call: (h) => chat(h, { messages: [{ role: 'user', content: 'capital '.repeat(600) }] }),
  },
  {
    operation: 'createChatCompletion',
    what: 'more requested tokens than the window has left, streamed',
    status: 400,
    code: 'context_length_exceeded',
    call: (h) => chat(h, { max_tokens: 510, stream: true }),
  },
  {
    operation: 'createChatCompletion',
    what: 'a function that this policy has no tag for',
    status: 400,
    code: 'unknown_tool',
    call: (h) => chat(h, { tools: [{ type: 'function', function: { name: 'weather' } }] }),
  },
  ...['gpt-4', 'ramify@99', 'ramify@0', 'ramify@x'].map((model): Case => ({
    operation: 'createChatCompletion',
    what: `no model ${model}`,
    status: 404,
    code: 'model_not_found',
    call: (h) => chat(h, { model }),
  })),
  {
    operation: 'createChatCompletion',
    what: 'no slot is left',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      h.engine.sequencesMax = 0;
      const answer = await chat(h, {});
      h.engine.sequencesMax = 64;
      return answer;
    },
    check: ({ headers }) => {
      expect(headers.get('retry-after')).toBe('1');
      expect(headers.get('retry-after-ms')).toBe('1000');
    },
  },
  {
    operation: 'createChatCompletion',
    what: 'the policy worker stopped before the first token, streamed',
    status: 503,
    code: 'engine_unavailable',
    call: (h) =>
      withFault(h, new AppError('engine_unavailable', 'the worker stopped'), () =>
        chat(h, { stream: true }),
      ),
  },
  {
    operation: 'createChatCompletion',
    what: 'the time limit',
    status: 504,
    code: 'request_timeout',
    call: (h) =>
      withFault(h, new AppError('request_timeout', 'no answer within 600 s'), () => chat(h, {})),
  },
  {
    operation: 'listModels',
    what: 'the live name and every version',
    status: 200,
    call: (h) => h.call('listModels'),
    check: ({ body }) =>
      expect(body.data.map(({ id }: { id: string }) => id)).toEqual(['ramify', 'ramify@1']),
  },
];
