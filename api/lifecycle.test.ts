/** Tests of stopping: what is under way is waited for, then aborted; nothing new is admitted. */
import { expect, test } from 'vitest';
import { Lifecycle } from './lifecycle.ts';

test('stop waits for what is active and admits nothing new', async () => {
  const lifecycle = new Lifecycle();
  const activity = lifecycle.begin();
  lifecycle.admit();
  const stopped = lifecycle.stop(5_000);
  expect(() => lifecycle.admit()).toThrow(expect.objectContaining({ code: 'not_ready' }));
  activity.hold();
  activity.release();
  expect(lifecycle.active).toBe(1);
  activity.release();
  await stopped;
  expect(activity.signal.aborted).toBe(false);
  expect(lifecycle.aborted).toBe(false);
});

test('what outlasts the limit is aborted and gets time to end', async () => {
  const lifecycle = new Lifecycle();
  const activity = lifecycle.begin();
  let ended = false;
  activity.signal.addEventListener('abort', () => {
    setTimeout(() => {
      ended = true;
      activity.release();
    }, 10);
  });
  await lifecycle.stop(30);
  expect(ended).toBe(true);
  expect(lifecycle.aborted).toBe(true);
});

test('an activity follows its client and lets go of it at the end', () => {
  const lifecycle = new Lifecycle();
  const client = new AbortController();
  const first = lifecycle.begin(client.signal);
  const second = lifecycle.begin(client.signal);
  second.release();
  client.abort();
  expect(first.signal.aborted).toBe(true);
  expect(second.signal.aborted).toBe(false);
  expect(lifecycle.begin(client.signal).signal.aborted).toBe(true);
});
