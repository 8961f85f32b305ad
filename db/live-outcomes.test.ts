/**
 * What a version did in live traffic: a random log against a plain model; conversations count once,
 * cancelled answers and rollouts do not, and only the newest are read.
 */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { ManualClock } from '../core/clock.ts';
import { idGenerator } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import { freshSeed, Prng } from '../core/prng.ts';
import type { LiveOutcomes, TrajectoryRecord } from '../core/records.ts';
import { randomStep, trajectoryOf } from '../test/fixtures/random-records.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

let stores: Stores;
let clock: ManualClock;

beforeEach(() => {
  clock = new ManualClock();
  stores = openStores(openDatabase(':memory:'), clock);
});
afterEach(() => stores.close());

function modelOf(records: TrajectoryRecord[], version: number, since: number): LiveOutcomes {
  const conversations = new Map<string, TrajectoryRecord[]>();
  for (const record of records) {
    const counts = record.source === 'live' && record.status !== 'cancelled';
    if (!counts || record.policyVersion !== version || record.createdAt < since) continue;
    const key = record.conversationId ?? record.id;
    conversations.set(key, [...(conversations.get(key) ?? []), record]);
  }
  const all = [...conversations.values()];
  const wrong = ({ status, formatOk }: TrajectoryRecord): boolean =>
    status === 'failed' || !formatOk;
  const rewards = all.flatMap((one) => {
    const rated = one.flatMap(({ reward }) => (reward === null ? [] : [reward]));
    return rated.length === 0 ? [] : [rated.reduce((sum, value) => sum + value) / rated.length];
  });
  const errors = all.filter((one) => one.some(wrong)).length;
  const trajectories = all.flat().length;
  return { version, trajectories, conversations: all.length, errors, rewards };
}

const sorted = ({ rewards, ...rest }: LiveOutcomes): LiveOutcomes => ({
  ...rest,
  rewards: [...rewards].sort((a, b) => a - b),
});

test('a random log agrees with a plain model', async () => {
  const seed = freshSeed();
  const prng = new Prng(seed);
  const newId = idGenerator(clock);
  const records: TrajectoryRecord[] = [];
  const times: number[] = [];
  const root = randomStep(prng, newId('step'), null);
  await stores.stepLog.append({ steps: [root] });
  for (let i = 0; i < 400; i++) {
    clock.advance(prng.below(5));
    times.push(clock.now());
    records.push(
      trajectoryOf(newId('trajectory'), root, {
        source: prng.pick(['live', 'live', 'rollout', 'replay'] as const),
        policyVersion: 1 + prng.below(3),
        conversationId: prng.next() < 0.5 ? `conv_${prng.below(40)}` : null,
        status: prng.pick(['completed', 'completed', 'completed', 'failed', 'cancelled'] as const),
        formatOk: prng.next() < 0.8,
        reward: prng.next() < 0.5 ? prng.below(5) / 4 : null,
        createdAt: clock.now(),
      }),
    );
  }
  await stores.stepLog.append({ trajectories: records });
  for (const since of [0, must(times[200], 'a time'), clock.now() + 1]) {
    for (const version of [1, 2, 3, 4]) {
      const found = sorted(stores.trajectories.liveOutcomes(version, since));
      const expected = sorted(modelOf(records, version, since));
      expect(found.rewards.length, `seed ${seed}`).toBe(expected.rewards.length);
      found.rewards.forEach((reward, i) => expect(reward).toBeCloseTo(expected.rewards[i]!, 12));
      expect({ ...found, rewards: [] }, `seed ${seed}`).toEqual({ ...expected, rewards: [] });
    }
  }
});

test('only the newest are read, however many there are', async () => {
  const newId = idGenerator(clock);
  const root = randomStep(new Prng(1), newId('step'), null);
  await stores.stepLog.append({ steps: [root] });
  const limit = LIMITS.liveTrajectoriesMax;
  const trajectories = Array.from({ length: limit + 500 }, (_, i) =>
    trajectoryOf(newId('trajectory'), root, {
      ...{ policyVersion: 1, status: 'completed', formatOk: true, createdAt: i },
      reward: i < 500 ? 0 : 1,
    }),
  );
  await stores.stepLog.append({ trajectories });
  const { conversations, rewards } = stores.trajectories.liveOutcomes(1, 0);
  expect(conversations).toBe(limit);
  expect(new Set(rewards)).toEqual(new Set([1]));
});
