/** Cases of calls with an Idempotency-Key: responses and agent runs, with tools of the server. */
import { expect } from 'vitest';
import type { Case } from './cases.ts';
import { ANSWER_SCRIPT, CAPITAL_SCRIPT, until } from './harness.ts';
import type { Answer, Harness } from './harness.ts';

const QUESTION = 'What is the capital of France?';
const SERVER_SEARCH = { type: 'mcp', server_label: 'ramify', allowed_tools: ['search'] };

/** The same question, whose search the server runs. */
const BODIES = {
  createResponse: { model: 'ramify', input: QUESTION, tools: [SERVER_SEARCH] },
  createAgentRun: { input: QUESTION, tools: ['search'] },
} as const;

export const REPEAT_CASES: Case[] = (['createResponse', 'createAgentRun'] as const).flatMap(
  (operation): Case[] => {
    const ask = (h: Harness, fields: object = {}): Promise<Answer> => {
      h.engine.script = CAPITAL_SCRIPT;
      const headers = { 'idempotency-key': 'one' };
      return h.call(operation, { body: { ...BODIES[operation], ...fields }, headers });
    };
    const background = operation === 'createResponse' ? 200 : 202;
    return [
      ...[
        { what: 'plain', fields: {}, status: 200 },
        { what: 'streamed', fields: { stream: true }, status: 200 },
        { what: 'in the background', fields: { background: true }, status: background },
      ].map(({ what, fields, status }): Case => ({
        operation,
        what: `the same call again, ${what}: the same answer, and no tool runs`,
        status,
        call: async (h) => {
          const first = await ask(h, fields);
          expect(first.headers.get('idempotent-replayed')).toBeNull();
          const again = await ask(h, fields);
          expect(again.text).toBe(first.text);
          await until(() => h.deps.stores.trajectories.list().items.length === 1);
          return again;
        },
        check: ({ headers }, h) => {
          expect(headers.get('idempotent-replayed')).toBe('true');
          const { items } = h.deps.stores.trajectories.list();
          expect(items.map(({ toolCalls }) => toolCalls)).toEqual([1]);
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
      },
    ];
  },
);
