/**
 * Keys over the real server: the first one made on the data folder, an address that others reach,
 * a client of OpenAI's with a key, tokens that are counted over a kill of the server, limits that
 * the client understands, and a body that never ends, which holds a key's only place.
 */
import OpenAI from 'openai';
import { expect, it } from 'vitest';
import { ramify } from '../support/command-line.ts';
import { fixture } from './fixture.ts';
import type { HttpAnswer } from './fixture.ts';

const { path, launch } = fixture();
const POLL = { timeout: 20_000 };
const messages = [{ role: 'user' as const, content: 'What is the capital of France?' }];

it('a server for other machines, from its first key to a restart', async () => {
  const dataFolder = path('data');
  const refused = await ramify('key', 'create', '--data', dataFolder);
  expect(refused).toMatchObject({ code: 2, out: '' });
  expect(refused.err).toContain('the first key must have the scope admin');
  const made = await ramify('key', 'create', '--admin', '--data', dataFolder);
  expect(made.out).toMatch(/^rk_[\w-]{43}\n$/);
  const admin = made.out.trim();

  const options = { dataFolder, flags: ['--host', '0.0.0.0'] };
  const server = await launch(options).ready();
  const url = (running: { url: string }): string => running.url.replace('0.0.0.0', '127.0.0.1');
  const api = async (
    running: { url: string },
    key: string | null,
    route: string,
    body?: object,
  ) => {
    const response = await fetch(url(running) + route, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        host: 'ramify.example',
        ...(key !== null && { authorization: `Bearer ${key}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    });
    const answer: HttpAnswer['body'] = await response.json();
    return { status: response.status, headers: response.headers, body: answer };
  };
  const nobody = await api(server, null, '/v1/models');
  expect([nobody.status, nobody.body.error.code]).toEqual([401, 'invalid_api_key']);
  expect(nobody.headers.get('www-authenticate')).toMatch(/^Bearer /);
  expect(await ramify('key', 'create', '--data', dataFolder)).toMatchObject({ code: 1 });
  expect((await ramify('key', 'list', '--data', dataFolder)).out).toContain(admin.slice(0, 11));

  const request = { name: 'shop', tenant: 'shop', tokens_per_day: 40, concurrency: 1 };
  const { key, secret } = (await api(server, admin, '/v1/admin/keys', request)).body;
  const clientOf = (running: { url: string }): OpenAI =>
    new OpenAI({ apiKey: secret as string, baseURL: `${url(running)}/v1`, maxRetries: 0 });

  // A body that never ends holds the key's only place, until its client leaves.
  const leave = new AbortController();
  const endless = fetch(`${url(server)}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
    body: new ReadableStream({ start: (body) => body.enqueue(new TextEncoder().encode('{')) }),
    duplex: 'half',
    signal: leave.signal,
  });
  const models = () => api(server, secret as string, '/v1/models');
  await expect
    .poll(async () => (await models()).body.error?.code, POLL)
    .toBe('rate_limit_exceeded');
  expect((await models()).headers.get('retry-after')).toBe('1');
  leave.abort();
  await expect(endless).rejects.toThrow();
  await expect.poll(async () => (await models()).status, POLL).toBe(200);

  const answered = await clientOf(server).chat.completions.create({ model: 'ramify', messages });
  const tokens = answered.usage?.total_tokens ?? 0;
  expect(tokens).toBeGreaterThan(0);

  server.child.kill('SIGKILL');
  await server.exited;
  const next = await launch(options).ready();
  const keys = await api(next, admin, '/v1/admin/keys');
  const found = keys.body.data.find(({ id }: { id: string }) => id === key.id);
  expect(found).toMatchObject({ tokens_today: tokens, status: 'active', tenant: 'shop' });
  expect(found.last_used_at).not.toBeNull();
  const mine = await api(next, secret as string, '/v1/trajectories');
  expect(mine.body.data).toHaveLength(1);
  for (let used = tokens; used < 40;) {
    const answer = await clientOf(next).chat.completions.create({ model: 'ramify', messages });
    used += answer.usage?.total_tokens ?? 40;
  }
  const spent = clientOf(next).chat.completions.create({ model: 'ramify', messages });
  await expect(spent).rejects.toMatchObject({ status: 429, code: 'insufficient_quota' });
  expect((await api(next, secret as string, '/v1/trajectories')).status).toBe(200);
  await next.end('SIGTERM');

  expect((await ramify('key', 'revoke', key.id as string, '--data', dataFolder)).code).toBe(0);
  expect((await ramify('key', 'list', '--data', dataFolder, '--json')).out).toContain('"revoked"');
});
