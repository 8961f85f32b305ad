/**
 * Calls with a key, apart from what they ask: which answers are kept, when they are durable, and
 * what becomes of those who wait.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ManualClock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { quiet } from '../core/log.ts';
import { openDatabase } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import type { Stores } from '../db/stores.ts';
import { RepeatedCalls } from './repeated-calls.ts';
import type { RepeatableCall } from './repeated-calls.ts';

let stores: Stores;
let clock: ManualClock;
let calls: RepeatedCalls;

beforeEach(() => {
  clock = new ManualClock();
  stores = openStores(openDatabase(':memory:'), clock);
  calls = restarted();
});
afterEach(() => stores.close());

/** As the next process: nothing but the database is left. */
function restarted(): RepeatedCalls {
  return new RepeatedCalls({ stores, clock, logger: quiet, idempotencyWaitMs: 20 });
}

const call = (fields: Partial<RepeatableCall> = {}): RepeatableCall => ({
  tenant: 'a',
  key: 'k',
  asked: ['x', 1],
  goesOn: false,
  signal: new AbortController().signal,
  ...fields,
});

/** Says which time it was made, with a header of its own and one of the request. */
function counted(): { made: () => number; answer: () => Promise<Response> } {
  let made = 0;
  const headers = { 'x-ramify-policy': '3', 'x-request-id': 'req_1' };
  return { made: () => made, answer: async () => Response.json({ time: ++made }, { headers }) };
}

function streamOf(frames: readonly string[], failure?: Error): Response {
  const left = frames.map((frame) => new TextEncoder().encode(frame));
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const frame = left.shift();
      if (frame !== undefined) controller.enqueue(frame);
      else if (failure === undefined) controller.close();
      else controller.error(failure);
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}
const FRAMES = ['data: {"é":1}\n\n', ': keep-alive\n\n', 'data: [DONE]\n\n'];
const WITHOUT_COMMENTS = 'data: {"é":1}\n\ndata: [DONE]\n\n';

test('an answer is given again, in the next process too, for its tenant alone', async () => {
  const { answer, made } = counted();
  const first = await calls.once(call(), answer);
  expect(await first.json()).toEqual({ time: 1 });
  for (const again of [await calls.once(call(), answer), await restarted().once(call(), answer)]) {
    expect(await again.json()).toEqual({ time: 1 });
    expect(again.headers.get('x-ramify-policy')).toBe('3');
    expect(again.headers.get('idempotent-replayed')).toBe('true');
    // The request's own number is not the answer's.
    expect(again.headers.get('x-request-id')).toBeNull();
  }
  await calls.once(call({ tenant: 'b' }), answer);
  expect(made()).toBe(2);
});

test('after 24 hours the key is new', async () => {
  const { answer, made } = counted();
  await calls.once(call(), answer);
  clock.advance(LIMITS.idempotencyKeptMs);
  await calls.once(call({ asked: 'another' }), answer);
  expect(made()).toBe(2);
});

test('other content is refused while the first call runs and afterwards', async () => {
  const { answer } = counted();
  const running = calls.once(call(), answer);
  const other = (): Promise<Response> => calls.once(call({ asked: ['x', 2] }), answer);
  await expect(other()).rejects.toMatchObject({ code: 'idempotency_conflict' });
  await running;
  await expect(other()).rejects.toMatchObject({ code: 'idempotency_conflict' });
});

test('what was no answer is not kept: a throw, a status, a stream that was cut', async () => {
  const gone = new AppError('engine_unavailable', 'gone');
  await expect(calls.once(call(), () => Promise.reject(gone))).rejects.toBe(gone);
  const refused = await calls.once(call(), async () => new Response('no', { status: 503 }));
  expect(refused.status).toBe(503);
  const cut = await calls.once(call(), async () => streamOf(FRAMES.slice(0, 1)));
  expect(await cut.text()).toBe(FRAMES[0]);
  const broken = await calls.once(call(), async () => streamOf(FRAMES.slice(0, 1), gone));
  await expect(broken.text()).rejects.toBe(gone);
  const { answer, made } = counted();
  await calls.once(call(), answer);
  expect(made()).toBe(1);
});

test('a stream is kept before its last frame goes out, without comments', async () => {
  const keep = vi.spyOn(stores.answers, 'keep');
  const first = await calls.once(call(), async () => streamOf(FRAMES));
  const reader = (first.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  await reader.read();
  expect(keep).not.toHaveBeenCalled();
  const last = await reader.read();
  expect(Buffer.from(last.value ?? []).toString()).toBe(FRAMES[2]);
  expect(stores.answers.find({ tenant: 'a', key: 'k' }, -1)).not.toBeNull();
  const again = await calls.once(call(), counted().answer);
  expect(await again.text()).toBe(WITHOUT_COMMENTS);
  expect(again.headers.get('content-type')).toBe('text/event-stream');
});

test('a stream that fails while nobody reads frees the key', async () => {
  let fail = (): void => undefined;
  const body = new ReadableStream({
    start: (controller) => void (fail = () => controller.error(new TypeError('gone'))),
  });
  const headers = { 'content-type': 'text/event-stream' };
  const first = await calls.once(call(), async () => new Response(body, { headers }));
  fail();
  expect(await (await calls.once(call(), counted().answer)).json()).toEqual({ time: 1 });
  await expect(first.text()).rejects.toThrow('gone');
});

test('an answer that was no 200 comes again with its own status', async () => {
  const begun = async (): Promise<Response> => Response.json({ id: 1 }, { status: 202 });
  expect((await calls.once(call(), begun)).status).toBe(202);
  expect((await restarted().once(call(), begun)).status).toBe(202);
});

test.each([
  ['a response', 'event: response.completed\n', true],
  ['a response that was cut short', 'event: response.incomplete\n', true],
  ['a response that failed', 'event: response.failed\n', false],
  ['an agent run', 'event: run.completed\nid: 5\n', true],
  ['a run that waits for its client', 'event: run.requires_action\nid: 5.1\n', true],
  ['a run that was cut at its begin', 'event: run.created\nid: 0\n', false],
])('the last frame of %s is known', async (_what, name, kept) => {
  const frames = ['event: other\ndata: {}\n\n', `${name}data: {}\n\n`];
  const first = await calls.once(call(), async () => streamOf(frames));
  expect(await first.text()).toBe(frames.join(''));
  const again = await calls.once(call(), counted().answer);
  expect(again.headers.has('idempotent-replayed')).toBe(kept);
});

test('the stream of what goes on without its client is kept to its end', async () => {
  const first = await calls.once(call({ goesOn: true }), async () => streamOf(FRAMES));
  await first.body?.cancel();
  const { answer, made } = counted();
  expect(await (await calls.once(call(), answer)).text()).toBe(WITHOUT_COMMENTS);
  expect(made()).toBe(0);
});

test('a client that leaves its stream frees the key', async () => {
  const first = await calls.once(call(), async () => streamOf(FRAMES));
  await first.body?.cancel();
  const { answer, made } = counted();
  await calls.once(call(), answer);
  expect(made()).toBe(1);
});

test('who waits gets the answer, makes the call when there was none, or is told to wait', async () => {
  let end = (): void => undefined;
  const slow = new Promise<void>((resolve) => (end = resolve));
  const failing = calls.once(call(), async () => {
    await slow;
    throw new AppError('engine_unavailable', 'gone');
  });
  const { answer, made } = counted();
  const waiting = calls.once(call(), answer);
  end();
  await expect(failing).rejects.toMatchObject({ code: 'engine_unavailable' });
  expect(await (await waiting).json()).toEqual({ time: 1 });
  expect(made()).toBe(1);
  const never = calls.once(call({ key: 'slow' }), () => new Promise(() => undefined));
  never.catch(() => undefined);
  const late = calls.once(call({ key: 'slow' }), answer);
  await expect(late).rejects.toMatchObject({ code: 'idempotency_key_in_use' });
  const gone = new AbortController();
  const left = calls.once(call({ key: 'slow', signal: gone.signal }), answer);
  gone.abort();
  await expect(left).rejects.toMatchObject({ code: 'request_cancelled' });
});

test('an answer that is too large is given, and not kept', async () => {
  const text = 'x'.repeat(LIMITS.keptAnswerBytesMax + 1);
  const answer = async (): Promise<Response> => new Response(text);
  expect(await (await calls.once(call(), answer)).text()).toBe(text);
  const streamed = async (): Promise<Response> =>
    streamOf([`data: ${text}\n\n`, ...FRAMES, 'data: [DONE]\n\n']);
  expect((await (await calls.once(call(), streamed)).text()).length).toBeGreaterThan(text.length);
  expect(stores.answers.find({ tenant: 'a', key: 'k' }, -1)).toBeNull();
});

test('a copy that the disk refuses is no failure of the answer', async () => {
  vi.spyOn(stores.answers, 'keep').mockRejectedValueOnce(new AppError('storage_failed', 'full'));
  const { answer, made } = counted();
  expect((await calls.once(call(), answer)).status).toBe(200);
  await calls.once(call(), answer);
  expect(made()).toBe(2);
});
