/** Cases of the operations tagged keys; the authorisation table is a test of its own. */
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Case } from './cases.ts';
import type { Answer, Harness, KeyHeaders, Parsed } from './harness.ts';
import { trajectoryOf } from './log-cases.ts';

const ADMIN = { name: 'operator', scopes: ['admin'] };

const bearer = ({ body }: Answer): KeyHeaders => ({ authorization: `Bearer ${body.secret}` });

/** The first key, an admin's, and what carries it. */
async function firstKey(h: Harness): Promise<{ id: string; headers: KeyHeaders }> {
  const made = await h.call('createKey', { body: ADMIN });
  return { id: made.body.key.id as string, headers: bearer(made) };
}

async function statusWith(h: Harness, headers: KeyHeaders): Promise<number> {
  return (await h.call('listModels', { headers })).status;
}

const unknown = { key_id: 'key_unknown' };

export const KEY_CASES: Case[] = [
  {
    operation: 'replayTrajectory',
    what: 'an agent that wants new paths',
    status: 403,
    code: 'insufficient_scope',
    call: async (h) => {
      const path = { trajectory_id: await trajectoryOf(h) };
      const headers = await h.key();
      const score = await h.call('replayTrajectory', { path, headers, body: {} });
      expect(score.status).toBe(200);
      return h.call('replayTrajectory', { path, headers, body: { mode: 'resample' } });
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'its tokens are those of the key',
    status: 200,
    call: async (h) => {
      const path = { trajectory_id: await trajectoryOf(h) };
      return h.call('replayTrajectory', { path, headers: await h.key(), body: {} });
    },
    check: ({ body }, h) => {
      const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      const all = steps.reduce((sum, { tokens }) => sum + tokens.length, 0);
      const [key] = h.deps.stores.keys.list().items;
      expect(h.deps.usage.tokensToday(key?.id ?? '')).toBe(all);
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'more at once than one key may, while another key still can',
    status: 429,
    code: 'rate_limit_exceeded',
    call: async (h) => {
      const path = { trajectory_id: await trajectoryOf(h) };
      const [headers, others] = [await h.key(), await h.key()];
      const ask = (by: KeyHeaders) => h.call('replayTrajectory', { path, headers: by, body: {} });
      h.engine.pieceMs = 50;
      const held = Array.from({ length: LIMITS.keyReplaysMax }, () => ask(headers));
      const answer = await ask(headers);
      expect((await ask(others)).status).toBe(200);
      for (const { status } of await Promise.all(held)) expect(status).toBe(200);
      return answer;
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'new paths by an admin are audited, scores are not',
    status: 200,
    call: async (h) => {
      const path = { trajectory_id: await trajectoryOf(h) };
      await h.call('replayTrajectory', { path, body: {} });
      const body = { mode: 'resample', save: true };
      return h.call('replayTrajectory', { path, body });
    },
    check: (_, h) => {
      const rows = h.deps.stores.audit.list().items;
      expect(rows.map(({ operation, status }) => [operation, status])).toEqual([
        ['replayTrajectory', 200],
      ]);
      expect(rows[0]?.request).toMatchObject({ body: { mode: 'resample', save: true } });
    },
  },
  {
    operation: 'createKey',
    what: 'its row of the audit log is stored in the commit of the key',
    status: 201,
    call: async (h) => {
      h.deps.stores.audit.add = () => Promise.reject(new AppError('storage_failed', 'no disk'));
      return h.call('createKey', { body: ADMIN });
    },
    check: async (answer, h) => {
      const headers = bearer(answer);
      const path = { key_id: answer.body.key.id as string };
      expect((await h.call('rotateKey', { path, headers, body: {} })).status).toBe(200);
      const rows = h.deps.stores.audit.list().items;
      expect(rows.map(({ operation, status }) => [operation, status])).toEqual([
        ['rotateKey', 200],
        ['createKey', 201],
      ]);
    },
  },
  {
    operation: 'createKey',
    what: 'the first one closes the API to all without a key',
    status: 201,
    call: (h) => h.call('createKey', { body: ADMIN }),
    check: async (answer, h) => {
      const { key, secret } = answer.body;
      expect(secret).toMatch(/^rk_[\w-]{43}$/);
      expect(secret.startsWith(key.prefix)).toBe(true);
      expect(answer.headers.get('cache-control')).toBe('no-store');
      expect(key).toMatchObject({ name: 'operator', tenant: 'default', status: 'active' });
      expect((await h.call('listModels')).code).toBe('invalid_api_key');
      expect(await statusWith(h, bearer(answer))).toBe(200);
      expect((await h.call('getHealth')).status).toBe(200);
      const rows = JSON.stringify(h.deps.stores.keys.all());
      expect(rows).toContain(key.prefix);
      expect(rows).not.toContain(secret);
    },
  },
  {
    operation: 'createKey',
    what: 'with every bound',
    status: 201,
    call: async (h) => {
      const { headers } = await firstKey(h);
      const body = {
        name: 'shop',
        tenant: 'shop',
        expires_at: '2999-01-01T00:00:00Z',
        requests_per_minute: 60,
        concurrency: 4,
        tokens_per_day: 100,
      };
      return h.call('createKey', { body, headers });
    },
    check: async (answer, h) => {
      expect(answer.body.key).toMatchObject({
        tenant: 'shop',
        scopes: ['agent'],
        expires_at: '2999-01-01T00:00:00.000Z',
        requests_per_minute: 60,
        concurrency: 4,
        tokens_per_day: 100,
        tokens_today: 0,
      });
      const { headers } = await h.call('listModels', { headers: bearer(answer) });
      expect(headers.get('x-ratelimit-limit-requests')).toBe('60');
      expect(headers.get('x-ratelimit-remaining-requests')).toBe('59');
      expect(headers.get('x-ratelimit-reset-requests')).toMatch(/^(1s|\d{1,3}ms)$/);
      expect(headers.get('x-ratelimit-remaining-tokens')).toBe('100');
      expect(headers.get('x-ratelimit-reset-tokens')).toMatch(/^(\d+h)?(\d+m)?\d+m?s$/);
    },
  },
  ...[
    ['an agent as the first', { name: 'x' }, 'first key'],
    ['a time that is past', { ...ADMIN, expires_at: '2001-01-01T00:00:00Z' }, 'is past'],
    ['a tenant with a slash', { ...ADMIN, tenant: 'a/b' }, 'tenant'],
    ['a scope that is not known', { ...ADMIN, scopes: ['root'] }, 'scopes'],
    ['no request a minute', { ...ADMIN, requests_per_minute: 0 }, 'requests_per_minute'],
  ].map(([what, body, message]): Case => ({
    operation: 'createKey',
    what: what as string,
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('createKey', { body }),
    check: ({ body: { error } }, h) => {
      expect(error.message).toContain(message);
      expect(h.deps.keys.required).toBe(false);
    },
  })),
  {
    operation: 'createKey',
    what: 'more than fit',
    status: 409,
    code: 'too_many_keys',
    call: async (h) => {
      const { headers } = await firstKey(h);
      const [key] = h.deps.stores.keys.all();
      await Promise.all(
        Array.from({ length: LIMITS.keysMax - 1 }, (_, i) =>
          h.deps.stores.keys.create({ ...key!, id: `key_${i}`, prefix: `${i}`, hash: `${i}` }),
        ),
      );
      return h.call('createKey', { body: ADMIN, headers });
    },
  },
  {
    operation: 'listKeys',
    what: 'newest first, in pages, without secrets',
    status: 200,
    call: async (h) => {
      const { headers } = await firstKey(h);
      for (const name of ['b', 'c']) await h.call('createKey', { body: { name }, headers });
      return h.call('listKeys', { headers, query: { limit: 2 } });
    },
    check: async ({ body, text }, h) => {
      expect(body.data.map(({ name }: Parsed) => name)).toEqual(['c', 'b']);
      expect(text).not.toContain('hash');
      const headers = await h.key({ scopes: ['admin'] });
      const query = { limit: 2, cursor: body.next_cursor as string };
      const rest = await h.call('listKeys', { headers, query });
      expect(rest.body.data.map(({ name }: Parsed) => name)).toEqual(['operator']);
    },
  },
  {
    operation: 'listKeys',
    what: 'a page that is too large',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listKeys', { query: { limit: 1000 } }),
  },
  {
    operation: 'revokeKey',
    what: 'at once, twice the same; the API stays closed',
    status: 200,
    call: async (h) => {
      const { id, headers } = await firstKey(h);
      return h.call('revokeKey', { path: { key_id: id }, headers });
    },
    check: async ({ body }, h) => {
      expect(body.status).toBe('revoked');
      expect((await h.call('listModels')).code).toBe('invalid_api_key');
      const headers = await h.key({ scopes: ['admin'] });
      const again = await h.call('revokeKey', { path: { key_id: body.id as string }, headers });
      expect(again.body.revoked_at).toBe(body.revoked_at);
    },
  },
  {
    operation: 'revokeKey',
    what: 'an unknown key',
    status: 404,
    code: 'key_not_found',
    call: (h) => h.call('revokeKey', { path: unknown }),
  },
  {
    operation: 'revokeKey',
    what: 'what is no id',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('revokeKey', { path: { key_id: '1' } }),
  },
  {
    operation: 'rotateKey',
    what: 'the old secret stays good for the grace',
    status: 200,
    call: async (h) => {
      const { id, headers } = await firstKey(h);
      return h.call('rotateKey', { path: { key_id: id }, headers, body: { grace_seconds: 60 } });
    },
    check: async (answer, h) => {
      const { id, previous_valid_until: until, created_at: since } = answer.body.key;
      const left = Date.parse(until as string) - Date.parse(since as string);
      expect(left).toBeGreaterThanOrEqual(60_000);
      expect(await statusWith(h, bearer(answer))).toBe(200);
      const options = { path: { key_id: id as string }, headers: bearer(answer) };
      const now = await h.call('rotateKey', { ...options, body: { grace_seconds: 0 } });
      expect(now.body.key.previous_valid_until).toBeNull();
      expect(await statusWith(h, bearer(answer))).toBe(401);
      expect(await statusWith(h, bearer(now))).toBe(200);
    },
  },
  {
    operation: 'rotateKey',
    what: 'an unknown key',
    status: 404,
    code: 'key_not_found',
    call: (h) => h.call('rotateKey', { path: unknown, body: {} }),
  },
  {
    operation: 'rotateKey',
    what: 'a revoked key',
    status: 409,
    code: 'key_not_usable',
    call: async (h) => {
      const { id } = await firstKey(h);
      const headers = await h.key({ scopes: ['admin'] });
      await h.call('revokeKey', { path: { key_id: id }, headers });
      return h.call('rotateKey', { path: { key_id: id }, headers, body: {} });
    },
  },
  {
    operation: 'listAudit',
    what: 'what changed something or was to, newest first, by key, in pages, without secrets',
    status: 200,
    call: async (h) => {
      const { headers } = await firstKey(h);
      await h.call('listKeys', { headers });
      await h.call('activatePolicy', { path: { version: 99 }, headers });
      await h.call('createKey', { headers, body: { name: 'x'.repeat(100) } });
      await h.call('createChatCompletion', { headers, body: {} });
      return h.call('listAudit', { headers });
    },
    check: async ({ body, text }, h) => {
      const [key] = h.deps.stores.keys.all();
      const outline = body.data.map((row: Parsed) => [row.operation, row.status, row.key_id]);
      expect(outline).toEqual([
        ['createKey', 201, key?.id],
        ['activatePolicy', 404, key?.id],
        ['createKey', 201, null],
      ]);
      expect(body.data[1]).toMatchObject({
        method: 'POST',
        path: '/v1/admin/policies/99/activate',
        request: { path: { version: 99 } },
      });
      expect(text).not.toContain('"secret"');
      const headers = await h.key({ scopes: ['admin'] });
      const query = { limit: 1, key_id: key?.id as string };
      const first = await h.call('listAudit', { headers, query });
      expect(first.body.data).toEqual([body.data[0]]);
      const cursor = first.body.next_cursor as string;
      const next = await h.call('listAudit', { headers, query: { ...query, cursor } });
      expect(next.body).toMatchObject({ data: [body.data[1]], has_more: false });
    },
  },
  {
    operation: 'listAudit',
    what: 'a key that is no id',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listAudit', { query: { key_id: 'x' } }),
  },
];
