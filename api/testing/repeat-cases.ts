/** Cases of calls with an Idempotency-Key, of each operation that takes one. */
import { expect } from 'vitest';
import type { Case } from './cases.ts';
import { CHAT } from './chat-cases.ts';
import { ANSWER_SCRIPT, CAPITAL_SCRIPT, until } from './harness.ts';
import type { Answer, Harness } from './harness.ts';
import { SERVER_SEARCH } from './response-cases.ts';

const input = 'What is the capital of France?';
const FORMS = [
  { what: 'plain', fields: {}, status: 200 },
  { what: 'streamed', fields: { stream: true }, status: 200 },
];
const background = (status: number) => ({
  what: 'in the background',
  fields: { background: true },
  status,
});

/** The same question, whose search the server runs where it runs tools. */
const REPEATED = [
  { operation: 'createChatCompletion', body: CHAT, toolCalls: 0, forms: FORMS },
  {
    operation: 'createResponse',
    body: { model: 'ramify', input, tools: [SERVER_SEARCH] },
    toolCalls: 1,
    forms: [...FORMS, background(200)],
  },
  {
    operation: 'createAgentRun',
    body: { input, tools: ['search'] },
    toolCalls: 1,
    forms: [...FORMS, background(202)],
  },
] as const;

export const REPEAT_CASES: Case[] = REPEATED.flatMap(
  ({ operation, body, toolCalls, forms }): Case[] => {
    const ask = (h: Harness, fields: object = {}): Promise<Answer> => {
      h.engine.script = CAPITAL_SCRIPT;
      const headers = { 'idempotency-key': 'one' };
      return h.call(operation, { body: { ...body, ...fields }, headers });
    };
    return [
      ...forms.map(({ what, fields, status }): Case => ({
        operation,
        what: `the same call again, ${what}: the same answer, and nothing runs`,
        status,
        call: async (h) => {
          const first = await ask(h, fields);
          expect(first.headers.get('idempotent-replayed')).toBeNull();
          const again = await ask(h, fields);
          expect(again.text).toBe(first.text);
          const [before, now] = [first, again].map(({ headers }) =>
            headers.get('x-ramify-trajectory'),
          );
          expect(now).toBe(before);
          await until(() => h.deps.stores.trajectories.list().items.length === 1);
          return again;
        },
        check: ({ headers }, h) => {
          expect(headers.get('idempotent-replayed')).toBe('true');
          const { items } = h.deps.stores.trajectories.list();
          expect(items.map((row) => row.toolCalls)).toEqual([toolCalls]);
        },
      })),
      {
        operation,
        what: 'another call under a key that was used',
        status: 409,
        code: 'idempotency_conflict',
        call: async (h) => {
          await ask(h);
          return ask(h, { temperature: 0.5 });
        },
        check: ({ headers }) => expect(headers.get('x-should-retry')).toBe('false'),
      },
      {
        operation,
        what: 'the same call while the first one runs, for longer than it waits',
        status: 409,
        code: 'idempotency_key_in_use',
        call: async (h) => {
          h.deps.idempotencyWaitMs = 1;
          h.engine.pieceMs = 100;
          const first = ask(h);
          const second = await ask(h);
          h.engine.pieceMs = 0;
          h.engine.script = ANSWER_SCRIPT;
          expect((await first).status).toBe(200);
          return second;
        },
        check: ({ headers }) => {
          expect(headers.get('retry-after')).toBe('1');
          expect(headers.get('x-should-retry')).toBeNull();
        },
      },
    ];
  },
);
