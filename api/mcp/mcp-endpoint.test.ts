/**
 * Tests of ramify as an MCP server, by the official client: its requests go to the application
 * without a socket between them.
 */
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { SUPPORTED_PROTOCOL_VERSIONS } from '@modelcontextprotocol/sdk/types.js';
import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { agentRoutes } from '../routes/agent.ts';
import { feedbackRoutes } from '../routes/feedback.ts';
import { trajectoryRoutes } from '../routes/trajectories.ts';
import { CAPITAL_SCRIPT, sseData, startHarness, until } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';
import { McpEndpoint, withEnd } from './mcp-endpoint.ts';
import { listedTools } from './ramify-tools.ts';

let h: Harness;
let client: Client;

beforeEach(async () => {
  h = await startHarness();
  client = await connect();
});

afterEach(async () => {
  await client.close();
  await h.close();
});

async function connect(): Promise<Client> {
  const transport = new StreamableHTTPClientTransport(new URL('http://127.0.0.1:8787/mcp'), {
    fetch: async (url, init) => h.app.request(String(url), init),
  });
  const one = new Client({ name: 'test', version: '1' });
  await one.connect(transport);
  return one;
}

const call = async (name: string, args: object, options = {}): Promise<CallToolResult> => {
  const params = { name, arguments: args as Record<string, unknown> };
  return (await client.callTool(params, undefined, options)) as CallToolResult;
};

const textOf = ({ content }: CallToolResult): string =>
  content[0]?.type === 'text' ? content[0].text : '';

const ask = (fields: object = {}, options = {}) => {
  h.engine.script = CAPITAL_SCRIPT;
  const question = 'What is the capital of France?';
  return call('ask_agent', { question, tools: ['search'], ...fields }, options);
};

test('a stream that fails has ended', async () => {
  let ends = 0;
  const failing = new ReadableStream({ pull: () => Promise.reject(new TypeError('gone')) });
  const read = new Response(withEnd(failing, () => ends++)).text();
  await expect(read).rejects.toThrow('gone');
  expect(ends).toBe(1);
});

test('the versions that the contract names are those of the SDK', () => {
  const { text } = h.deps.contract;
  const [, named = ''] = /name: MCP-Protocol-Version[\s\S]*?enum: \[([^\]]*)\]/.exec(text) ?? [];
  const versions = named.split(', ').map((version) => version.replaceAll("'", ''));
  expect(versions).toEqual([...SUPPORTED_PROTOCOL_VERSIONS].sort());
});

test('who it is, and tools whose schemas are valid', async () => {
  expect(client.getServerVersion()).toMatchObject({ name: 'ramify' });
  expect(client.getInstructions()).toContain('ask_agent');
  const { tools } = await client.listTools();
  expect(tools.map(({ name }) => name)).toEqual(listedTools().map(({ name }) => name));
  const ajv = new Ajv2020();
  for (const { inputSchema } of tools) expect(ajv.validateSchema(inputSchema)).toBe(true);
  const [, search] = tools;
  const offered = Object.keys(search?.inputSchema.properties ?? {});
  const known = h.deps.contract.parameterNames('listTrajectories', 'query');
  expect(offered.filter((name) => !known.includes(name))).toEqual([]);
});

test('an answer, its trajectory found, read and rated', async () => {
  const asked = await ask({ seed: 3, max_tool_calls: 2 });
  expect(asked.isError).toBe(false);
  const answer = asked.structuredContent as Record<string, unknown>;
  expect(answer).toMatchObject({ answer: 'Paris', status: 'completed', model: 'ramify@1' });
  expect(JSON.parse(textOf(asked))).toEqual(answer);
  expect(answer.steps).toMatchObject([
    { text: expect.stringContaining('<search>') },
    { tool: 'search', result: 'Paris is the capital of France.', error: null },
    { text: expect.stringContaining('Paris') },
  ]);
  const { trajectory_id } = answer;

  const rated = await call('send_feedback', { trajectory_id, metric_name: 'reward', value: 0.5 });
  expect(rated.structuredContent).toMatchObject({ trajectory_id, value: 0.5 });
  const found = await call('search_trajectories', {
    ...{ tool: 'search', reward_min: 0.5, scored: true, status: 'completed', limit: 5 },
  });
  expect(found.structuredContent).toMatchObject({ data: [{ id: trajectory_id, reward: 0.5 }] });
  const none = await call('search_trajectories', { reward_min: 0.6 });
  expect(none.structuredContent).toMatchObject({ data: [] });

  const read = await call('get_trajectory', { trajectory_id });
  expect(read.structuredContent).toMatchObject({ id: trajectory_id, reward: 0.5 });
  const { resourceTemplates } = await client.listResourceTemplates();
  const uri = resourceTemplates[0]?.uriTemplate.replace('{trajectory_id}', String(trajectory_id));
  const { contents } = await client.readResource({ uri: String(uri) });
  expect(JSON.parse((contents[0] as { text: string }).text)).toEqual(read.structuredContent);
});

test.each([
  ['ask_agent', {}, /^invalid_request: .*question/],
  ['ask_agent', { question: 'x', stream: true }, /^invalid_request: stream: is not known/],
  ['ask_agent', { question: 'x', tools: ['nope'] }, /^unknown_tool: no tool 'nope'/],
  ['ask_agent', { question: 'x', model: 'ramify@9' }, /^model_not_found: /],
  ['search_trajectories', { limit: 1000 }, /^invalid_request: limit/],
  ['search_trajectories', { limit: 'many' }, /^invalid_request: limit/],
  ['get_trajectory', { trajectory_id: 'traj_none' }, /^trajectory_not_found: /],
  ['get_trajectory', { trajectory_id: 5 }, /^invalid_request: /],
  ['send_feedback', { metric_name: 'reward', value: 1 }, /^invalid_request: /],
])('%s %j is a tool error', async (name, args, message) => {
  const result = await call(name, args);
  expect(result.isError).toBe(true);
  expect(textOf(result)).toMatch(message);
});

test('our own failures tell nothing but that they happened', async () => {
  h.fault.thrown = new TypeError('secret detail');
  const { isError, ...result } = await call('search_trajectories', {});
  expect(isError).toBe(true);
  expect(textOf(result)).toMatch(/^internal: An internal error occurred; .*req_/);
  h.fault.thrown = new AppError('storage_failed', 'secret path');
  expect(textOf(await call('search_trajectories', {}))).not.toContain('secret');
});

test('what MCP itself calls an error', async () => {
  await expect(call('nothing', {})).rejects.toMatchObject({ code: -32_602 });
  const reading = client.readResource({ uri: 'ramify://trajectories/traj_none' });
  await expect(reading).rejects.toMatchObject({ code: -32_002 });
  await expect(client.readResource({ uri: 'file:///etc' })).rejects.toMatchObject({
    code: -32_002,
  });
  await expect(client.listPrompts()).rejects.toMatchObject({ code: -32_601 });
});

test('a call that its client cancels stops the run, and only that one', async () => {
  const other = await connect();
  h.engine.pieceMs = 200;
  const controller = new AbortController();
  const asking = ask({}, { signal: controller.signal });
  const others = other.callTool({ name: 'ask_agent', arguments: { question: 'x' } });
  await until(() => h.deps.agentRuns.list({}, {}).data.length === 2);
  controller.abort('enough');
  await expect(asking).rejects.toThrow('enough');
  const statuses = () => h.deps.agentRuns.list({}, {}).data.map(({ status }) => status);
  await until(() => statuses().includes('cancelled'));
  expect(statuses().sort()).toEqual(['cancelled', 'in_progress']);
  h.engine.pieceMs = 0;
  expect((await others).isError).toBe(false);
  await other.close();
});

test('a client that leaves stops its run', async () => {
  h.engine.pieceMs = 200;
  const asking = ask().catch(() => undefined);
  await until(() => h.deps.agentRuns.list({}, {}).data.length === 1);
  await client.close();
  await asking;
  await until(() => h.deps.agentRuns.list({}, {}).data[0]?.status === 'cancelled');
  expect(h.deps.lifecycle.active).toBe(0);
});

test('a key of another tenant sees nothing of it, and cannot cancel its calls', async () => {
  const { trajectory_id } = (await ask()).structuredContent as { trajectory_id: string };
  const { deps } = h;
  const handlers = {
    ...agentRoutes(deps),
    ...trajectoryRoutes(deps),
    ...feedbackRoutes(deps),
  };
  const endpoint = new McpEndpoint(deps, handlers);
  const post = (tenant: string, message: object): Promise<Response> => {
    const activity = deps.lifecycle.begin();
    const answering = endpoint.answer({
      body: { jsonrpc: '2.0', ...message },
      header: { 'Mcp-Session-Id': 'mcp_same' },
      ...{ path: {}, query: {}, stream: null, requestId: 'req_1', trail: null, activity },
      principal: { keyId: `key-${tenant}`, tenant, scopes: ['agent'] },
    });
    return answering.finally(() => activity.release());
  };
  const run = async (tenant: string, name: string, args: object) => {
    const params = { name, arguments: args };
    const response = await post(tenant, { id: 1, method: 'tools/call', params });
    return sseData(await response.text())[0].result as CallToolResult;
  };
  const of = (tenant: string) => run(tenant, 'get_trajectory', { trajectory_id });
  expect((await of('default')).isError).toBe(false);
  expect(textOf(await of('other'))).toMatch(/^trajectory_not_found: /);
  const listed = await run('other', 'search_trajectories', {});
  expect(listed.structuredContent).toMatchObject({ data: [] });
  const rating = { trajectory_id, metric_name: 'reward', value: 1 };
  expect(textOf(await run('other', 'send_feedback', rating))).toMatch(/^trajectory_not_found: /);

  h.engine.pieceMs = 50;
  const asking = run('default', 'ask_agent', { question: 'x' });
  await until(() => h.deps.agentRuns.list({ status: 'in_progress' }, {}).data.length === 1);
  await post('other', { method: 'notifications/cancelled', params: { requestId: 1 } });
  expect((await asking).isError).toBe(false);
});
