/**
 * Tests of the MCP client: the official reference server over both transports, and servers that are
 * slow, down, wrong or hostile. Children are real processes, HTTP is real sockets on loopback.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { must } from '../../assert.ts';
import { LIMITS } from '../../limits.ts';
import { quiet } from '../../log.ts';
import { builtModule, packageRoot } from '../../paths.ts';
import type { Tool } from '../../ports.ts';
import { alive, printedWithFewFiles } from '../testing/processes.ts';
import type { McpServerDeclaration } from './declaration.ts';
import { McpServers } from './mcp-servers.ts';

const REFERENCE = join(
  packageRoot,
  'node_modules/@modelcontextprotocol/server-everything/dist/index.js',
);
const ODD = fileURLToPath(new URL('./testing/odd-server.mjs', import.meta.url));

const open: McpServers[] = [];
const children: ChildProcess[] = [];
const servers: Server[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.stop()));
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

const node = (args: string[], environment = {}): McpServerDeclaration['reach'] => ({
  command: process.execPath,
  args,
  environment,
});

const declared = (
  name: string,
  reach: McpServerDeclaration['reach'],
  changes: Partial<McpServerDeclaration> = {},
): McpServerDeclaration => ({
  name,
  reach,
  tools: null,
  defaultEffects: 'writes',
  effects: new Map(),
  timeoutMs: 10_000,
  ...changes,
});

interface Client {
  servers: McpServers;
  /** The newest tools of each server. */
  tools: Map<string, readonly Tool[]>;
  warnings: { message: string; fields: Record<string, unknown> }[];
  call: (tool: string, args?: object, signal?: AbortSignal) => Promise<string>;
}

function start(declarations: McpServerDeclaration[]): Client {
  const tools: Client['tools'] = new Map();
  const warnings: Client['warnings'] = [];
  const mcp = new McpServers(declarations, {
    onTools: (server, all) => void tools.set(server, all),
    logger: { ...quiet, warn: (fields, message) => void warnings.push({ fields, message }) },
    delaysMs: [20, 50],
  });
  open.push(mcp);
  const call: Client['call'] = (name, args = {}, signal = new AbortController().signal) => {
    const tool = [...tools.values()].flat().find((one) => one.name === name);
    return must(tool, name).run(args as Record<string, unknown>, signal);
  };
  return { servers: mcp, tools, warnings, call };
}

async function started(...declarations: McpServerDeclaration[]): Promise<Client> {
  const client = start(declarations);
  await client.servers.settled(20_000);
  return client;
}

/** Warnings that a server is not connected. */
const lost = ({ warnings }: Client): Client['warnings'] =>
  warnings.filter(({ message }) => message.endsWith('not connected'));

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await condition()) return;
    await sleep(20);
  }
  expect.fail(`never came true: ${condition.toString()}`);
}

const runs = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

async function referenceOverHttp(): Promise<{ url: string; child: ChildProcess; port: number }> {
  const probe = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => probe.once('listening', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  const child = await startReference(port);
  return { url: `http://127.0.0.1:${port}/mcp`, child, port };
}

async function startReference(port: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, [REFERENCE, 'streamableHttp'], {
    env: { PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(child);
  let said = '';
  child.stderr?.on('data', (text) => (said += String(text)));
  await until(() => said.includes('listening'));
  return child;
}

/** Answers every message with what `respond` writes. */
async function oddHttp(respond: RequestListener): Promise<string> {
  const server = createServer(respond).listen(0, '127.0.0.1');
  servers.push(server);
  await new Promise((resolve) => server.once('listening', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
}

describe('the reference server', () => {
  const expectWorks = async (client: Client): Promise<void> => {
    expect(lost(client)).toEqual([]);
    expect(await client.call('everything__echo', { message: 'hi' })).toBe('Echo: hi');
    expect(await client.call('everything__get-sum', { a: 2, b: 3 })).toContain('5');
    expect(await client.call('everything__get-tiny-image')).toMatch(/\[image of type image\/png, /);
    const weather = await client.call('everything__get-structured-content', {
      location: 'Chicago',
    });
    expect(JSON.parse(weather)).toMatchObject({ temperature: 36 });
    // Wrong arguments are the server's own word: a tool error that the policy reads.
    await expect(client.call('everything__get-sum', { a: 'x' })).rejects.toMatchObject({
      code: 'tool_failed',
      message: expect.stringContaining('a'),
    });
  };

  test('over standard input and output, with no more of the environment than declared', async () => {
    const client = await started(declared('everything', node([REFERENCE], { SHOWN: 'yes' })));
    await expectWorks(client);
    expect(JSON.parse(await client.call('everything__get-env'))).toEqual({ SHOWN: 'yes' });
  });

  test('over streamable HTTP, beside one over stdio, in a session that ends in order', async () => {
    const { url } = await referenceOverHttp();
    const client = await started(
      declared('everything', { url, headers: { 'x-test': '1' } }),
      declared('other', node([REFERENCE]), { tools: ['echo'], defaultEffects: 'annotations' }),
    );
    await expectWorks(client);
    expect(client.tools.get('other')?.map(({ name, effects }) => [name, effects])).toEqual([
      ['other__echo', 'none'],
    ]);
    expect(await client.call('other__echo', { message: 'a' })).toBe('Echo: a');
  });

  test('over HTTP, killed and started again: its session is new and its tools work', async () => {
    const { url, child, port } = await referenceOverHttp();
    const client = await started(declared('everything', { url, headers: {} }));
    child.kill('SIGKILL');
    const calling = performance.now();
    await expect(client.call('everything__echo', { message: 'hi' })).rejects.toMatchObject({
      code: 'tool_failed',
    });
    expect(performance.now() - calling).toBeLessThan(2_000);
    await startReference(port);
    await until(() =>
      client.call('everything__echo', { message: 'again' }).then(
        (text) => text === 'Echo: again',
        () => false,
      ),
    );
  });

  test('a call that is cancelled ends at once', async () => {
    const client = await started(declared('everything', node([REFERENCE])));
    const controller = new AbortController();
    const slow = client.call(
      'everything__trigger-long-running-operation',
      { duration: 30, steps: 2 },
      controller.signal,
    );
    controller.abort(new Error('enough'));
    await expect(slow).rejects.toThrow('enough');
    expect(await client.call('everything__echo', { message: 'hi' })).toBe('Echo: hi');
  });
});

describe('odd servers over stdio', () => {
  const odd = (changes: Partial<McpServerDeclaration> = {}) =>
    declared('odd', node([ODD]), changes);

  test('a tool error is what the tool says; wrong answers are told as such', async () => {
    const client = await started(odd());
    await expect(client.call('odd__refuse')).rejects.toMatchObject({
      code: 'tool_failed',
      message: 'I will not',
    });
    await expect(client.call('odd__wrong_form')).rejects.toMatchObject({
      code: 'tool_failed',
      message: 'the MCP server odd: its answer is not of the form that MCP demands',
    });
    // The broken line is passed over, the whole one behind it counts.
    expect(await client.call('odd__wrong_json')).toBe('and then a whole message');
    expect(client.warnings).toEqual([]);
  });

  test('a result over the bound fails the call, and the server is started anew', async () => {
    const client = await started(odd());
    const why = `an answer is longer than ${LIMITS.mcpMessageBytesMax} bytes`;
    await expect(client.call('odd__huge')).rejects.toMatchObject({
      code: 'tool_failed',
      message: `the MCP server odd: ${why}`,
    });
    await until(() => client.warnings.length > 0);
    const [warning] = client.warnings;
    expect(warning?.fields.why).toBe(why);
    expect(warning?.fields.stderr).toContain('odd server started');
    await until(async () => (await client.call('odd__echo_env').catch(() => '')) === '{}');
  });

  test('a call that is never answered can be given up, and the server hears of it', async () => {
    const client = await started(odd());
    const signal = AbortSignal.timeout(50);
    await expect(client.call('odd__silent', {}, signal)).rejects.toBe(
      await new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve(signal.reason));
      }),
    );
    expect(JSON.parse(await client.call('odd__cancelled_calls'))).toHaveLength(1);
  });

  test('without a caller that gives up, a time-out ends the call', async () => {
    const client = await started(odd({ timeoutMs: 30 }));
    await expect(client.call('odd__silent')).rejects.toMatchObject({ code: 'tool_timeout' });
  });

  test('one that dies in a call fails it, is down for a while and comes back', async () => {
    const client = await started(odd());
    const before = client.tools.get('odd');
    const dying = client.call('odd__exit');
    await expect(dying).rejects.toMatchObject({ code: 'tool_failed' });
    await expect(client.call('odd__echo_env')).rejects.toThrow(
      'the MCP server odd: not connected (it ended)',
    );
    expect(client.tools.get('odd')).toBe(before);
    await until(async () => (await client.call('odd__echo_env').catch(() => '')) === '{}');
    expect(client.warnings.map(({ fields }) => fields.delayMs)).toEqual([20]);
  });

  test('what a server started ends with it, also when the process that declared it is killed', async () => {
    const module = builtModule(import.meta.url, './mcp-servers.ts').href;
    const source = `const { McpServers } = await import(${JSON.stringify(module)});
      const silent = () => undefined;
      new McpServers([${JSON.stringify({ ...odd(), effects: undefined })}].map((one) => ({ ...one,
        effects: new Map() })), { logger: { debug: silent, warn: silent }, onTools: (_, tools) =>
        tools.find(({ name }) => name === 'odd__leave_a_child')
          .run({}, new AbortController().signal).then((text) => process.stdout.write(text)) });
      setInterval(silent, 1000);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(owner);
    const [said] = (await once(must(owner.stdout, 'a pipe'), 'data')) as [Buffer];
    const pids = Object.values(JSON.parse(said.toString()) as Record<string, number>);
    expect(pids.map(alive)).toEqual([true, true]);
    owner.kill('SIGKILL');
    await until(() => !pids.some(alive));
  });

  test('one that cannot be started for want of files is told as such, and started later', async () => {
    const module = builtModule(import.meta.url, './mcp-servers.ts').href;
    const printed = await printedWithFewFiles(`
      const { McpServers } = await import(${JSON.stringify(module)});
      takeFiles();
      const servers = new McpServers([{ ...${JSON.stringify(odd())}, effects: new Map() }], {
        onTools: () => { console.log('connected'); void servers.stop(); },
        logger: {
          debug: () => undefined,
          warn: ({ why }) => { console.log(why); freeFiles(); },
        },
        delaysMs: [20] });`);
    expect(printed).toBe(`spawn ${process.execPath} EMFILE\nconnected\n`);
  });

  test('tools that are added while it runs are known', async () => {
    const client = await started(odd());
    const count = client.tools.get('odd')?.length ?? 0;
    await Promise.all([client.call('odd__add_a_tool'), client.call('odd__add_a_tool')]);
    await until(() => client.tools.get('odd')?.length === count + 2);
    expect(client.tools.get('odd')?.at(-1)?.name).toBe(`odd__added_${count + 1}`);
  });

  test('one that says without end that its tools changed is asked the less the more it costs', async () => {
    const costMs = 200;
    let lists = 0;
    const restless = new McpServers([declared('odd', node([ODD, 'restless']))], {
      onTools: async () => {
        lists++;
        await sleep(costMs);
      },
      logger: quiet,
    });
    open.push(restless);
    await until(() => lists === 1);
    await sleep(0.5 * LIMITS.mcpListPauseRatio * costMs);
    expect(lists).toBe(1);
    await until(() => lists === 2);
  });

  test('stop ends it with all that it started', async () => {
    const client = await started(odd());
    const pids = JSON.parse(await client.call('odd__leave_a_child')) as Record<string, number>;
    for (const pid of Object.values(pids)) expect(runs(pid)).toBe(true);
    await client.servers.stop();
    await until(() => Object.values(pids).every((pid) => !runs(pid)));
  });

  test.each([
    ['one that never greets', node([ODD, 'silent'])],
    ['a program that there is not', { command: '/nowhere/mcp', args: [], environment: {} }],
    ['an address where nothing listens', { url: 'http://127.0.0.1:9/mcp', headers: {} }],
    ['one that greets wrongly', node([ODD, 'wrong'])],
    ['a program that ends at once', node(['-e', 'console.error("no licence"); process.exit(1)'])],
  ])('%s costs a bounded wait, and the others nothing', async (_, reach) => {
    const client = start([declared('bad', reach), odd()]);
    const startedAt = performance.now();
    await until(() => client.tools.has('odd'));
    await client.servers.settled(300);
    expect(await client.call('odd__echo_env')).toBe('{}');
    expect(client.tools.has('bad')).toBe(false);
    await client.servers.stop();
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  });
});

describe('odd servers over HTTP', () => {
  const greeting = (id: number) => ({
    ...{ jsonrpc: '2.0', id },
    result: {
      protocolVersion: '2025-06-18',
      capabilities: { tools: {} },
      serverInfo: { name: 'odd', version: '1' },
    },
  });
  const list = (id: number) => ({
    ...{ jsonrpc: '2.0', id },
    result: { tools: [{ name: 'go', inputSchema: { type: 'object' } }] },
  });

  /** Greets and lists as it should; what a call gets is up to the test. */
  const oddOverHttp = (onCall: RequestListener): Promise<string> =>
    oddHttp((request, response) => {
      let body = '';
      request.on('data', (chunk) => (body += String(chunk)));
      request.on('end', () => {
        if (request.method !== 'POST') return void response.writeHead(405).end();
        const { id, method } = JSON.parse(body) as { id: number; method: string };
        if (method === 'tools/call') return void onCall(request, response);
        if (id === undefined) return void response.writeHead(202).end();
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(method === 'initialize' ? greeting(id) : list(id)));
      });
    });

  test.each<[string, RequestListener, Record<string, unknown>]>([
    [
      'a page instead of a message',
      (_, response) => void response.setHeader('content-type', 'text/html').end('<p>Hello'),
      { code: 'tool_failed' },
    ],
    [
      'JSON that is none',
      (_, response) => void response.setHeader('content-type', 'application/json').end('{"a":'),
      { code: 'tool_failed' },
    ],
    [
      'a status',
      (_, response) => void response.writeHead(500).end('down'),
      { code: 'tool_failed', message: expect.stringContaining('down') },
    ],
    [
      'a body without end',
      (_, response) => {
        response.setHeader('content-type', 'application/json');
        const piece = Buffer.alloc(1024 * 1024, ' ');
        const more = (): void => void response.write(piece, () => setImmediate(more));
        more();
        response.on('error', () => undefined);
      },
      { code: 'tool_failed', message: expect.stringContaining('longer than') },
    ],
    [
      'an event stream that breaks off',
      (_, response) => {
        response.setHeader('content-type', 'text/event-stream').write(': hello\n\n');
        setTimeout(() => response.destroy(), 20);
      },
      { code: 'tool_failed' },
    ],
    ['nothing', () => undefined, { code: 'tool_timeout' }],
  ])('%s', async (_, onCall, error) => {
    const url = await oddOverHttp(onCall);
    const client = await started(declared('odd', { url, headers: {} }, { timeoutMs: 1_000 }));
    const startedAt = performance.now();
    await expect(client.call('odd__go')).rejects.toMatchObject(error);
    expect(performance.now() - startedAt).toBeLessThan(3_000);
  });
});
