/** Tests of following a run's events: late, resumed, live, bounded, abandoned. */
import { expect, test } from 'vitest';
import { EventLog } from './event-log.ts';

const never = new AbortController().signal;

async function collect(log: EventLog<string>, after: number, signal = never): Promise<string[]> {
  const out: string[] = [];
  for await (const { id, event } of log.follow(after, signal)) out.push(`${id}${event}`);
  return out;
}

test('a late follower gets all, a resumed one only the rest', async () => {
  const log = new EventLog<string>();
  for (const event of ['a', 'b', 'c']) log.append(event);
  log.close();
  expect(await collect(log, 0)).toEqual(['1a', '2b', '3c']);
  expect(await collect(log, 2)).toEqual(['3c']);
  expect(await collect(log, 9)).toEqual([]);
});

test('a live follower gets events as they come, in order, until the log closes', async () => {
  const log = new EventLog<string>();
  const followers = [collect(log, 0), collect(log, 1)];
  for (const event of ['a', 'b', 'c']) {
    log.append(event);
    await Promise.resolve();
  }
  log.close();
  expect(await Promise.all(followers)).toEqual([
    ['1a', '2b', '3c'],
    ['2b', '3c'],
  ]);
});

test('only the newest events are kept; who asks for older ones starts at the oldest kept', async () => {
  const log = new EventLog<string>(10);
  for (let i = 1; i <= 25; i++) log.append('x');
  log.close();
  expect(log.lastId).toBe(25);
  const got = await collect(log, 3);
  expect(got).toHaveLength(10);
  expect(got[0]).toBe('16x');
  expect(got.at(-1)).toBe('25x');
});

test('an abort ends the follower', async () => {
  const log = new EventLog<string>();
  log.append('a');
  const abort = new AbortController();
  const follower = collect(log, 0, abort.signal);
  await new Promise((resolve) => setImmediate(resolve));
  abort.abort();
  expect(await follower).toEqual(['1a']);
});
