/**
 * OpenAI's own client where it may not go on: it waits as long as Retry-After says and then gets
 * its answer; without a key, or with a wrong one, it gives up at once.
 */
import OpenAI from 'openai';
import { beforeAll, expect, it } from 'vitest';
import { call, fixture } from '../e2e/fixture.ts';
import type { TestServer } from '../support/server-process.ts';

const { path, launch } = fixture();
const REQUESTS_A_MINUTE = 15;

let server: TestServer;
let admin: string;

beforeAll(async () => {
  server = await launch({ dataFolder: path('data') }).ready();
  const { body } = await call(server, 'POST', '/v1/admin/keys', { name: 'a', scopes: ['admin'] });
  admin = body.secret as string;
});

interface Seen {
  status: number;
  retryAfterMs: number | null;
  atMs: number;
}

/** A client that notes when it asked and what it was told. */
function clientOf(apiKey: string, maxRetries: number): { client: OpenAI; seen: Seen[] } {
  const seen: Seen[] = [];
  const noting: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    const after = response.headers.get('retry-after-ms');
    const retryAfterMs = after === null ? null : Number(after);
    seen.push({ status: response.status, retryAfterMs, atMs: performance.now() });
    return response;
  };
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries, fetch: noting });
  return { client, seen };
}

/** A key that has sent all that it may in a minute. */
async function spentKey(): Promise<string> {
  const response = await fetch(`${server.url}/v1/admin/keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'b', requests_per_minute: REQUESTS_A_MINUTE }),
  });
  const { secret } = (await response.json()) as { secret: string };
  const { client } = clientOf(secret, 0);
  const all = Array.from({ length: REQUESTS_A_MINUTE + 2 }, () => client.models.list());
  const statuses = (await Promise.allSettled(all)).map(({ status }) => status);
  expect(statuses).toContain('rejected');
  return secret;
}

it('429: it waits as long as it is told, and is answered', async () => {
  const { client, seen } = clientOf(await spentKey(), 1);
  const models = await client.models.list();
  expect(models.data.map(({ id }) => id)).toContain('ramify');
  expect(seen.map(({ status }) => status)).toEqual([429, 200]);
  const [refused, answered] = seen;
  const waitedMs = (answered?.atMs ?? 0) - (refused?.atMs ?? 0);
  expect(refused?.retryAfterMs).toBeGreaterThanOrEqual(1_000);
  expect(waitedMs).toBeGreaterThanOrEqual(refused?.retryAfterMs ?? Infinity);
});

it('429 without retries is its RateLimitError, with our code', async () => {
  const { client, seen } = clientOf(await spentKey(), 0);
  const error = await client.models.list().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(OpenAI.RateLimitError);
  expect(error).toMatchObject({ status: 429, code: 'rate_limit_exceeded' });
  expect(seen).toHaveLength(1);
});

it('401 is its AuthenticationError, and is not tried again', async () => {
  const { client, seen } = clientOf('rk_wrong', 3);
  const chat = { model: 'ramify', messages: [{ role: 'user' as const, content: 'x' }] };
  const error = await client.chat.completions.create(chat).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(OpenAI.AuthenticationError);
  expect(error).toMatchObject({ status: 401, code: 'invalid_api_key' });
  expect(seen.map(({ status }) => status)).toEqual([401]);
});

it('a model is retrieved by its name', async () => {
  const { client } = clientOf(admin, 0);
  expect(await client.models.retrieve('ramify@1')).toMatchObject({
    id: 'ramify@1',
    object: 'model',
  });
  const error = await client.models.retrieve('gpt-4').catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(OpenAI.NotFoundError);
});
