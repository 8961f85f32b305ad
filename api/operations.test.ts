/**
 * Every operation of the contract: its successes and each error it documents, on the real stores.
 * Each answer is checked against the contract by the harness; the last tests check that nothing
 * documented was left out, and that nothing undocumented exists.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AppError, ERROR_CODES } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { loadContract } from './contract/contract.ts';
import { STATUS } from './problem.ts';
import { ADMIN_CASES } from './testing/admin-cases.ts';
import type { Case } from './testing/cases.ts';
import { AGENT_CASES } from './testing/agent-cases.ts';
import { AGENT_CHOICE_CASES } from './testing/agent-choice-cases.ts';
import { CHAT_CASES } from './testing/chat-cases.ts';
import { CLIENT_FORM_CASES } from './testing/client-form-cases.ts';
import { DOCS_CASES } from './testing/docs-cases.ts';
import { startHarness } from './testing/harness.ts';
import type { Answer, CallOptions, Harness } from './testing/harness.ts';
import { KEY_CASES } from './testing/key-cases.ts';
import { LOG_CASES } from './testing/log-cases.ts';
import { MCP_CASES } from './testing/mcp-cases.ts';
import { REPEAT_CASES } from './testing/repeat-cases.ts';
import { RESPONSE_CASES } from './testing/response-cases.ts';
import { RESPONSE_REFUSALS } from './testing/response-refusals.ts';
import { STREAM_CASES } from './testing/stream-cases.ts';
import { TOOL_CASES } from './testing/tool-cases.ts';
import { storedRun, VALID } from './testing/valid-calls.ts';

const contract = loadContract();

/** Cases that hold for every operation, or for every one with a body. */
const COMMON_CASES: Case[] = contract.operations.flatMap(
  ({ id, bodyType, scope, streams, responses }): Case[] => {
    const call = async (h: Harness, extra: CallOptions): Promise<Answer> =>
      h.call(id, { ...(await VALID[id](h)), ...extra });
    const broken = (thrown: Error) => async (h: Harness) => {
      const options = await VALID[id](h);
      h.fault.thrown = thrown;
      return h.call(id, options);
    };
    const cases: Case[] = [];
    const add = (what: string, status: number, code: string, run: Case['call']): void => {
      if (responses.get(status)?.errorCodes.includes(code) !== true) return;
      if (code === 'queue_full' && streams === 'never') return;
      cases.push({ operation: id, what, status, code, call: run });
    };
    add('a foreign Host', 403, 'forbidden', (h) => call(h, { headers: { host: 'evil.example' } }));
    add('a foreign Origin', 403, 'forbidden', (h) =>
      call(h, { headers: { origin: 'https://evil.example' } }),
    );
    add('no key where there are keys', 401, 'invalid_api_key', async (h) => {
      const options = await VALID[id](h);
      await h.key();
      return h.call(id, options);
    });
    const limited = (request: Parameters<Harness['key']>[0]) => async (h: Harness) => {
      const options = await VALID[id](h);
      const headers = await h.key({ scopes: ['admin'], ...request });
      const [key] = h.deps.stores.keys.list().items;
      await h.deps.usage.count(key?.id ?? '', { promptTokens: 1, completionTokens: 1 });
      await h.call('listModels', { headers });
      return h.call(id, { ...options, headers });
    };
    add('more requests than a minute may have', 429, 'rate_limit_exceeded', (h) =>
      limited({ requestsPerMinute: 1 })(h),
    );
    add('no tokens left', 429, 'insufficient_quota', (h) => limited({ tokensPerDay: 2 })(h));
    // Of the others that depends on what is asked for.
    if (scope === 'admin')
      add("an agent's key", 403, 'insufficient_scope', async (h) => {
        const options = await VALID[id](h);
        return h.call(id, { ...options, headers: await h.key() });
      });
    add('too many streams', 503, 'queue_full', async (h) => {
      const options = await VALID[id](h);
      for (let i = 0; i < LIMITS.eventStreamsMax; i++) h.deps.usage.enterStream(null);
      if (streams === 'always') return h.call(id, options);
      const part = bodyType === null ? 'query' : 'body';
      return h.call(id, { ...options, [part]: { ...(options[part] as object), stream: true } });
    });
    add('a server that stops', 503, 'not_ready', async (h) => {
      const options = await VALID[id](h);
      await h.deps.lifecycle.stop(0);
      return h.call(id, options);
    });
    add(
      'a disk that fails',
      500,
      'storage_failed',
      broken(new AppError('storage_failed', 'no disk')),
    );
    add('a bug', 500, 'internal', broken(new TypeError('secret detail')));
    if (bodyType === null) return cases;
    add('another media type', 415, 'unsupported_media_type', (h) =>
      call(h, { headers: { 'content-type': 'text/plain; x=application/json' } }),
    );
    add('another charset', 415, 'unsupported_media_type', (h) =>
      call(h, { headers: { 'content-type': `${bodyType}; charset=latin1` } }),
    );
    add('bad JSON', 400, 'invalid_json', (h) => call(h, { body: '{"model": ' }));
    add('JSON that nests too deep', 400, 'invalid_json', (h) => call(h, { body: '['.repeat(1e5) }));
    add('a body over the limit', 413, 'payload_too_large', (h) =>
      call(h, { body: ' '.repeat(LIMITS.bodyBytesMax + 1) }),
    );
    add('a body of the wrong type', 400, 'invalid_request', (h) =>
      bodyType === 'application/json' ? call(h, { body: '[]' }) : call(h, { query: { x: 1 } }),
    );
    return cases;
  },
);

const STORED_CASES: Case[] = (
  ['getAgentRun', 'streamAgentRunEvents', 'cancelAgentRun'] as const
).map((operation) => ({
  operation,
  what: 'a run that only the database knows',
  status: 200,
  call: async (h) => h.call(operation, await storedRun(h)),
  check: ({ body, text }) => {
    if (operation === 'streamAgentRunEvents') expect(text).toContain('event: run.completed\n');
    else expect(body.steps).toHaveLength(4);
  },
}));

const CASES = [
  ...CHAT_CASES,
  ...CLIENT_FORM_CASES,
  ...AGENT_CASES,
  ...AGENT_CHOICE_CASES,
  ...RESPONSE_CASES,
  ...REPEAT_CASES,
  ...RESPONSE_REFUSALS,
  ...LOG_CASES,
  ...KEY_CASES,
  ...MCP_CASES,
  ...STREAM_CASES,
  ...TOOL_CASES,
  ...ADMIN_CASES,
  ...DOCS_CASES,
  ...DOCS_CASES,
  ...STORED_CASES,
  ...COMMON_CASES,
];

let h: Harness;

beforeEach(async () => {
  h = await startHarness();
});

afterEach(() => h.close());

for (const { id, responses } of contract.operations) {
  describe(id, () => {
    const own = CASES.filter((one) => one.operation === id);
    const answered = new Set<string>();
    test.each(own)('$status $code: $what', async ({ call, status, code, check }) => {
      const answer = await call(h);
      expect({ status: answer.status, code: answer.code ?? undefined }).toEqual({ status, code });
      expect(answer.text).not.toContain('secret detail');
      await check?.(answer, h);
      const type = answer.headers.get('content-type')?.split(';')[0] ?? 'none';
      answered.add(`${status} ${type}`);
    });

    test('succeeds in every documented media type', () => {
      const documented = [...responses].flatMap(([status, { mediaTypes }]) =>
        status < 400 ? mediaTypes.map((type) => `${status} ${type}`) : [],
      );
      expect(documented.filter((answer) => !answered.has(answer))).toEqual([]);
    });
  });
}

describe('the contract', () => {
  test('every documented answer has a case', () => {
    const covered = new Set(CASES.map((one) => `${one.operation} ${one.status} ${one.code ?? ''}`));
    const missing = contract.operations.flatMap(({ id, responses }) =>
      [...responses].flatMap(([status, { errorCodes }]) =>
        (status < 400 ? [''] : errorCodes)
          .map((code) => `${id} ${status} ${code}`)
          .filter((answer) => !covered.has(answer)),
      ),
    );
    expect(missing).toEqual([]);
  });

  test('error codes and statuses are those of the table', () => {
    expect([...contract.errorCodes].sort()).toEqual(Object.keys(ERROR_CODES).sort());
    for (const { id, responses } of contract.operations) {
      for (const [status, { errorCodes }] of responses) {
        expect(errorCodes.length > 0, `${id} ${status}`).toBe(status >= 400);
        for (const code of errorCodes) {
          expect(STATUS[code as keyof typeof STATUS], `${id} ${code}`).toBe(status);
        }
      }
    }
  });

  test('a code that no operation answers is explained', () => {
    const answered = new Set(
      contract.operations.flatMap(({ responses }) =>
        [...responses.values()].flatMap(({ errorCodes }) => errorCodes),
      ),
    );
    const schema = contract.text.slice(contract.text.indexOf('    ErrorCode:'));
    const description = schema.slice(0, schema.indexOf('      enum:'));
    for (const code of contract.errorCodes) {
      expect(answered.has(code) !== description.includes(`\`${code}\``), code).toBe(true);
    }
  });

  test('unknown paths and methods', async () => {
    const lost = await h.app.request('http://localhost/v1/nothing');
    expect(lost.status).toBe(404);
    expect(await lost.json()).toMatchObject({ error: { code: 'route_not_found' } });
    const wrong = await h.app.request('http://localhost/v1/models', { method: 'DELETE' });
    expect(wrong.status).toBe(405);
    expect(wrong.headers.get('allow')).toBe('GET');
    expect(await wrong.json()).toMatchObject({ error: { code: 'method_not_allowed' } });
  });

  test('a path beside one with a parameter offers its own methods only', async () => {
    const path = 'http://localhost/v1/admin/policies/rollback';
    const wrong = await h.app.request(path, { method: 'GET' });
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
  });
});
