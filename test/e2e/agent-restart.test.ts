/**
 * Agent runs of a real server that is killed (SIGKILL) or stopped (SIGTERM) in the middle of them
 * and started again on the same data folder: they go on from their last durable step, and the end
 * is that of a run that nothing happened to. Responses do not go on: they say so. The shipped
 * policy, real tools, real sockets.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { serverSentEvents } from '../../scripts/demo/event-stream.ts';
import { testQuestions } from '../support/clients.ts';
import { writeScriptedPolicy } from '../support/policy-copies.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture, withStores } from './fixture.ts';

type Json = ReturnType<typeof JSON.parse>;

interface Seen {
  ids: string[];
  events: Json[];
}

const { path, launch } = fixture();

const WAIT_MS = 30_000;
/** A run is over in some tens of milliseconds, so a kill may come too late; not all of them do. */
const KILLS = 4;
/** Questions until one is asked that shows what a test is about. */
const TRIES = 8;

/** Questions for both tools, of which the shipped policy calls more than one. */
const QUESTIONS = testQuestions.filter(({ tools }) => tools.length === 2);

const asked = (i: number, fields: object = {}) => ({
  input: QUESTIONS[i]?.question,
  tools: QUESTIONS[i]?.tools,
  seed: i,
  ...fields,
});

async function start(server: TestServer, body: object): Promise<Json> {
  const { status, body: run } = await call(server, 'POST', '/v1/agent/runs', body);
  expect([200, 202], JSON.stringify(run)).toContain(status);
  return run;
}

const read = async (server: TestServer, id: string): Promise<Json> =>
  (await call(server, 'GET', `/v1/agent/runs/${id}?include=tokens`)).body;

/** The run when it works no longer. */
async function settled(server: TestServer, id: string): Promise<Json> {
  const deadline = performance.now() + WAIT_MS;
  for (;;) {
    const run = await read(server, id);
    if (run.status !== 'in_progress' && run.status !== 'queued') return run;
    expect(performance.now(), `run ${id} is ${run.status}`).toBeLessThan(deadline);
    await sleep(10);
  }
}

/** Follows a run's events until one that `last` says yes to, or until the stream is cut. */
async function follow(
  response: Response,
  seen: Seen,
  last: (event: Json) => boolean = () => false,
): Promise<void> {
  expect(response.status).toBe(200);
  try {
    for await (const { id, data } of serverSentEvents(
      response.body as ReadableStream<Uint8Array>,
    )) {
      seen.ids.push(id ?? '');
      seen.events.push(JSON.parse(data));
      if (last(seen.events.at(-1))) return;
    }
  } catch (error) {
    // A killed server cuts its sockets.
    if (!(error instanceof TypeError)) throw error;
  }
}

const kinds = (run: Json): string[] => run.steps.map(({ kind }: Json) => kind);
const sampled = (run: Json): number[][] => run.steps.map(({ tokens }: Json) => tokens);

/** A run that ended well has its steps once, in the log as in its answer. */
async function checkLog(server: TestServer, run: Json): Promise<void> {
  const { body } = await call(server, 'GET', `/v1/trajectories/${run.trajectory_id}`);
  expect(body).toMatchObject({ status: 'completed', policy_version: 1 });
  const ids = run.steps.map(({ id }: Json) => id);
  expect(body.steps.map(({ id }: Json) => id)).toEqual(ids);
  expect(new Set(ids).size).toBe(ids.length);
  expect(run.steps.map(({ index }: Json) => index)).toEqual([...ids.keys()]);
}

it('killed behind a durable tool step, a background run goes on to the same end', async () => {
  const dataFolder = path('data');
  let server = await launch({ dataFolder }).ready();
  const twin = await launch({ dataFolder: path('twin') }).ready();
  let cut = 0;
  for (let i = 0; i < KILLS; i++) {
    const what = `question ${i}`;
    const seen: Seen = { ids: [], events: [] };
    const response = await fetch(`${server.url}/v1/agent/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(asked(i, { background: true, stream: true })),
    });
    await follow(response, seen, ({ step }) => step?.kind === 'tool');
    await server.end('SIGKILL');
    const { id } = seen.events[0].run;
    const left = await withStores(dataFolder, ({ agentRuns }) => agentRuns.get(id as string));
    if (left.status === 'in_progress') cut++;
    server = await launch({ dataFolder }).ready();
    // Where the stream broke off it goes on, in another process.
    const headers = { 'last-event-id': seen.ids.at(-1) ?? '' };
    const rest = await fetch(`${server.url}/v1/agent/runs/${id}/events`, { headers });
    await follow(rest, seen);
    expect(new Set(seen.ids).size, what).toBe(seen.ids.length);
    const run = await settled(server, id as string);
    expect(run.status, what).toBe('completed');
    const completed = seen.events.flatMap(({ step }) => step?.id ?? []);
    expect(completed, what).toEqual(run.steps.map((step: Json) => step.id));
    expect(seen.events.at(-1), what).toMatchObject({ type: 'run.completed', run: { id } });
    await checkLog(server, run);
    const whole = await start(twin, asked(i));
    expect(sampled(run), what).toEqual(sampled(await read(twin, whole.id as string)));
    expect(run, what).toMatchObject({ answer: whole.answer, usage: whole.usage });
  }
  console.log(`${cut} of ${KILLS} kills came before the end of the run`);
  expect(cut).toBeGreaterThan(0);
}, 240_000);

it('a foreground run ends with the server; a stop leaves background runs to the next', async () => {
  const dataFolder = path('data');
  const slow = { tools: ['search'], max_tokens: 400, temperature: 2 };
  let server = await launch({ dataFolder }).ready();
  const begin = async (i: number, fields: object): Promise<string> => {
    const seen: Seen = { ids: [], events: [] };
    const body = JSON.stringify({ ...asked(i), ...slow, stream: true, ...fields });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${server.url}/v1/agent/runs`, { method: 'POST', headers, body });
    await follow(response, seen, ({ type }) => type === 'run.created');
    return seen.events[0].run.id as string;
  };
  let left = 'completed';
  for (let i = 0; i < TRIES && left !== 'in_progress'; i++) {
    const background = await begin(i, { background: true });
    expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
    left = await withStores(dataFolder, ({ agentRuns }) => agentRuns.get(background).status);
    server = await launch({ dataFolder }).ready();
    expect((await settled(server, background)).status).toBe('completed');
  }
  expect(left).toBe('in_progress');
  let cancelled: Json = null;
  for (let i = 0; i < TRIES && cancelled?.status !== 'cancelled'; i++) {
    const response = fetch(`${server.url}/v1/agent/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...asked(i), ...slow }),
    });
    const lost = response.catch(() => null);
    const deadline = performance.now() + WAIT_MS;
    let id: string | undefined;
    while (id === undefined) {
      const list = await call(server, 'GET', '/v1/agent/runs?status=in_progress');
      id = list.body.data[0]?.id as string | undefined;
      if (performance.now() > deadline) break;
      if (id === undefined && (await Promise.race([lost, sleep(1, 'working')])) !== 'working')
        break;
    }
    await server.end('SIGKILL');
    server = await launch({ dataFolder }).ready();
    if (id !== undefined) cancelled = await settled(server, id);
  }
  expect(cancelled).toMatchObject({
    status: 'cancelled',
    error: { code: 'agent_run_interrupted' },
  });
}, 240_000);

it('server and client tools in one run, over a kill while it waits', async () => {
  const dataFolder = path('data');
  const SEARCH = {
    type: 'function',
    function: {
      name: 'search',
      parameters: { type: 'object', properties: { query: { type: 'string' } } },
    },
  };
  let server = await launch({ dataFolder }).ready();
  /** What this server's own search says, as the client's function. */
  const search = async (query: string): Promise<string> => {
    const found = await start(server, { input: query, tools: ['search'], seed: 1 });
    const result = found.steps.find(({ tool_call }: Json) => tool_call)?.tool_call.result;
    return (result as string | undefined) ?? 'nothing found';
  };
  let both = 0;
  let waits = 0;
  for (let i = 0; i < TRIES && both === 0; i++) {
    let run = await start(server, asked(i, { tools: [SEARCH, 'javascript'] }));
    const { trajectory_id } = run;
    while (run.status === 'requires_action') {
      if (waits++ === 0) {
        await server.end('SIGKILL');
        server = await launch({ dataFolder }).ready();
        expect(await read(server, run.id as string)).toMatchObject({
          status: 'requires_action',
          required_action: run.required_action,
        });
      }
      const [{ id, function: called }] = run.required_action.tool_calls;
      expect(called.name).toBe('search');
      const { query } = JSON.parse(called.arguments as string) as { query: string };
      const before = (await read(server, run.id as string)).steps;
      const tool_outputs = [{ tool_call_id: id, output: await search(query) }];
      const submitted = await call(server, 'POST', `/v1/agent/runs/${run.id}/submit_tool_outputs`, {
        tool_outputs,
      });
      expect(submitted.status, JSON.stringify(submitted.body)).toBe(200);
      run = submitted.body;
      // What was there stays as it was, to the token.
      const after = (await read(server, run.id as string)).steps;
      expect(after.slice(0, before.length)).toEqual(before);
    }
    expect(run).toMatchObject({ status: 'completed', trajectory_id });
    const calls = run.steps.flatMap(({ tool_call }: Json) => tool_call ?? []);
    const servers = calls.filter(({ served }: Json) => served === 'live');
    const clients = calls.filter(({ served }: Json) => served === 'client');
    expect(servers.every(({ name }: Json) => name === 'javascript')).toBe(true);
    if (servers.length > 0 && clients.length > 0) both++;
    await checkLog(server, run);
    expect(kinds(run).filter((kind) => kind === 'tool')).toHaveLength(calls.length);
  }
  expect(both).toBe(1);
}, 240_000);

it('killed, a response in the background has failed after the next start, and says why', async () => {
  const dataFolder = path('data');
  const policy = path('endless');
  writeScriptedPolicy(policy, '<think>y', { after: { y: 'y' }, contextTokens: 32_768 });
  const options = { dataFolder, environment: { RAMIFY_POLICY: policy } };
  let server = await launch(options).ready();
  const asks = { model: 'ramify', input: 'Why?', background: true };
  const { body: begun } = await call(server, 'POST', '/v1/responses', asks);
  const url = `/v1/responses/${begun.id}`;
  expect((await call(server, 'GET', url)).body.status).toBe('in_progress');
  await server.end('SIGKILL');
  server = await launch(options).ready();
  const { status, body: response } = await call(server, 'GET', url);
  expect(status).toBe(200);
  expect(response).toMatchObject({
    ...{ id: begun.id, status: 'failed', background: true, incomplete_details: null },
    error: { code: 'not_ready', message: 'the server stopped before the response was whole' },
  });
  expect(response.completed_at).toBeGreaterThanOrEqual(response.created_at as number);
  const next = { model: 'ramify', input: 'And?', previous_response_id: begun.id };
  const { status: refused, body: problem } = await call(server, 'POST', '/v1/responses', next);
  expect(refused).toBe(400);
  expect(problem.error.message).toContain('is failed');
}, 120_000);
