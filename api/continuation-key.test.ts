/** What the key of a conversation depends on, and which differences between clients it forgives. */
import { expect, test } from 'vitest';
import type { ChatMessage } from '../core/text/types.ts';
import { chatMessages } from './chat-request.ts';
import { continuationKey } from './continuation-key.ts';
import type { Schemas } from './handlers.ts';

const SCOPE = { sessionId: null, tools: [] };
const SEARCH = { name: 'search', description: 'Finds.', parameters: { type: 'object' } };
const CALL = { id: 'call_1', name: 'search', arguments: '{"query":"a","limit":2}' };
const PAST: ChatMessage[] = [
  { role: 'user', content: 'Who?' },
  { role: 'assistant', content: '', toolCalls: [CALL] },
];
const key = (messages = PAST, scope: Parameters<typeof continuationKey>[0] = SCOPE): string =>
  continuationKey(scope, messages);
const withCall = (change: Partial<typeof CALL>): ChatMessage[] => [
  PAST[0] as ChatMessage,
  { role: 'assistant', content: '', toolCalls: [{ ...CALL, ...change }] },
];

test('is a SHA-256, equal for equal conversations', () => {
  expect(key()).toMatch(/^[0-9a-f]{64}$/);
  expect(key(structuredClone(PAST))).toBe(key());
});

test('forgives what clients drop, add or write anew', () => {
  const sent = (assistant: object): ChatMessage[] =>
    chatMessages([
      { role: 'user', content: [{ type: 'text', text: 'Who?' }] },
      assistant as Schemas['Message'],
      { role: 'tool', tool_call_id: 'call_1', content: 'x' },
    ]).slice(0, 2);
  const call = { id: 'call_1', type: 'function', function: CALL };
  for (const assistant of [
    { content: null },
    { content: '' },
    {},
    { content: null, reasoning_content: 'hm', refusal: null, annotations: [], audio: null },
  ]) {
    expect(key(sent({ role: 'assistant', tool_calls: [call], ...assistant }))).toBe(key());
  }
  expect(key(withCall({ arguments: '{ "query": "\\u0061", "limit": 2.0 }' }))).toBe(key());
});

test.each<[string, string]>([
  ['another session', key(PAST, { ...SCOPE, sessionId: 's' })],
  ['tools that the prompt shows', key(PAST, { ...SCOPE, tools: [SEARCH] })],
  ['another call id', key(withCall({ id: 'call_2' }))],
  ['another function', key(withCall({ name: 'lookup' }))],
  ['other arguments', key(withCall({ arguments: '{"query":"b","limit":2}' }))],
  ['arguments that are no JSON', key(withCall({ arguments: '{"query":"a","limit":2' }))],
  ['words beside the call', key([PAST[0] as ChatMessage, { ...PAST[1]!, content: 'Well.' }])],
  ['an edited question', key([{ role: 'user', content: 'Who? ' }, PAST[1] as ChatMessage])],
  ['another role', key([{ role: 'system', content: 'Who?' }, PAST[1] as ChatMessage])],
  ['a message less', key(PAST.slice(1))],
  [
    'text that moved between messages',
    key([{ role: 'user', content: 'W' }, { role: 'user', content: 'ho?' }, PAST[1]!]),
  ],
])('%s is another conversation', (_what, other) => {
  expect(other).not.toBe(key());
});
