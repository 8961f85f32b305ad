/**
 * ramify as an MCP server, over real sockets: the official client, as a user would connect it, asks
 * the shipped policy, reads what it did in the log and rates it.
 */
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must } from '../../core/assert.ts';
import type { TestServer } from '../support/server-process.ts';
import { testQuestions } from '../support/clients.ts';
import { call, fixture } from './fixture.ts';

const { path, launch } = fixture();

let server: TestServer;
let client: Client;

beforeAll(async () => {
  server = await launch({ dataFolder: path('data') }).ready();
  client = await connect();
});

afterAll(() => client.close());

async function connect(): Promise<Client> {
  const one = new Client({ name: 'test', version: '1' });
  await one.connect(new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`)));
  return one;
}

async function run(name: string, args: Record<string, unknown>): Promise<CallToolResult> {
  return (await client.callTool({ name, arguments: args })) as CallToolResult;
}

describe('ramify as an MCP server', () => {
  it('lists its tools and is no server of prompts', async () => {
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name)).toContain('ask_agent');
    await expect(client.listPrompts()).rejects.toThrow('Method not found');
  });

  it('answers twenty questions at once, each with its own trajectory in the log', async () => {
    const asked = await Promise.all(
      testQuestions.slice(0, 20).map(async ({ question, tools }, seed) => {
        const result = await run('ask_agent', { question, tools, seed, max_tokens: 200 });
        expect(result.isError).toBe(false);
        const { answer, trajectory_id } = result.structuredContent as Record<string, string>;
        return { question, answer, id: String(trajectory_id) };
      }),
    );
    expect(new Set(asked.map(({ id }) => id)).size).toBe(20);
    for (const { question, answer, id } of asked) {
      const { body } = await call(server, 'GET', `/v1/trajectories/${id}`);
      expect(body.answer).toBe(answer);
      expect(body.steps[0].text).toContain(question);
    }
    const { id } = must(asked[0], 'the first answer');
    const rated = await run('send_feedback', {
      trajectory_id: id,
      metric_name: 'reward',
      value: 1,
    });
    expect(rated.isError).toBe(false);
    const { body } = await call(server, 'GET', `/v1/trajectories/${id}`);
    expect(body.reward).toBe(1);
    const found = await run('search_trajectories', { reward_min: 1 });
    expect(found.structuredContent).toMatchObject({ data: [{ id }] });
  });

  it('keeps no session: clients are served across a restart as if nothing had been', async () => {
    const { port } = new URL(server.url);
    const dataFolder = path('restarted');
    await server.end('SIGTERM');
    server = await launch({ dataFolder, flags: ['--port', port] }).ready();
    expect((await client.listTools()).tools.length).toBeGreaterThan(0);
  });

  it('refuses foreign names, other methods and what is no message', async () => {
    const post = (headers: Record<string, string>, body = '{}'): Promise<Response> =>
      fetch(`${server.url}/mcp`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body,
      });
    expect((await post({ origin: 'https://evil.example' })).status).toBe(403);
    expect((await post({})).status).toBe(400);
    expect((await post({}, '[]')).status).toBe(400);
    for (const method of ['GET', 'DELETE']) {
      const { status, headers } = await fetch(`${server.url}/mcp`, { method });
      expect([status, headers.get('allow')]).toEqual([405, 'POST']);
    }
  });

  it('stops at once with a client connected', async () => {
    const startedAt = performance.now();
    expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });
});
