/** Declared HTTP operations against real servers on loopback, with names of a made-up DNS. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../clock.ts';
import { LIMITS } from '../../limits.ts';
import type { Tool } from '../../ports.ts';
import { createToolRegistry } from '../registry.ts';
import { privateKind } from './address-guard.ts';
import type { Lookup } from './address-guard.ts';
import { parseHttpOperations } from './declaration.ts';
import { httpTools } from './http-tools.ts';

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Seen {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  rawHeaders: string[];
  body: string;
}

async function served(listener: RequestListener, host = '127.0.0.1') {
  const seen: Seen[] = [];
  const server: Server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const { method = '', url = '', headers, rawHeaders } = request;
      seen.push({ method, url, headers, rawHeaders, body });
      listener(request, response);
    });
  }).listen(0, host);
  await once(server, 'listening');
  ends.push(() => (server.closeAllConnections(), server.close()));
  const { port } = server.address() as AddressInfo;
  return { seen, port, base: `http://${host}:${port}` };
}

const answering = (text: string, headers = {}) =>
  served((_, response) => void response.writeHead(200, headers).end(text));

const PARAMETERS = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' }, tags: { type: 'array' } },
  required: ['city'],
};

const environment = { TOKEN: 's3cret' };

function toolOf(entry: object, options: Parameters<typeof httpTools>[1] = {}): Tool {
  const full = {
    name: 'get',
    description: 'Gets.',
    effects: 'none',
    allow_private: true,
    ...entry,
  };
  const made = httpTools(parseHttpOperations([full], environment, 'file'), options);
  ends.push(() => made.stop());
  return made.tools[0] as Tool;
}

const lowered = (headers: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, text]) => [name.toLowerCase(), text]));

const never = (): AbortSignal => new AbortController().signal;

describe('a request', () => {
  test('the address from the template, the rest in the query, headers with secrets', async () => {
    const { seen, base } = await answering('{"degrees":7}', { 'content-type': 'application/json' });
    const tool = toolOf({
      url: `${base}/weather/{city}?units=c&q={city}`,
      parameters: PARAMETERS,
      headers: { Authorization: 'Bearer ${TOKEN}' },
    });
    const args = { city: 'São Paulo/?#&', days: 3, tags: ['a', 'b'] };
    expect(await tool.run(args, never())).toBe('{"degrees":7}');
    expect(seen[0]).toMatchObject({
      method: 'GET',
      url:
        '/weather/S%C3%A3o%20Paulo%2F%3F%23%26?units=c&q=S%C3%A3o+Paulo%2F%3F%23%26' +
        '&days=3&tags=a&tags=b',
      headers: { authorization: 'Bearer s3cret', 'accept-encoding': 'identity' },
    });
  });

  test('a body of what the address does not name', async () => {
    const { seen, base } = await served((_, response) => void response.writeHead(204).end());
    const tool = toolOf({ method: 'POST', url: `${base}/{city}`, parameters: PARAMETERS });
    expect(await tool.run({ city: 'x', days: 3 }, never())).toBe('done (status 204)');
    expect(seen[0]).toMatchObject({ method: 'POST', url: '/x', body: '{"days":3}' });
    expect(seen[0]?.headers['content-type']).toBe('application/json');
  });

  test('declared headers take the place of ours, however their names are written', async () => {
    const { seen, base } = await answering('x');
    const headers = {
      'Content-Type': 'application/merge-patch+json',
      ACCEPT: 'application/hal+json',
      'User-Agent': 'me',
    };
    const tool = toolOf({ method: 'PATCH', url: base, parameters: PARAMETERS, headers });
    await tool.run({ days: 1 }, never());
    // With two of a name this list is longer, and `headers` has but one of them.
    const sent = seen[0]?.rawHeaders.filter((_, i) => i % 2 === 0).map((x) => x.toLowerCase());
    expect(sent?.filter((name) => name in lowered(headers)).sort()).toEqual(
      Object.keys(lowered(headers)).sort(),
    );
    expect(seen[0]?.headers).toMatchObject(lowered(headers));
  });

  test.each(['..', '.', ''])('%j is no part of a path', async (city) => {
    const { seen, base } = await answering('x');
    const tool = toolOf({ url: `${base}/a/{city}/b`, parameters: PARAMETERS });
    await expect(tool.run({ city }, never())).rejects.toMatchObject({
      code: 'tool_arguments_invalid',
    });
    expect(seen).toEqual([]);
  });

  test('half of a surrogate pair is sent as the sign for that', async () => {
    const { seen, base } = await answering('x');
    await toolOf({ url: `${base}/{city}`, parameters: PARAMETERS }).run(
      { city: '\ud800' },
      never(),
    );
    expect(seen[0]?.url).toBe('/%EF%BF%BD');
  });
});

describe('an answer', () => {
  test.each<[string, (response: ServerResponse) => void, string]>([
    ['a status', (r) => void r.writeHead(404).end('no\n such'), 'status 404: no such'],
    [
      'a picture',
      (r) => void r.writeHead(200, { 'content-type': 'image/png' }).end('x'),
      'the answer is image/png, which is no text',
    ],
    [
      'a bomb',
      (r) => void r.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('x'.repeat(1e6))),
      'the answer is packed (gzip)',
    ],
    [
      'an unknown charset',
      (r) => void r.writeHead(200, { 'content-type': 'text/plain; charset=x-odd' }).end('x'),
      'the answer has the unknown charset x-odd',
    ],
    [
      'an end in the middle',
      (r) => void (r.writeHead(200), r.write('x'), r.destroy()),
      'other side',
    ],
    [
      'headers without end',
      (r) => void r.writeHead(200, { x: 'x'.repeat(LIMITS.httpHeaderBytesMax) }).end('x'),
      'Header',
    ],
  ])('%s is a failure', async (_, answer, message) => {
    const { base } = await served((_request, response) => answer(response));
    await expect(toolOf({ url: base }).run({}, never())).rejects.toMatchObject({
      code: 'tool_failed',
      message: expect.stringContaining(message),
    });
  });

  test('a body without end is cut', async () => {
    const { base } = await served((_, response) => {
      const more = (): void => {
        while (!response.destroyed && response.write('x'.repeat(65_536)));
        response.once('drain', more);
      };
      more();
    });
    const text = await toolOf({ url: base }).run({}, never());
    expect(text).toHaveLength(LIMITS.httpResponseBytesMax);
  });

  test('another charset', async () => {
    const { base } = await served((_, response) =>
      response
        .writeHead(200, { 'content-type': 'text/plain; charset=iso-8859-1' })
        .end(Buffer.from([0x53, 0xe3, 0x6f])),
    );
    expect(await toolOf({ url: base }).run({}, never())).toBe('São');
  });

  test('a server that says nothing: the time-out of the operation', async () => {
    const { base } = await served(() => undefined);
    const registry = createToolRegistry([toolOf({ url: base, timeout_ms: 200 })], {
      clock: systemClock,
    });
    expect(await registry.call('get', '{}')).toMatchObject({ error: 'tool_timeout' });
  });

  test('what may pass is tried again, without effects only', async () => {
    let calls = 0;
    const { base } = await served((_, response) => {
      if (++calls % 3 === 0) response.end('fine');
      else response.writeHead(503, { 'retry-after': '0' }).end();
    });
    const call = (entry: object) =>
      createToolRegistry([toolOf({ url: base, ...entry })], { clock: systemClock }).call(
        'get',
        '{}',
      );
    expect(await call({ retries: 2 })).toMatchObject({ result: 'fine', error: null });
    expect(calls).toBe(3);
    expect(await call({ effects: 'writes' })).toMatchObject({ result: 'error: status 503' });
    expect(calls).toBe(4);
  });
});

describe('addresses', () => {
  test.each([
    ...['127.0.0.1', '127.255.0.9', '10.1.2.3', '172.16.0.1', '192.168.0.1', '169.254.169.254'],
    ...['100.64.0.1', '0.0.0.0', '192.0.0.1', '192.0.2.1', '198.18.0.1', '198.51.100.1'],
    ...['203.0.113.1', '224.0.0.1', '240.0.0.1', '255.255.255.255', '::1', '::', 'fe80::1'],
    ...['fe80::1%eth0', 'fc00::1', 'fd12::1', 'ff02::1', '::ffff:127.0.0.1', '::ffff:10.0.0.1'],
    ...['::ffff:a9fe:a9fe', '64:ff9b::7f00:1', '2002:7f00:1::', '2001::1', '2001:db8::1'],
    ...['fec0::1', '100::1', '::127.0.0.1', '::ffff:0:127.0.0.1', 'localhost', ''],
    ...['168.63.129.16', '::ffff:168.63.129.16'],
  ])('%j is not public', (address) => {
    expect(privateKind(address)).not.toBeNull();
  });

  test.each([
    '8.8.8.8',
    '1.1.1.1',
    '168.63.129.17',
    '172.32.0.1',
    '100.128.0.1',
    '2606:4700::1111',
    '::ffff:8.8.8.8',
  ])('%s is', (address) => {
    expect(privateKind(address)).toBeNull();
  });

  const names =
    (table: Record<string, string[]>): Lookup =>
    (host, _, done) => {
      const addresses = (table[host] ?? []).map((address) => ({
        address,
        family: address.includes(':') ? 6 : 4,
      }));
      done(null, addresses);
    };

  test.each([
    ...['127.0.0.1', 'localhost', '[::1]', '[::ffff:127.0.0.1]', '2130706433', '0x7f.1', '0177.1'],
    ...['127.1', '0', 'inside.test', 'both.test', 'six.test', 'nothing.test', '①②⑦.0.0.1'],
  ])('%s is not reached', async (host) => {
    const { seen, port } = await answering('secret');
    const lookup = names({
      'inside.test': ['127.0.0.1'],
      'both.test': ['8.8.8.8', '127.0.0.1'],
      'six.test': ['::ffff:127.0.0.1'],
      localhost: ['127.0.0.1', '::1'],
    });
    const url = `http://${host}:${port}/`;
    const tool = toolOf({ url, allow_private: false }, { lookup });
    await expect(tool.run({}, never())).rejects.toMatchObject({
      code: 'tool_failed',
      message: expect.stringMatching(/is not a public address|has no address/),
      retryAfterS: null,
    });
    expect(seen).toEqual([]);
  });

  test('allow_private reaches them, by the address that the name has', async () => {
    const { port } = await answering('inside');
    const lookup = names({ 'inside.test': ['127.0.0.1'] });
    expect(await toolOf({ url: `http://inside.test:${port}` }, { lookup }).run({}, never())).toBe(
      'inside',
    );
  });

  /** Of loopback's addresses only the first counts as public here. */
  const faultOf = (address: string) => (address === '127.0.0.1' ? null : 'inside');

  test('a name that changes its answer is judged at each connection', async () => {
    const inside = await served((_, response) => void response.end('secret'), '127.0.0.2');
    let lookups = 0;
    const lookup: Lookup = (_, _options, done) =>
      done(null, [{ address: ++lookups === 1 ? '127.0.0.1' : '127.0.0.2', family: 4 }]);
    // Nothing listens there on the first address, so the second try needs a connection of its own.
    const url = `http://rebind.test:${inside.port}/`;
    const tool = toolOf({ url, retries: 1, allow_private: false }, { lookup, faultOf });
    const registry = createToolRegistry([tool], { clock: systemClock });
    expect((await registry.call('get', '{}')).result).toContain('not a public address (inside)');
    expect(lookups).toBe(2);
    expect(inside.seen).toEqual([]);
  });

  test('every redirect is judged', async () => {
    const inside = await served((_, response) => void response.end('secret'), '127.0.0.2');
    const lookup = names({ 'inside.test': ['127.0.0.2'], 'public.test': ['127.0.0.1'] });
    for (const host of ['127.0.0.2', 'inside.test', '2130706434']) {
      const { base } = await served((_, response) => {
        response.writeHead(302, { location: `http://${host}:${inside.port}/` }).end();
      });
      const url = base.replace('127.0.0.1', 'public.test');
      const tool = toolOf({ url, allow_private: false }, { lookup, faultOf });
      await expect(tool.run({}, never())).rejects.toMatchObject({
        message: expect.stringContaining('is not a public address (inside)'),
      });
    }
    expect(inside.seen).toEqual([]);
  });
});

describe('redirects', () => {
  const redirecting = (status: number, location: () => string) =>
    served((request, response) => {
      if (request.url === '/end') response.end('the end');
      else response.writeHead(status, { location: location() }).end();
    });

  test('on the same server: secrets stay, a POST becomes a GET or stays what it is', async () => {
    for (const [status, method, body] of [
      [301, 'GET', ''],
      [303, 'GET', ''],
      [307, 'POST', '{"days":1}'],
      [308, 'POST', '{"days":1}'],
    ] as const) {
      const { seen, base } = await redirecting(status, () => '/end');
      const headers = { 'x-key': '${TOKEN}' };
      const tool = toolOf({ url: base, method: 'POST', parameters: PARAMETERS, headers });
      expect(await tool.run({ days: 1 }, never())).toBe('the end');
      expect(seen[1]).toMatchObject({ method, url: '/end', body, headers: { 'x-key': 's3cret' } });
    }
  });

  test('to another server: no header of the declaration, and no body', async () => {
    const other = await answering('other');
    const { base } = await redirecting(307, () => `${other.base}/x`);
    const headers = {
      ...{ authorization: 'Bearer ${TOKEN}', cookie: 'a=b', 'x-key': '${TOKEN}' },
      accept: 'text/a=b',
    };
    expect(await toolOf({ url: base, headers }).run({}, never())).toBe('other');
    expect(JSON.stringify(other.seen)).not.toMatch(/s3cret|a=b/);
    const writing = toolOf({ url: base, headers, method: 'POST', parameters: PARAMETERS });
    await expect(writing.run({ days: 1 }, never())).rejects.toMatchObject({
      message: expect.stringContaining('a redirect of POST to another server'),
    });
    expect(other.seen).toHaveLength(1);
  });

  test('to another server and back: the other chose the path, so still no header', async () => {
    const other = await served((_, response) => {
      response.writeHead(302, { location: `${base}/end` }).end();
    });
    const { seen, base } = await redirecting(302, () => `${other.base}/x`);
    const headers = { authorization: 'Bearer ${TOKEN}' };
    expect(await toolOf({ url: base, headers }).run({}, never())).toBe('the end');
    expect(seen.map(({ url, headers: sent }) => [url, sent.authorization])).toEqual([
      ['/', 'Bearer s3cret'],
      ['/end', undefined],
    ]);
  });

  test.each([
    ['in circles', '/again', `more than ${LIMITS.httpRedirectsMax} redirects`],
    ['to a file', 'file:///etc/passwd', 'a redirect to file:'],
    ['to data', 'data:text/plain,x', 'a redirect to data:'],
    ['to nowhere', 'http://', 'a redirect to no address'],
  ])('%s', async (_, location, message) => {
    const { base } = await redirecting(302, () => location);
    await expect(toolOf({ url: base }).run({}, never())).rejects.toMatchObject({ message });
  });
});

describe('a declaration', () => {
  const valid = { name: 'a', description: 'A.', url: 'https://api.example/{x}', effects: 'none' };
  const parameters = { type: 'object', properties: { x: {} }, required: ['x'] };
  const parse = (...list: unknown[]) => parseHttpOperations(list, environment, 'tools.json');

  test('defaults: GET, effects, a time-out, public addresses', () => {
    expect(parse({ ...valid, parameters, effects: undefined })).toEqual([
      {
        ...{ name: 'a', description: 'A.', method: 'GET', url: valid.url, parameters, headers: {} },
        ...{ effects: 'writes', timeoutMs: LIMITS.httpTimeoutMs, retriesMax: 0 },
        allowPrivate: false,
      },
    ]);
  });

  test.each([
    ['must be an object', 1],
    ['.ulr is not known', { ulr: '' }],
    ['.name must be', { name: 'a b' }],
    ['.description must be', { description: '' }],
    ['.method must be', { method: 'get' }],
    ['.url must be', { url: 'ftp://a/' }],
    ['.url must be', { url: 'https://{x}.example/' }],
    ['.url must be', { url: 'https://a.example:{x}/' }],
    ['.url must be', { url: 'https://a.example{x}' }],
    ['.url must be', { url: '{x}' }],
    ['.url must be', { url: 'https://a.example/#{x}' }],
    ['.url must be without a user', { url: 'https://u:p@a.example/' }],
    ['requires x', { parameters: { type: 'object', properties: { x: {} } } }],
    ['has the property x', { parameters: { type: 'object' } }],
    ['.parameters must be', { parameters: { type: 'string' } }],
    ['.headers must be of variables that are set; NONE', { headers: { a: '${NONE}' } }],
    ['.headers must be names', { headers: { 'a b': 'x' } }],
    ['.headers must be names', { headers: { Host: 'x' } }],
    [
      '.headers must be names that differ in more than case; x-a',
      { headers: { 'X-A': '1', 'x-a': '1' } },
    ],
    ['.headers must be of signs', { headers: { a: 'x\r\ny: z' } }],
    ['.effects must be', { effects: 'some' }],
    ['.retries must be 0 with effects', { effects: 'writes', retries: 1 }],
    ['.retries must be', { retries: 6 }],
    ['.timeout_ms must be', { timeout_ms: 0 }],
    ['.allow_private must be', { allow_private: 'yes' }],
  ])('%s', (message, changes) => {
    const entry = typeof changes === 'object' ? { ...valid, parameters, ...changes } : changes;
    expect(() => parse(entry)).toThrow(
      expect.objectContaining({
        code: 'config_invalid',
        message: expect.stringMatching(/^tools\.json: http\[0\]/),
      }),
    );
    expect(() => parse(entry)).toThrow(message);
  });

  test('two of one name', () => {
    const entry = { ...valid, parameters };
    expect(() => parse(entry, entry)).toThrow('two http operations are called a');
  });
});
