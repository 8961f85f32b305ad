/**
 * The bounds of the socket, over real ones: heads that are too large, too slow or no HTTP, too many
 * connections; and the refusal to serve other machines without keys.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../core/clock.ts';
import { idGenerator } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import { quiet } from '../core/log.ts';
import { openDatabase } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import { parseConfig } from './config.ts';
import { KeyRing } from './key-ring.ts';
import { closeHttp, listen, requireKeys } from './listen.ts';
import type { Front } from './listen.ts';

const BOUNDS = { ...LIMITS, headersTimeoutMs: 300, connectionsCheckMs: 20, connectionsMax: 3 };

let front: Front;
let sockets: Socket[];

beforeEach(async () => {
  sockets = [];
  front = await listen({ host: '127.0.0.1', port: 0 }, BOUNDS);
  front.serve(() => new Response('served'));
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await closeHttp(front.server);
});

async function dial(): Promise<Socket> {
  const socket = connect(Number(new URL(front.url).port), '127.0.0.1');
  socket.setEncoding('utf8').on('error', () => undefined);
  sockets.push(socket);
  await once(socket, 'connect');
  return socket;
}

/** All that comes until the other side closes. */
async function all(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (piece: string) => (text += piece));
  if (!socket.closed) await once(socket, 'close');
  return text;
}

async function refusal(sent: string): Promise<{ status: number; code: string }> {
  const socket = await dial();
  socket.write(sent);
  const [head = '', body = ''] = (await all(socket)).split('\r\n\r\n');
  const { error } = JSON.parse(body) as { error: { code: string } };
  return { status: Number(head.split(' ')[1]), code: error.code };
}

const HEAD = 'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n';

test('a head that is too large', async () => {
  const fits = await fetch(front.url, { headers: { 'x-long': 'a'.repeat(8_000) } });
  expect(await fits.text()).toBe('served');
  const sent = `${HEAD}x-long: ${'a'.repeat(LIMITS.headerBytesMax)}\r\n\r\n`;
  expect(await refusal(sent)).toEqual({ status: 431, code: 'headers_too_large' });
});

test('a head that comes byte by byte and never ends', async () => {
  const socket = await dial();
  const drip = setInterval(() => socket.write('x'), 20);
  try {
    socket.write(HEAD);
    const text = await all(socket);
    expect(text).toContain('HTTP/1.1 408');
    expect(text).toContain('"request_too_slow"');
  } finally {
    clearInterval(drip);
  }
});

test('what is no HTTP', async () => {
  expect(await refusal('hello\r\n\r\n')).toEqual({ status: 400, code: 'invalid_request' });
});

test('more connections than are served, until one goes', async () => {
  const open = [await dial(), await dial(), await dial()];
  const further = await dial();
  await once(further, 'close');
  open[0]!.destroy();
  await expect
    .poll(async () => {
      const answer = await fetch(front.url).catch(() => null);
      return answer === null ? null : answer.text();
    })
    .toBe('served');
});

describe('an address that others reach', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-listen-'));
  const config = parseConfig({}, ['--host', '0.0.0.0', '--data', folder]);
  const refused = expect.objectContaining({ code: 'config_invalid' });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test('is served only while a key of an admin is good', async () => {
    expect(() => requireKeys(config, systemClock)).toThrow(refused);
    expect(() => requireKeys({ ...config, host: '127.0.0.2' }, systemClock)).not.toThrow();
    const stores = openStores(openDatabase(join(folder, 'ramify.db')));
    expect(() => requireKeys(config, systemClock)).toThrow(refused);
    const [clock, logger] = [systemClock, quiet];
    const ring = new KeyRing({ store: stores.keys, clock, newId: idGenerator(clock), logger });
    const limits = { requestsPerMinute: null, concurrency: null, tokensPerDay: null };
    const request = { name: 'x', tenant: 'default', expiresAt: null, ...limits };
    const { key } = await ring.create({ ...request, scopes: ['admin'] });
    await ring.create({ ...request, scopes: ['agent'] });
    expect(() => requireKeys(config, clock)).not.toThrow();
    await ring.revoke(key.id);
    expect(() => requireKeys(config, clock)).toThrow(refused);
    const expiresAt = clock.now() + 60_000;
    await ring.create({ ...request, expiresAt, scopes: ['admin'] });
    expect(() => requireKeys(config, clock)).not.toThrow();
    expect(() => requireKeys(config, { now: () => expiresAt })).toThrow(refused);
    stores.close();
  });
});
