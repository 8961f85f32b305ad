/**
 * Server tools of the real server, over real sockets: documents that come and go while it runs, by
 * HTTP and by the command line beside it; a declared HTTP operation; the tool `python`. A policy of
 * random weights is made to call each; calls and results are real.
 */
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { systemClock } from '../../core/clock.ts';
import type { ToolCallRecord } from '../../core/records.ts';
import { offerPython } from '../../core/tools/python-tool.ts';
import { createToolRegistry } from '../../core/tools/registry.ts';
import { ramify } from '../support/command-line.ts';
import { writeHermesPolicy } from '../support/hermes-policy.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture } from './fixture.ts';

const { path, launch } = fixture();
const dataFolder = path('data');

const seen: { url: string; key: unknown }[] = [];
const weather = createServer((request, response) => {
  seen.push({ url: request.url ?? '', key: request.headers['x-key'] });
  response.setHeader('content-type', 'application/json').end('{"degrees":7}');
});

let server: TestServer;

beforeAll(async () => {
  const policy = path('policy');
  writeHermesPolicy(policy, 4_096);
  weather.listen(0, '127.0.0.1');
  await once(weather, 'listening');
  const { port } = weather.address() as AddressInfo;
  const operation = {
    description: 'The weather of a city.',
    url: `http://127.0.0.1:${port}/{city}`,
    parameters: { type: 'object', properties: { city: { enum: ['Oslo'] } }, required: ['city'] },
    headers: { 'x-key': '${KEY}' },
    effects: 'none',
  };
  const http = [
    { ...operation, name: 'weather', allow_private: true },
    { ...operation, name: 'guarded' },
  ];
  const toolsFile = path('tools.json');
  writeFileSync(toolsFile, JSON.stringify({ http }));
  server = await launch({
    dataFolder,
    flags: ['--tools', toolsFile, '--policy', policy],
    environment: { KEY: 's3cret' },
  }).ready();
});

afterAll(() => void weather.close());

/** What the agent read when it was made to call the tool. */
async function result(tool: string): Promise<ToolCallRecord> {
  const { status, body } = await call(server, 'POST', '/v1/agent/runs', {
    ...{ input: 'Go on.', tools: [tool], max_tool_calls: 1, max_tokens: 256, seed: 3 },
    tool_choice: { type: 'function', function: { name: tool } },
  });
  expect(status).toBe(200);
  const step = body.steps.find((one: { kind: string }) => one.kind === 'tool');
  return step.tool_call;
}

async function names(): Promise<string[]> {
  const { body } = await call(server, 'GET', '/v1/tools');
  return body.data.map(({ name }: { name: string }) => name);
}

async function collection(...words: string[]): Promise<number | null> {
  return (await ramify('collection', ...words, '--data', dataFolder)).code;
}

it('lists its tools', async () => {
  const python = 'tool' in (await offerPython()) ? ['python'] : [];
  expect(await names()).toEqual(['search', 'javascript', ...python, 'weather', 'guarded']);
});

it('calls a declared operation, and no private address unless it is allowed', async () => {
  expect(await result('weather')).toMatchObject({ result: '{"degrees":7}', error: null });
  expect(seen).toEqual([{ url: '/Oslo', key: 's3cret' }]);
  expect(await result('guarded')).toMatchObject({
    error: 'tool_failed',
    result: expect.stringContaining('127.0.0.1 is not a public address (loopback)'),
  });
  expect(seen).toHaveLength(1);
});

it('documents that another program adds are a tool of the running server', async () => {
  const docs = path('docs');
  mkdirSync(docs);
  writeFileSync(join(docs, 'a.md'), '# Shop\n## Hours\nOpen from 9 to 18.\n');
  expect(await collection('import', 'handbook', docs)).toBe(0);
  await expect.poll(names, { timeout: 10_000 }).toContain('search_handbook');
  // Random words find nothing, but they ask.
  expect(await result('search_handbook')).toMatchObject({ error: null });
  expect(await collection('delete', 'handbook')).toBe(0);
  await expect.poll(names, { timeout: 10_000 }).not.toContain('search_handbook');
});

it('runs what the policy writes as Python, or says that it does not have it', async () => {
  const offer = await offerPython();
  if ('tool' in offer) {
    // Random letters are seldom a program, but what Python says of them is always the same.
    const made = await result('python');
    const registry = createToolRegistry([offer.tool], { clock: systemClock });
    const own = await registry.call('python', made.arguments);
    expect(JSON.parse(made.arguments)).toEqual({ code: expect.stringMatching(/./) });
    expect(own.result).toMatch(/^error: line 1: \w+Error: /);
    expect(made).toMatchObject({ result: own.result, error: own.error });
  } else {
    const { status, body } = await call(server, 'POST', '/v1/agent/runs', {
      ...{ input: 'x', tools: ['python'] },
    });
    expect({ status, code: body.error.code }).toEqual({ status: 400, code: 'unknown_tool' });
    expect(process.env['RAMIFY_TEST_REQUIRE'] ?? '', offer.fault).not.toContain('python');
  }
});
