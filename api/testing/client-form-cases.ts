/**
 * Cases of what OpenAI's clients may send beside what ramify's documents show: nulls, neutral
 * values, tools that are allowed for one answer. What would change the answer is refused by name.
 */
import { expect } from 'vitest';
import type { Case } from './cases.ts';
import { CHAT, QUESTION, SEARCH } from './chat-cases.ts';
import { CAPITAL_SCRIPT, checkAnswer } from './harness.ts';
import type { Answer, Harness } from './harness.ts';
import {
  respond,
  SEARCH as FUNCTION_SEARCH,
  SERVER_SEARCH,
  storedResponse,
} from './response-cases.ts';

const WEATHER = { type: 'function', function: { name: 'weather' } };
const FUNCTION_WEATHER = { type: 'function', name: 'weather' };

const chat = (h: Harness, body: object): Promise<Answer> =>
  h.call('createChatCompletion', { body: { ...CHAT, ...body } });

const allowed = (mode: string, ...tools: object[]) => ({
  tool_choice: { type: 'allowed_tools', allowed_tools: { mode, tools } },
});
const allowedItems = (mode: string, ...tools: object[]) => ({
  tool_choice: { type: 'allowed_tools', mode, tools },
});

const NEUTRAL_CHAT: object[] = [
  { tool_choice: null, tools: null, response_format: null, user: null },
  { functions: null, function_call: null, moderation: null },
  {
    messages: [...QUESTION, { role: 'assistant', content: 'Paris', tool_calls: null }, ...QUESTION],
  },
  { messages: [{ ...QUESTION[0], name: null }] },
  { tools: [{ ...SEARCH, function: { name: 'search', description: null, parameters: null } }] },
  { reasoning_effort: 'none', verbosity: 'medium' },
  { prompt_cache_options: { mode: 'implicit' } },
];

const NEUTRAL_RESPONSES: object[] = [
  { tool_choice: null, tools: null },
  { text: { verbosity: 'medium' } },
  { reasoning: { effort: 'none', context: 'auto', mode: 'standard', summary: null } },
];

const TAKEN: Case[] = [
  ...NEUTRAL_CHAT.map((body): Case => ({
    operation: 'createChatCompletion',
    what: `takes ${JSON.stringify(body).slice(0, 70)}`,
    status: 200,
    call: (h) => chat(h, body),
  })),
  ...NEUTRAL_RESPONSES.map((body): Case => ({
    operation: 'createResponse',
    what: `takes ${JSON.stringify(body).slice(0, 70)}`,
    status: 200,
    call: (h) => respond(h, body),
    check: ({ body }) => expect(body.tool_choice).toBe('auto'),
  })),
  ...([-1, -7, -9007199254740991] as const).map((seed): Case => ({
    operation: 'createChatCompletion',
    what: `takes the seed ${seed}, and draws by it`,
    status: 200,
    call: (h) => chat(h, { seed }),
    check: ({ headers }, h) => {
      const id = headers.get('x-ramify-trajectory') as string;
      const [, step] = h.deps.stores.trajectories.get(id).steps;
      expect(step?.sampling?.seed).toBe(seed + 2 ** 53);
      expect(step?.sampling?.seed).toSatisfy(Number.isSafeInteger);
    },
  })),
  {
    operation: 'createChatCompletion',
    what: 'a json_schema without its schema is any object',
    status: 200,
    call: (h) =>
      chat(h, { response_format: { type: 'json_schema', json_schema: { name: 'answer' } } }),
    check: ({ headers }, h) => {
      const id = headers.get('x-ramify-trajectory') as string;
      const [, step] = h.deps.stores.trajectories.get(id).steps;
      expect(step?.sampling?.constraint).toBeDefined();
    },
  },
  ...(['getResponse', 'listResponseInputItems'] as const).map((operation): Case => ({
    operation,
    what: 'include[] as it was when the response was made',
    status: 200,
    call: async (h) => {
      const query = 'include[]=message.output_text.logprobs&include[]=reasoning.encrypted_content';
      const { path } = await storedResponse(h);
      const tail = operation === 'getResponse' ? '' : '/input_items';
      const url = `http://127.0.0.1:8787/v1/responses/${path?.['response_id']}${tail}?${query}`;
      return checkAnswer(operation, await h.app.request(url));
    },
  })),
];

/** The policy of these tests cannot call `weather`, so that showing it would be refused. */
const ALLOWED_TOOLS: Case[] = [
  ...(['auto', 'required'] as const).map((mode): Case => ({
    operation: 'createChatCompletion',
    what: `only an allowed tool is shown, ${mode}`,
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return chat(h, { tools: [WEATHER, SEARCH], ...allowed(mode, SEARCH) });
    },
    check: ({ body, headers }, h) => {
      expect(body.choices[0].finish_reason).toBe('tool_calls');
      const id = headers.get('x-ramify-trajectory') ?? '';
      const { trajectories } = h.deps.stores;
      expect(trajectories.offerOf(id).tools?.map(({ name }) => name)).toEqual(['search']);
      const demanded = trajectories.get(id).steps[1]?.sampling?.constraint !== undefined;
      expect(demanded).toBe(mode === 'required');
    },
  })),
  {
    operation: 'createResponse',
    what: 'only an allowed function is shown; the response repeats the choice and all tools',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      const tools = [FUNCTION_WEATHER, FUNCTION_SEARCH];
      return respond(h, { tools, ...allowedItems('auto', FUNCTION_SEARCH) });
    },
    check: ({ body }) => {
      const calls = body.output.filter(({ type }: { type: string }) => type === 'function_call');
      expect(calls.map(({ name }: { name: string }) => name)).toEqual(['search']);
      expect(body.tool_choice).toEqual(allowedItems('auto', FUNCTION_SEARCH).tool_choice);
      expect(body.tools).toHaveLength(2);
    },
  },
  {
    operation: 'createResponse',
    what: 'tools of this server are allowed, functions are not shown',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      const tools = [SERVER_SEARCH, FUNCTION_WEATHER];
      return respond(h, { tools, ...allowedItems('required', { type: 'mcp' }) });
    },
    check: async ({ body }, h) => {
      expect(body.output.map(({ type }: { type: string }) => type)).toContain('mcp_call');
      const path = { trajectory_id: body.trajectory_id as string };
      expect((await h.call('getTrajectory', { path })).body.client_tools).toEqual([]);
    },
  },
  ...(
    [
      ['createChatCompletion', { tools: [SEARCH], ...allowed('auto', WEATHER) }],
      ['createChatCompletion', { tools: [SEARCH], ...allowed('none', SEARCH) }],
      ['createChatCompletion', { tools: [SEARCH], ...allowed('auto') }],
      ['createChatCompletion', { tools: [SEARCH], tool_choice: { type: 'custom' } }],
      ['createResponse', { tools: [FUNCTION_SEARCH], ...allowedItems('auto', FUNCTION_WEATHER) }],
      ['createResponse', { tools: [FUNCTION_SEARCH], tool_choice: { type: 'allowed_tools' } }],
    ] as const
  ).map(([operation, body]): Case => ({
    operation,
    what: `refuses ${JSON.stringify(body.tool_choice)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => (operation === 'createResponse' ? respond(h, body) : chat(h, body)),
    check: ({ body }) => expect(body.error.param).toMatch(/^tool_choice/),
  })),
  ...(
    [
      [
        'createChatCompletion',
        { tools: [SEARCH], ...allowed('auto', { type: 'custom', custom: { name: 'x' } }) },
        'tool_choice.allowed_tools.tools[0].type',
      ],
      ['createChatCompletion', { verbosity: 'low' }, 'verbosity'],
      ['createChatCompletion', { moderation: { model: 'x' } }, 'moderation'],
      [
        'createResponse',
        { tools: [FUNCTION_SEARCH], ...allowedItems('auto', { type: 'image_generation' }) },
        'tool_choice.tools[0].type',
      ],
      ['createResponse', { text: { verbosity: 'high' } }, 'text.verbosity'],
      ['createResponse', { reasoning: { mode: 'pro' } }, 'reasoning.mode'],
    ] as const
  ).map(([operation, body, param]): Case => ({
    operation,
    what: `does not offer ${param} of another value`,
    status: 400,
    code: 'unsupported_parameter',
    call: (h) => (operation === 'createResponse' ? respond(h, body) : chat(h, body)),
    check: (answer) => expect(answer.body.error.param).toBe(param),
  })),
];

const MODELS: Case[] = [
  ...['ramify', 'ramify@1'].map((model): Case => ({
    operation: 'getModel',
    what: `${model}, as in the list`,
    status: 200,
    call: (h) => h.call('getModel', { path: { model } }),
    check: async ({ body }, h) => {
      const list = (await h.call('listModels')).body.data as { id: string }[];
      expect(body).toEqual(list.find(({ id }) => id === model));
      expect(body.root).toBe('ramify@1');
    },
  })),
  {
    operation: 'getModel',
    what: 'a name that there is not',
    status: 404,
    code: 'model_not_found',
    call: (h) => h.call('getModel', { path: { model: 'gpt-4' } }),
    check: ({ body }) => expect(body.error.message).toContain('gpt-4'),
  },
  {
    operation: 'getModel',
    what: 'a name that is longer than any',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('getModel', { path: { model: 'x'.repeat(101) } }),
  },
];

export const CLIENT_FORM_CASES: Case[] = [...TAKEN, ...ALLOWED_TOOLS, ...MODELS];
