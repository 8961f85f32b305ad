/** From items to messages: turns, calls and their results, and what does not fit together. */
import { expect, test } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { givenItems, messagesOf } from './items.ts';
import type { Item } from './items.ts';

let count = 0;
const source = { newId: (kind: string) => `${kind}_${count++}`, findItem: () => null };

/** What a client may send, as the contract passes it on. */
const given = (input: unknown[]): Item[] => givenItems(input as never, source);

const user = (content: string) => ({ role: 'user', content });
const called = (id: string) => ({
  ...{ type: 'function_call', call_id: id, name: 'look', arguments: '{}' },
});
const output = (id: string, text: unknown = 'x') => ({
  ...{ type: 'function_call_output', call_id: id, output: text },
});
const served = (id: string, result: string | null) => ({
  ...{ type: 'mcp_call', id, server_label: 'ramify', name: 'search', arguments: '{}' },
  ...{ output: result, error: null },
});
const toolCall = (id: string, name = 'look') => ({ id, name, arguments: '{}' });
const answer = (toolCallId: string, content: string, name = 'look') => ({
  ...{ role: 'tool', content, toolCallId, name },
});

test('texts, in any of their forms', () => {
  expect(givenItems('hello', source)).toMatchObject([
    { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'hello' }] },
  ]);
  const parts = (type: string) => ['a', 'b'].map((text) => ({ type, text }));
  const items = given([
    { type: 'message', role: 'developer', content: parts('input_text') },
    { role: 'assistant', content: parts('output_text'), status: 'completed', id: 'msg_7' },
    { type: 'reasoning', summary: [], id: 'rs_1' },
  ]);
  expect(items.map(({ id }) => id)).toEqual([expect.any(String), 'msg_7', 'rs_1']);
  expect(messagesOf(items)).toEqual([
    { role: 'developer', content: 'ab' },
    { role: 'assistant', content: 'ab' },
  ]);
});

test('calls at once are one turn with the text before them; results end it', () => {
  const items = given([
    user('hi'),
    { role: 'assistant', content: 'I look.' },
    ...[
      called('a'),
      called('b'),
      output('b', 'B'),
      output('a', [{ type: 'input_text', text: 'A' }]),
    ],
    ...[called('c'), output('c', 'C')],
  ]);
  expect(messagesOf(items)).toEqual([
    { role: 'user', content: 'hi' },
    { role: 'assistant', content: 'I look.', toolCalls: [toolCall('a'), toolCall('b')] },
    answer('b', 'B'),
    answer('a', 'A'),
    { role: 'assistant', content: null, toolCalls: [toolCall('c')] },
    answer('c', 'C'),
  ]);
});

test('a call of this server carries its result; one that was cut off is left out', () => {
  const items = given([user('hi'), served('mcp_1', 'found'), served('mcp_2', null), called('a')]);
  const messages = messagesOf(items, { callsOpen: true });
  expect(messages).toEqual([
    { role: 'user', content: 'hi' },
    { role: 'assistant', content: null, toolCalls: [toolCall('mcp_1', 'search')] },
    answer('mcp_1', 'found', 'search'),
    { role: 'assistant', content: null, toolCalls: [toolCall('a')] },
  ]);
});

test.each([
  ['an output without its call', [user('hi'), output('a')], 'answers no open call'],
  ['an output given twice', [called('a'), output('a'), output('a')], 'answers no open call'],
  ['a call without output', [user('hi'), called('a')], "function call 'a'"],
  ['a message before the output', [called('a'), user('hi'), output('a')], "function call 'a'"],
])('%s is refused', (_what, input, message) => {
  expect(() => messagesOf(given(input))).toThrow(message);
});

test('a reference to what is not stored is told with its place', () => {
  const input = [user('hi'), { type: 'item_reference', id: 'msg_9' }];
  try {
    given(input);
    expect.unreachable();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(AppError);
    expect(thrown).toMatchObject({ code: 'invalid_request', param: 'input[1].id' });
  }
});
