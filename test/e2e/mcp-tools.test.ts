/**
 * Tools of MCP servers in agent runs of the real server: the official reference server over both
 * transports, and an odd one. A policy of random weights is made to call each tool; the calls and
 * their results are real.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import { writeHermesPolicy } from '../support/hermes-policy.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture } from './fixture.ts';
import type { HttpAnswer } from './fixture.ts';

const { path, launch } = fixture();

const REFERENCE = join(
  packageRoot,
  'node_modules/@modelcontextprotocol/server-everything/dist/index.js',
);
const ODD = join(packageRoot, 'core/tools/mcp/testing/odd-server.mjs');

let server: TestServer;
let stderrAtStart: string;
let overHttp: ChildProcess;
let dataFolder: string;
let tools: string;

beforeAll(async () => {
  dataFolder = path('data');
  const policy = path('policy');
  writeHermesPolicy(policy, 4_096);
  const port = await freePort();
  overHttp = spawn(process.execPath, [REFERENCE, 'streamableHttp'], {
    env: { PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await once(overHttp.stderr as NodeJS.EventEmitter, 'data');
  const node = { command: process.execPath };
  tools = path('tools.json');
  const mcp = [
    {
      ...node,
      name: 'pipe',
      args: [REFERENCE],
      env: ['SHOWN'],
      effects: { default: 'annotations' },
    },
    { name: 'web', url: `http://127.0.0.1:${port}/mcp`, headers: { 'x-key': '${SHOWN}' } },
    { ...node, name: 'odd', args: [ODD], env: ['SHOWN'] },
    { ...node, name: 'slow', args: [ODD, 'silent'] },
    { name: 'down', command: '/nowhere/mcp' },
  ];
  writeFileSync(tools, JSON.stringify({ mcp }));
  server = await launch({
    dataFolder,
    flags: ['--tools', tools, '--policy', policy],
    environment: { SHOWN: 'yes', HIDDEN: 'no' },
  }).ready();
  stderrAtStart = server.stderr;
});

afterAll(() => overHttp.kill('SIGKILL'));

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  return port;
}

const ask = (tool: string, fields: object = {}): Promise<HttpAnswer> =>
  call(server, 'POST', '/v1/agent/runs', {
    input: 'Go on.',
    tools: [tool],
    tool_choice: { type: 'function', function: { name: tool } },
    max_tool_calls: 1,
    max_tokens: 200,
    seed: 1,
    ...fields,
  });

/** The call that a run was made to make, with its result. */
async function made(tool: string, fields: object = {}) {
  const { status, body } = await ask(tool, fields);
  expect(status, JSON.stringify(body)).toBe(200);
  expect(body.steps[2]).toMatchObject({ kind: 'tool', tool_call: { name: tool } });
  return body.steps[2].tool_call as { result: string; error: string | null; effects: string };
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect.fail(`never came true: ${condition.toString()}`);
}

const runs = (pid: number): boolean => {
  try {
    // A process that has ended and was not waited for is no more than a line in a table.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

describe('tools of MCP servers', () => {
  it('are there as soon as the server is, which waits for no try that does not end', () => {
    expect(stderrAtStart).toContain('"mcpServer":"down"');
    expect(stderrAtStart).not.toContain('"mcpServer":"slow"');
  });

  it.each([
    ['pipe', 'none'],
    ['web', 'writes'],
  ])('of the reference server, %s, are called with arguments that fit', async (name, effects) => {
    const outcome = await made(`${name}__get-structured-content`);
    expect(outcome).toMatchObject({ error: null, effects, served: 'live' });
    expect(JSON.parse(outcome.result)).toMatchObject({ humidity: expect.any(Number) });
    const message = await made(`${name}__get-annotated-message`);
    expect(message.error).toBeNull();
  });

  it('get the variables that are named, and no others', async () => {
    const { result } = await made('odd__echo_env');
    expect(JSON.parse(result)).toMatchObject({ SHOWN: 'yes' });
    expect(result).not.toContain('HIDDEN');
    expect(result).not.toContain('RAMIFY');
  });

  it('what a tool refuses is an error that the policy reads, in the log too', async () => {
    expect(await made('odd__refuse')).toMatchObject({
      error: 'tool_failed',
      result: 'error: I will not',
    });
    const { body } = await call(server, 'GET', '/v1/trajectories?tool=odd__refuse');
    expect(body.data).toHaveLength(1);
  });

  it('a huge result fails the call, and the run goes on', async () => {
    const outcome = await made('odd__huge');
    expect(outcome).toMatchObject({ error: 'tool_failed' });
    expect(outcome.result).toContain('longer than');
    await until(async () => (await made('odd__echo_env')).error === null);
  });

  it('a run that is over cancels the call that it waits for', async () => {
    const { body } = await ask('odd__silent', { timeout_s: 1 });
    expect(body).toMatchObject({ status: 'failed', error: { code: 'request_timeout' } });
    const { result } = await made('odd__cancelled_calls');
    expect(JSON.parse(result)).toHaveLength(1);
  });

  it('a tool that is added can be called, and one that is not there cannot', async () => {
    const before = await ask('odd__added_10');
    expect([before.status, before.body.error?.code]).toEqual([400, 'unknown_tool']);
    await made('odd__add_a_tool');
    await until(async () => (await ask('odd__added_10')).status === 200);
    expect((await made('odd__added_10')).result).toBe('added_10');
    expect((await ask('slow__silent')).status).toBe(400);
  });

  it('a server that is killed comes back; what it started ends with it, at the stop too', async () => {
    const started = async (): Promise<{ own: number; child: number }> =>
      JSON.parse((await made('odd__leave_a_child')).result) as { own: number; child: number };
    const first = await started();
    process.kill(first.own, 'SIGKILL');
    await until(async () => !runs(first.own) && !runs(first.child));
    await until(async () => (await made('odd__echo_env')).error === null);
    const second = await started();
    expect(second.own).not.toBe(first.own);
    expect(runs(second.own) && runs(second.child)).toBe(true);
    expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
    await until(async () => !runs(second.own) && !runs(second.child));
  });
});

it('a wrong file prevents the start, in one line', async () => {
  writeFileSync(tools, '{"mcp": [{"name": "a", "command": "x", "env": ["NONE"]}]}');
  const refused = launch({ dataFolder, flags: ['--tools', tools] });
  expect(await refused.exited).toEqual({ code: 1, signal: null });
  expect(refused.stderr).toBe(
    `ramify: ${tools}: mcp[0].env must be variables that are set; NONE is not\n`,
  );
});
