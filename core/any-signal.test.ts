/** Joined abort signals: what they tell, and that nothing keeps them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { anySignal } from './any-signal.ts';

test('aborts with the first of its sources, by its reason', () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const signal = anySignal([a.signal, b.signal]);
  expect(signal.aborted).toBe(false);
  b.abort('second');
  a.abort('first');
  expect(signal.reason).toBe('second');
  expect(anySignal([new AbortController().signal, a.signal]).reason).toBe('first');
});

test('is forgotten with its sources, listener or not', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const made = (() => {
    const signal = anySignal([new AbortController().signal, new AbortController().signal]);
    signal.addEventListener('abort', () => undefined);
    return new WeakRef(signal);
  })();
  await sleep(0);
  collect();
  expect(made.deref()).toBeUndefined();
});
