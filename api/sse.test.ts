/**
 * Tests of event streams: frames, error frames without secrets, heartbeats, a client that leaves.
 */
import { expect, test, vi } from 'vitest';
import { AppError } from '../core/errors.ts';
import { Lifecycle } from './lifecycle.ts';
import { sseResponse } from './sse.ts';
import type { SseOptions } from './sse.ts';

function options(lifecycle = new Lifecycle()): SseOptions {
  const activity = lifecycle.begin();
  return { requestId: 'req_1', activity, onError: () => undefined };
}

test('frames are as the standard has them', async () => {
  const response = sseResponse(options(), async (stream) => {
    stream.send({ id: 1, event: 'step', data: { a: 'x\ny' } });
    stream.send({ data: '[DONE]' });
  });
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  expect(await response.text()).toBe('event: step\nid: 1\ndata: {"a":"x\\ny"}\n\ndata: [DONE]\n\n');
});

test.each([
  ['a bug', new TypeError('secret detail'), 'internal', 'req_1'],
  [
    'a known failure',
    new AppError('engine_unavailable', 'the worker stopped'),
    'engine_unavailable',
    'the worker stopped',
  ],
])('%s becomes an error frame', async (_, thrown, code, text) => {
  const told: AppError[] = [];
  const onError = (error: AppError): void => void told.push(error);
  const response = sseResponse({ ...options(), onError }, async (stream) => {
    stream.send({ data: 1 });
    throw thrown;
  });
  const body = await response.text();
  const frame = JSON.parse(body.split('data: ')[2] as string);
  expect(frame.error).toMatchObject({ code, param: null });
  expect(frame.error.message).toContain(text);
  expect(body).not.toContain('secret');
  expect(told.map((error) => error.code)).toEqual([code]);
});

test('silence is filled with comments', async () => {
  vi.useFakeTimers();
  const response = sseResponse({ ...options(), heartbeatMs: 100 }, async (stream) => {
    await new Promise((resolve) => setTimeout(resolve, 350));
    stream.send({ data: 1 });
  });
  await vi.advanceTimersByTimeAsync(400);
  vi.useRealTimers();
  expect(await response.text()).toBe(': keep-alive\n\n'.repeat(3) + 'data: 1\n\n');
});

test('a stream ends when its life is over, and says so', async () => {
  const lifecycle = new Lifecycle();
  const settings = { ...options(lifecycle), lifeMs: 50 };
  const response = sseResponse(settings, async (stream, signal) => {
    stream.send({ data: 1 });
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  });
  settings.activity.release();
  const [, , frame = ''] = (await response.text()).split('data: ');
  expect(JSON.parse(frame).error).toMatchObject({ code: 'request_timeout' });
  expect(lifecycle.active).toBe(0);
});

test('a client that leaves aborts the producer, and the activity ends with it', async () => {
  const lifecycle = new Lifecycle();
  const settings = options(lifecycle);
  let aborted = false;
  const response = sseResponse(settings, async (stream, signal) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    aborted = true;
    stream.send({ data: 'nobody reads this' });
  });
  settings.activity.release();
  expect(lifecycle.active).toBe(1);
  await response.body?.cancel();
  await new Promise((resolve) => setImmediate(resolve));
  expect(aborted).toBe(true);
  expect(lifecycle.active).toBe(0);
});

test('a producer can wait for a slow client', async () => {
  let sent = 0;
  const response = sseResponse(options(), async (stream) => {
    for (; sent < 100; sent++) {
      stream.send({ data: 'x'.repeat(10_000) });
      await stream.drained();
    }
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(sent).toBeLessThan(10);
  expect((await response.text()).length).toBeGreaterThan(1_000_000);
  expect(sent).toBe(100);
});

/** Sends without end, and nobody reads. */
function flood(settings: SseOptions): { body: ReadableStream; ended: Promise<void> } {
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  const { body } = sseResponse(settings, async (stream, signal) => {
    while (!signal.aborted) {
      stream.send({ data: 'x'.repeat(10_000) });
      await stream.drained();
    }
    end();
  });
  settings.activity.release();
  return { body: body as ReadableStream, ended };
}

test.each([
  ['its life is over', { lifeMs: 20 }],
  ['the server stops', {}],
  ['it is given up', { stallMs: 20 }],
])('a client that stops reading keeps its stream only until %s', async (what, limits) => {
  const lifecycle = new Lifecycle();
  const { body, ended } = flood({ ...options(lifecycle), ...limits });
  if (what === 'the server stops') await lifecycle.stop(20);
  await ended;
  await new Promise((resolve) => setImmediate(resolve));
  expect(lifecycle.active).toBe(0);
  const text = new Response(body).text();
  if (what === 'it is given up')
    await expect(text).rejects.toMatchObject({ code: 'request_timeout' });
  else expect(await text).toContain('data: x');
});
