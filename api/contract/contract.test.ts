/**
 * Tests of reading the contract, and of what callers are told about a request that does not fit.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { LIMITS } from '../../core/limits.ts';
import { loadContract } from './contract.ts';
import type { OperationId, RequestPart } from './contract.ts';

const contract = loadContract();

const mistake = (id: OperationId, part: RequestPart, value: unknown) => {
  const result = contract.checkRequest(id, part, value);
  return 'mistake' in result ? result.mistake : null;
};

const chat = (extra: object) =>
  mistake('createChatCompletion', 'body', {
    model: 'ramify',
    messages: [{ role: 'user', content: 'x' }],
    ...extra,
  });

test('operation ids are unique, each operation has one known tag and a summary that says something', () => {
  const ids = contract.operations.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const tags = [
    'chat',
    'responses',
    'agent',
    'trajectories',
    'feedback',
    'tasks',
    'tools',
    'training',
    'policies',
    'keys',
    'health',
  ];
  for (const { tag } of contract.operations) expect(tags).toContain(tag);
});

test('who needs a key may be refused for it, admins for their scope, and everyone for limits', () => {
  for (const { id, scope, spendsTokens, streams, responses } of contract.operations) {
    const codes = [...responses.values()].flatMap(({ errorCodes }) => errorCodes);
    const has = (code: string): [string, boolean] => [`${id} ${code}`, codes.includes(code)];
    expect(has('invalid_api_key')).toEqual([`${id} invalid_api_key`, scope !== null]);
    expect(has('rate_limit_exceeded')).toEqual([`${id} rate_limit_exceeded`, scope !== null]);
    // Of an agent's operation some of it may be for admins.
    if (scope !== 'agent') {
      expect(has('insufficient_scope')).toEqual([`${id} insufficient_scope`, scope === 'admin']);
    }
    if (streams !== 'never') expect(has('queue_full')).toEqual([`${id} queue_full`, true]);
    expect(spendsTokens && scope === null, id).toBe(false);
  }
});

test('every schema is a JSON Schema of 2020-12', () => {
  const ajv = new Ajv2020({ strict: false });
  const { components } = parse(contract.text) as { components: { schemas: object } };
  for (const [name, schema] of Object.entries(components.schemas)) {
    expect(ajv.validateSchema(schema as object), `${name}: ${ajv.errorsText()}`).toBe(true);
  }
});

test('parameters come as strings and leave as documented types', () => {
  expect(contract.checkRequest('listTasks', 'query', { limit: '7' })).toEqual({
    value: { limit: 7 },
  });
  expect(
    contract.checkRequest('streamTrainingRunEvents', 'header', { 'last-event-id': '3' }),
  ).toEqual({
    value: { 'last-event-id': 3 },
  });
});

test.each([
  [{ messages: 5 }, 'messages', 'messages: must be array (got 5)'],
  [
    { messages: [{ role: 'user', content: 5 }] },
    'messages[0].content',
    /string or array \(got 5\)$/,
  ],
  [{ messages: [{ role: 'user' }] }, 'messages[0].content', /is required$/],
  [{ messages: [{ role: 'bot', content: 'x' }] }, 'messages[0].role', /got "bot"/],
  [{ foo: 1 }, 'foo', 'foo: is not a known field'],
  [{ temperature: 'hot' }, 'temperature', /must be number or null \(got "hot"\)/],
  [
    { response_format: { type: 'json_schema', json_schema: { schema: {} } } },
    'response_format.json_schema.name',
    /is required$/,
  ],
  [{ model: 'm'.repeat(101) }, 'model', /\.\.\.\)$/],
])('%j is told as %s', (extra, param, message) => {
  expect(chat(extra)).toMatchObject({ param, unsupported: false });
  expect(chat(extra)?.message).toMatch(message);
});

test.each([
  [{ verbosity: 'low' }, 'verbosity'],
  [{ reasoning_effort: 'low' }, 'reasoning_effort'],
  [
    { messages: [{ role: 'user', content: [{ type: 'input_audio' }] }] },
    'messages[0].content[0].type',
  ],
])('%j is known but not offered', (extra, param) => {
  const told = chat(extra);
  expect(told?.unsupported).toBe(true);
  expect(told?.param).toMatch(new RegExp(`^${param.replaceAll(/[[\]]/g, '\\$&')}`));
});

test('neutral values of what is not offered pass', () => {
  const neutral = { n: 1, top_logprobs: 0, response_format: { type: 'text' }, logit_bias: {} };
  expect(chat({ ...neutral, frequency_penalty: 0, modalities: ['text'], store: true })).toBeNull();
});

test('a response that is not as documented is told apart from one that is', () => {
  expect(contract.checkResponse('getHealth', 200, 'application/json', { status: 'ok' })).toEqual(
    [],
  );
  expect(
    contract.checkResponse('getHealth', 200, 'application/json', { status: 'so so' }),
  ).toHaveLength(1);
  expect(contract.checkResponse('getHealth', 201, 'application/json', {})[0]).toContain('201');
  expect(contract.checkResponse('getHealth', 200, 'text/html', '')[0]).toContain('text/html');
  const error = { message: 'x', type: 'server_error', code: 'internal', param: null };
  const wrongCode = contract.checkResponse('getReadiness', 503, 'application/json', { error });
  expect(wrongCode[0]).toContain('internal is not documented');
});

test('bounds are those of core/limits.ts', () => {
  const { schemas, parameters } = (parse(contract.text) as { components: Components }).components;
  for (const name of ['ChatCompletionRequest', 'AgentRunRequest']) {
    const properties = schemas[name]?.properties;
    expect(properties?.['messages']?.maxItems).toBe(LIMITS.messagesMax);
    expect(properties?.['tools']?.maxItems).toBe(LIMITS.toolsMax);
  }
  const toolCalls = schemas['AgentRunRequest']?.properties?.['max_tool_calls'];
  expect(toolCalls?.maximum).toBe(LIMITS.toolCallsMax);
  expect(toolCalls?.default).toBe(LIMITS.toolCallsDefault);
  const replayed = schemas['ReplayRequest']?.properties?.['max_tool_calls'];
  expect(replayed?.maximum).toBe(LIMITS.toolCallsMax);
  expect(schemas['ChatCompletionRequest']?.properties?.['n']?.maximum).toBe(LIMITS.choicesMax);
  expect(schemas['RetrainRequest']?.properties?.['steps']?.maximum).toBe(LIMITS.trainingStepsMax);
  expect(schemas['TextPart']?.properties?.['text']?.maxLength).toBe(LIMITS.messageCharsMax);
  expect(parameters['Limit']?.schema.maximum).toBe(LIMITS.pageItemsMax);
  expect(parameters['Limit']?.schema.default).toBe(LIMITS.pageItemsDefault);
});

interface Schema {
  maxItems?: number;
  maxLength?: number;
  maximum?: number;
  default?: unknown;
  properties?: Record<string, Schema>;
}

interface Components {
  schemas: Record<string, Schema>;
  parameters: Record<string, { schema: Schema }>;
}
