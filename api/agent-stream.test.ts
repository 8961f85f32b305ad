/** Agent runs as streams: resumed in mid-run, left by their client, cut by a stop of the server. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { waitingRun } from './testing/agent-cases.ts';
import { CAPITAL_SCRIPT, sseData, startHarness, until } from './testing/harness.ts';
import type { Harness } from './testing/harness.ts';

let h: Harness;

beforeEach(async () => {
  h = await startHarness();
  h.engine.pieceMs = 5;
  h.engine.script = CAPITAL_SCRIPT;
});

afterEach(() => h.close());

const LONG = (): string => '<think>capital of France '.repeat(20);
const create = (body: object): Promise<Response> =>
  Promise.resolve(
    h.app.request('http://127.0.0.1/v1/agent/runs', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ input: 'capital of France?', tools: ['search'], ...body }),
    }),
  );

/** Reads a stream until it has shown a text, then leaves it. */
async function readUntil(response: Response, text: string): Promise<string> {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let seen = '';
  while (!seen.includes(text)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`the stream ended without ${text}: ${seen}`);
    seen += new TextDecoder().decode(value);
  }
  await reader.cancel();
  return seen;
}

const ids = (text: string): string[] =>
  [...text.matchAll(/^id: ([\d.]+)$/gm)].map((match) => match[1] as string);

test('a background stream that broke is resumed without a gap or a repeat', async () => {
  const first = await readUntil(await create({ stream: true, background: true }), 'event: step.d');
  const run_id = sseData(first)[0].run.id as string;
  const rest = await h.call('streamAgentRunEvents', {
    path: { run_id },
    headers: { 'last-event-id': ids(first).at(-1) as string },
  });
  const all = [...ids(first), ...ids(rest.text)];
  expect(new Set(all).size).toBe(all.length);
  expect(all.filter((id) => !id.includes('.'))).toEqual(['0', '1', '2', '3', '4', '5']);
  expect(rest.body.at(-1)).toMatchObject({ type: 'run.completed', run: { answer: 'Paris' } });
  const events = [...sseData(first), ...rest.body];
  const texts = events.filter(({ type }) => type === 'step.delta').map(({ text }) => text);
  const written = rest.body
    .at(-1)
    .run.steps.filter(({ kind }: { kind: string }) => kind === 'policy');
  // Every character once, wherever the stream broke.
  expect(texts.join('')).toBe(written.map(({ text }: { text: string }) => text).join(''));
});

test('the position may come in the address; from the end of a run nothing comes', async () => {
  const { body } = await h.call('createAgentRun', { body: { input: 'x', tools: ['search'] } });
  const events = async (after: string): Promise<string[]> => {
    const path = { run_id: body.id as string };
    return ids((await h.call('streamAgentRunEvents', { path, query: { after } })).text);
  };
  expect(await events('3')).toEqual([`3.${body.steps[3].token_count}`, '4', '5']);
  expect(await events('5')).toEqual([]);
});

test('a foreground run is cancelled when its client leaves', async () => {
  h.engine.script = LONG;
  const seen = await readUntil(await create({ stream: true }), 'event: step.delta');
  const run_id = sseData(seen)[0].run.id as string;
  await until(() => h.deps.stores.agentRuns.get(run_id).status === 'cancelled');
  const { trajectoryId } = h.deps.stores.agentRuns.get(run_id);
  expect(h.deps.stores.trajectories.find(trajectoryId as string)?.status).toBe('cancelled');
  const end = await h.call('streamAgentRunEvents', { path: { run_id } });
  expect(end.body.at(-1)).toMatchObject({ type: 'run.cancelled' });
});

test('a stop of the server cuts a foreground run that outlasts it and says why', async () => {
  h.engine.script = LONG;
  h.engine.pieceMs = 20;
  const response = await create({ stream: true });
  await h.deps.lifecycle.stop(50);
  const events = sseData(await response.text());
  const find = () => h.deps.stores.agentRuns.get(events[0].run.id as string);
  // The stop gave up after twice its 50 ms; on a busy machine the rows follow a little later.
  await until(() => find().status !== 'in_progress');
  expect(find()).toMatchObject({ status: 'cancelled', error: { code: 'not_ready' } });
});

test('a stop of the server leaves a background run to the next; its stream says so', async () => {
  h.engine.script = LONG;
  h.engine.pieceMs = 20;
  const response = await create({ stream: true, background: true });
  h.deps.agentRuns.stop();
  await h.deps.lifecycle.stop(2_000);
  const frames = sseData(await response.text());
  expect(frames.at(-1).error.code).toBe('not_ready');
  const run = h.deps.stores.agentRuns.get(frames[0].run.id as string);
  expect(run).toMatchObject({ status: 'in_progress', endedAt: null });
  // What it was in the middle of is forgotten: only the prompt is durable.
  expect(h.deps.stores.trajectories.path(run.leafStepId as string)).toHaveLength(1);
  expect(h.deps.stores.trajectories.find(run.trajectoryId as string)).toBeNull();
});

test('thrown text, which is no Error, is still our error and shows nothing', async () => {
  // A stray `throw 'text'` in a library skips the error handler of the HTTP framework.
  h.fault.thrown = 'secret detail' as unknown as Error;
  const answer = await h.call('listTasks');
  expect(answer.code).toBe('internal');
  expect(answer.text).not.toContain('secret');
});

test('HEAD of a stream is answered and leaves nothing open', async () => {
  // The stream of a run that waits for its client stays open.
  const { id } = await waitingRun(h);
  await until(() => h.deps.lifecycle.active === 0);
  const url = `http://127.0.0.1/v1/agent/runs/${id}/events`;
  const response = await h.app.request(url, { method: 'HEAD' });
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  await until(() => h.deps.lifecycle.active === 0);
});
