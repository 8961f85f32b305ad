/** Cases of responses that are refused: what is wrong, not offered, not there, or too much. */
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Case } from './cases.ts';
import { withFault } from './chat-cases.ts';
import { respond, SEARCH, SERVER_SEARCH, working } from './response-cases.ts';

export const RESPONSE_REFUSALS: Case[] = [
  ...[
    { input: [] },
    { input: [{ role: 'robot', content: 'x' }] },
    { input: [{ type: 'function_call', name: 'x', arguments: '{}' }] },
    { input: [{ type: 'function_call', call_id: 'c', name: 'search', arguments: '{}' }] },
    { input: [{ type: 'function_call_output', call_id: 'c', output: 'x' }] },
    { input: [{ type: 'item_reference', id: 'msg_nothing' }] },
    { input: 'x'.repeat(LIMITS.messageCharsMax + 1) },
    { unknown_field: 1 },
    { temperature: 3 },
    { top_logprobs: 5 },
    { tools: [SEARCH, SEARCH] },
    { tools: [SEARCH, SERVER_SEARCH] },
    { tools: [{ type: 'mcp', server_label: 'ramify' }] },
    { tool_choice: 'required' },
    { tools: [SEARCH], tool_choice: { type: 'function', name: 'weather' } },
    { tools: [SEARCH], tool_choice: { type: 'mcp', server_label: 'ramify' } },
    {
      text: {
        format: { type: 'json_schema', name: 'a', schema: { type: 'string', pattern: 'a' } },
      },
    },
    { background: true, store: false },
    { previous_response_id: 'resp_1', conversation: 'conv_1' },
    { conversation: 'conv_1' },
    { max_tool_calls: 65 },
  ].map((body): Case => ({
    operation: 'createResponse',
    what: `refuses ${JSON.stringify(body).slice(0, 60)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => respond(h, body),
    check: (answer) => expect(answer.body.error.param).not.toBeNull(),
  })),
  ...(
    [
      [
        { input: [{ role: 'user', content: [{ type: 'input_image' }] }] },
        'input[0].content[0].type',
      ],
      [
        { input: [{ role: 'user', content: [{ type: 'input_file' }] }] },
        'input[0].content[0].type',
      ],
      [{ input: [{ type: 'computer_call_output', call_id: 'x' }] }, 'input[0].type'],
      [{ input: [{ type: 'web_search_call', id: 'x' }] }, 'input[0].type'],
      [{ tools: [{ type: 'web_search' }] }, 'tools[0].type'],
      [{ tools: [{ type: 'file_search', vector_store_ids: [] }] }, 'tools[0].type'],
      [{ tools: [{ ...SERVER_SEARCH, server_label: 'github' }] }, 'tools[0].server_label'],
      [{ tools: [{ ...SERVER_SEARCH, server_url: 'https://a.example' }] }, 'tools[0].server_url'],
      [{ tools: [{ ...SERVER_SEARCH, require_approval: 'always' }] }, 'tools[0].require_approval'],
      [{ tool_choice: { type: 'web_search' } }, 'tool_choice.type'],
      [{ truncation: 'auto' }, 'truncation'],
      [{ reasoning: { effort: 'low' } }, 'reasoning.effort'],
      [{ include: ['web_search_call.results'] }, 'include[0]'],
      [{ prompt: { id: 'pmpt_1' } }, 'prompt'],
      [{ service_tier: 'flex' }, 'service_tier'],
    ] as const
  ).map(([body, param]): Case => ({
    operation: 'createResponse',
    what: `does not offer ${JSON.stringify(body).slice(0, 60)}`,
    status: 400,
    code: 'unsupported_parameter',
    call: (h) => respond(h, body),
    check: (answer) => expect(answer.body.error.param).toBe(param),
  })),
  {
    operation: 'createResponse',
    what: 'a prompt that is longer than the window, streamed',
    status: 400,
    code: 'context_length_exceeded',
    call: (h) => respond(h, { input: 'capital '.repeat(600), stream: true }),
  },
  {
    operation: 'createResponse',
    what: 'a tool that this server does not have',
    status: 400,
    code: 'unknown_tool',
    call: (h) => respond(h, { tools: [{ ...SERVER_SEARCH, allowed_tools: ['weather'] }] }),
  },
  {
    operation: 'createResponse',
    what: 'a previous response that is not there',
    status: 400,
    code: 'previous_response_not_found',
    call: (h) => respond(h, { previous_response_id: 'resp_nothing' }),
    check: ({ body }) => expect(body.error.param).toBe('previous_response_id'),
  },
  {
    operation: 'createResponse',
    what: 'a previous response that is still at work',
    status: 400,
    code: 'invalid_request',
    call: async (h) => respond(h, { previous_response_id: await working(h) }),
    check: ({ body }) => expect(body.error.message).toContain('in_progress'),
  },
  {
    operation: 'createResponse',
    what: 'no such model',
    status: 404,
    code: 'model_not_found',
    call: (h) => respond(h, { model: 'gpt-4' }),
  },
  {
    operation: 'createResponse',
    what: 'no slot is left',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      h.engine.sequencesMax = 0;
      const answer = await respond(h, {});
      h.engine.sequencesMax = 64;
      return answer;
    },
  },
  {
    operation: 'createResponse',
    what: 'the policy worker stopped before the first token, streamed',
    status: 503,
    code: 'engine_unavailable',
    call: (h) =>
      withFault(h, new AppError('engine_unavailable', 'the worker stopped'), () =>
        respond(h, { stream: true }),
      ),
  },
  {
    operation: 'createResponse',
    what: 'the time limit',
    status: 504,
    code: 'request_timeout',
    call: (h) =>
      withFault(h, new AppError('request_timeout', 'no answer within 600 s'), () => respond(h, {})),
  },
];
