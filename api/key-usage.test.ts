/** Limits of keys by a clock of the test, and counts of tokens that survive a restart. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ApiKeyRecord } from '../core/key-records.ts';
import { LIMITS } from '../core/limits.ts';
import { quiet } from '../core/log.ts';
import { openDatabase } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import type { Stores } from '../db/stores.ts';
import { KeyUsage } from './key-usage.ts';

const DAY_MS = 86_400_000;
const NOON = 20_000 * DAY_MS + DAY_MS / 2;

let now: number;
let stores: Stores;
let usage: KeyUsage;
const clock = { now: (): number => now };

beforeEach(() => {
  now = NOON;
  stores = openStores(openDatabase(':memory:'), clock);
  usage = restarted();
});

afterEach(() => stores.close());

const restarted = (): KeyUsage => new KeyUsage({ store: stores.keys, clock, logger: quiet });

function keyOf(limits: Partial<ApiKeyRecord>): ApiKeyRecord {
  return {
    ...{ id: 'key_1', name: 'x', tenant: 'default', scopes: ['agent'], prefix: 'rk_1', hash: 'a' },
    ...{ createdAt: 0, expiresAt: null, revokedAt: null, lastUsedAt: null, previous: null },
    ...{ requestsPerMinute: null, concurrency: null, tokensPerDay: null },
    ...limits,
  };
}

const code = (expected: string, retryAfterS?: number): unknown =>
  expect.objectContaining({ code: expected, ...(retryAfterS !== undefined && { retryAfterS }) });

describe('requests a minute', () => {
  const key = keyOf({ requestsPerMinute: 4 });

  test('may come at once, then as the minute goes', () => {
    for (let i = 0; i < 4; i++) usage.enter(key)();
    expect(() => usage.enter(key)).toThrow(code('rate_limit_exceeded', 15));
    now += 14_999;
    expect(() => usage.enter(key)).toThrow(code('rate_limit_exceeded', 1));
    now += 1;
    usage.enter(key);
    expect(() => usage.enter(key)).toThrow(code('rate_limit_exceeded', 15));
    now += 10 * 60_000;
    for (let i = 0; i < 4; i++) usage.enter(key);
    expect(() => usage.enter(key)).toThrow(code('rate_limit_exceeded'));
  });

  test('are told, also when the clock goes back', () => {
    usage.enter(key);
    expect(usage.headers(key)).toEqual({
      'x-ratelimit-limit-requests': '4',
      'x-ratelimit-remaining-requests': '3',
      'x-ratelimit-reset-requests': '15s',
    });
    now -= 60_000;
    expect(usage.headers(key)['x-ratelimit-remaining-requests']).toBe('3');
    now += 60_000 + 14_500;
    expect(usage.headers(key)['x-ratelimit-reset-requests']).toBe('500ms');
  });

  test('of another key are its own', () => {
    for (let i = 0; i < 4; i++) usage.enter(key);
    usage.enter(keyOf({ id: 'key_2', requestsPerMinute: 4 }));
  });
});

test('requests under way, background runs among them', () => {
  const key = keyOf({ concurrency: 2 });
  const leave = usage.enter(key);
  const end = usage.hold(key.id);
  expect(() => usage.enter(key)).toThrow(code('rate_limit_exceeded'));
  leave();
  usage.enter(key)();
  end();
  usage.enter(key);
  usage.enter(key);
  expect(() => usage.enter(key)).toThrow(code('rate_limit_exceeded'));
});

test('streams of a key and of all', () => {
  const leaves = Array.from({ length: LIMITS.keyStreamsMax }, () => usage.enterStream('key_1'));
  expect(() => usage.enterStream('key_1')).toThrow(code('rate_limit_exceeded'));
  for (let i = leaves.length; i < LIMITS.eventStreamsMax; i++) usage.enterStream(null);
  expect(() => usage.enterStream('key_2')).toThrow(code('queue_full'));
  leaves[0]?.();
  usage.enterStream('key_2');
  expect(() => usage.enterStream(null)).toThrow(code('queue_full'));
});

describe('tokens a day', () => {
  const key = keyOf({ tokensPerDay: 100 });

  test('are counted over restarts, up to midnight UTC', async () => {
    await stores.keys.create(key);
    await usage.count(key.id, { promptTokens: 60, completionTokens: 30 });
    usage.requireTokens(key);
    usage = restarted();
    expect(usage.headers(key)).toEqual({
      'x-ratelimit-limit-tokens': '100',
      'x-ratelimit-remaining-tokens': '10',
      'x-ratelimit-reset-tokens': '12h0m0s',
    });
    await usage.count(key.id, { promptTokens: 0, completionTokens: 25 });
    expect(() => usage.requireTokens(key)).toThrow(code('insufficient_quota', 12 * 3600));
    expect(usage.headers(key)['x-ratelimit-remaining-tokens']).toBe('0');
    expect(restarted().tokensToday(key.id)).toBe(115);
    now += DAY_MS / 2;
    usage.requireTokens(key);
    await usage.count(key.id, { promptTokens: 1, completionTokens: 1 });
    expect(stores.keys.usageOn(20_000).get(key.id)).toEqual({
      promptTokens: 60,
      completionTokens: 55,
    });
    expect(stores.keys.usageOn(20_001).get(key.id)?.promptTokens).toBe(1);
  });

  test('of nobody and of unknown keys are not stored; old days go', async () => {
    await stores.keys.create(key);
    await usage.count(null, { promptTokens: 1, completionTokens: 1 });
    await usage.count('key_unknown', { promptTokens: 1, completionTokens: 1 });
    await usage.count(key.id, { promptTokens: 1, completionTokens: 1 });
    expect([...stores.keys.usageOn(20_000).keys()]).toEqual([key.id]);
    now += (LIMITS.usageDaysKept + 1) * DAY_MS;
    restarted();
    await expect.poll(() => stores.keys.usageOn(20_000).size).toBe(0);
  });
});
