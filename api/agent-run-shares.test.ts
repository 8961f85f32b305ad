/** What one key may hold of what agent runs share, so that others always get theirs. */
import { afterEach, expect, test, vi } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import type { Tool } from '../core/ports.ts';
import { SEARCH } from './testing/chat-cases.ts';
import { CAPITAL_SCRIPT, startHarness, until } from './testing/harness.ts';
import type { Answer, Harness, HarnessOptions, KeyHeaders } from './testing/harness.ts';
import { SERVER_SEARCH } from './testing/response-cases.ts';

let h: Harness;
let greedy: KeyHeaders;
let other: KeyHeaders;

async function start(options: HarnessOptions = {}): Promise<void> {
  h = await startHarness(options);
  h.engine.sequencesMax = 2 * LIMITS.agentRunsActiveMax;
  greedy = await h.key();
  // Of the same tenant: the share is the key's.
  other = await h.key();
  h.engine.script = CAPITAL_SCRIPT;
}

afterEach(() => h.close());

const create = (headers: KeyHeaders, body: object = {}): Promise<Answer> =>
  h.call('createAgentRun', { headers, body: { input: 'capital?', ...body } });

function refused(answer: Answer, message: string): void {
  expect(answer).toMatchObject({ status: 429, code: 'rate_limit_exceeded' });
  expect(answer.headers.get('retry-after')).toBe(String(LIMITS.retryAfterS));
  expect(answer.body.error.message).toBe(message);
}

test('half of those at work, of a restart too; one that waits still waits', async () => {
  await start();
  const share = LIMITS.keyAgentRunsActiveMax;
  const { body: waiting } = await create(greedy, { tools: [SEARCH] });
  h.engine.pieceMs = 200;
  h.engine.script = () => '<think>capital of France '.repeat(20);
  const ids: string[] = [];
  for (let i = 0; i < share; i++) {
    ids.push((await create(greedy, { background: true })).body.id as string);
  }
  const message = `the key has ${share} agent runs under way, as many as it may have of 256`;
  refused(await create(greedy), message);
  await h.restartAgents();
  refused(await create(greedy), message);
  const [call] = waiting.required_action.tool_calls;
  const options = {
    path: { run_id: waiting.id as string },
    headers: greedy,
    body: { tool_outputs: [{ tool_call_id: call.id, output: 'Paris' }] },
  };
  refused(await h.call('submitToolOutputs', options), message);
  const theirs = await create(other, { background: true });
  expect(theirs.status).toBe(202);
  ids.push(theirs.body.id as string);
  const headers = await h.key({ scopes: ['admin'] });
  await Promise.all(ids.map((run_id) => h.call('cancelAgentRun', { path: { run_id }, headers })));
  h.engine.script = CAPITAL_SCRIPT;
  h.engine.pieceMs = 0;
  expect((await h.call('submitToolOutputs', options)).body.status).toBe('completed');
});

test('half of those that wait for their clients', async () => {
  await start();
  const share = LIMITS.keyAgentRunsWaitingMax;
  for (let made = 0; made < share; made += 64) {
    const answers = Array.from({ length: 64 }, () => create(greedy, { tools: [SEARCH] }));
    for (const { body } of await Promise.all(answers)) expect(body.status).toBe('requires_action');
  }
  const message = `the key has ${share} agent runs that wait, as many as it may have of 1024`;
  refused(await create(greedy, { tools: [SEARCH] }), message);
  expect((await create(other, { tools: [SEARCH] })).status).toBe(200);
});

test('half of what their requests may hold', async () => {
  await start();
  // Eight of it are a little less than the share, nine are more.
  const description = 'x'.repeat(LIMITS.bodyBytesMax - 1_024);
  const parameters = { type: 'object', properties: {}, description };
  const large = { tools: [{ type: 'function', function: { name: 'search', parameters } }] };
  const first = await create(greedy, large);
  for (let held = 1; held < 9; held++) {
    expect((await create(greedy, large)).status).toBe(200);
  }
  const answer = await create(greedy, large);
  const { chars } = h.deps.agentRuns.live(first.body.id as string) ?? { chars: 0 };
  const may = `it may have ${LIMITS.keyAgentRunCharsMax} of ${LIMITS.agentRunCharsMax}`;
  refused(answer, `the agent runs of the key hold ${9 * chars} characters; ${may}`);
  expect((await create(other, large)).status).toBe(200);
});

test.each([
  { operation: 'createAgentRun', read: 'getAgentRun', id: 'run_id', tools: ['search'] },
  { operation: 'createResponse', read: 'getResponse', id: 'response_id', tools: [SERVER_SEARCH] },
] as const)('of $operation take turns at a tool', async ({ operation, read, id, tools }) => {
  const running: (() => void)[] = [];
  const search: Tool = {
    name: 'search',
    description: 'Searches.',
    parameters: { type: 'object', properties: { query: { type: 'string' } } },
    primaryArgument: 'query',
    effects: 'none',
    timeoutMs: 60_000,
    concurrencyMax: 1,
    run: () => new Promise((resolve) => running.push(() => resolve('Paris'))),
  };
  await start({ tools: [search] });
  const ask = async (headers: KeyHeaders): Promise<Record<string, string>> => {
    const body = { input: 'capital?', tools, background: true };
    const answer = await h.call(operation, { headers, body });
    return { [id]: answer.body.id as string };
  };
  const isDone = async (path: Record<string, string>): Promise<boolean> =>
    (await h.call(read, { path, headers: greedy })).body.status === 'completed';
  const calls = vi.spyOn(h.deps.tools, 'call');
  const many = [await ask(greedy), await ask(greedy), await ask(greedy), await ask(greedy)];
  await until(() => calls.mock.calls.length === many.length);
  const one = await ask(other);
  await until(() => calls.mock.calls.length === many.length + 1);
  // The call that runs, the next one of its key, whose turn it is, then the other key's.
  for (let done = 0; done < 3; done++) {
    await until(() => running.length > 0);
    running.shift()?.();
  }
  await until(() => isDone(one));
  expect((await Promise.all(many.map(isDone))).filter((done) => done)).toHaveLength(2);
  for (let done = 3; done < 5; done++) {
    await until(() => running.length > 0);
    running.shift()?.();
  }
  await until(async () => (await Promise.all(many.map(isDone))).every((done) => done));
});
