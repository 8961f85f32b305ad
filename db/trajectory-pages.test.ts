/**
 * Pages of trajectories at a size where plans matter: every combination of filters is answered from
 * an index in its order, pages stay whole while others write, work is cut into bounded slices.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { ManualClock } from '../core/clock.ts';
import { LIMITS } from '../core/limits.ts';
import { freshSeed, Prng } from '../core/prng.ts';
import type { TrajectoryRecord } from '../core/records.ts';
import { randomStep, trajectoryOf } from '../test/fixtures/random-records.ts';
import { openDatabase } from './open.ts';
import type { Database } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';
import { jumpLevel, rewardLevel } from './trajectory-filter.ts';
import type { TrajectoryFilter } from './trajectory-filter.ts';
import { TrajectoryPages } from './trajectory-pages.ts';

let db: Database;
let stores: Stores;
let clock: ManualClock;

beforeEach(() => {
  clock = new ManualClock();
  db = openDatabase(':memory:');
  stores = openStores(db, clock);
});
afterEach(() => {
  stores.close();
});

/** One value of every filter; what can be combined, is. */
const FILTERS: Required<TrajectoryFilter> = {
  policyVersion: 1,
  source: 'live',
  status: 'failed',
  endReason: 'answer',
  taskId: 'task_1',
  trainingRunId: 'trn_1',
  groupId: 'grp_1',
  tenant: 'default',
  conversationId: 'conv_1',
  toolName: 'search',
  rewardMin: 0.3,
  rewardMax: 0.9,
  scored: true,
  entropyJumpMin: 0.2,
  createdFrom: 1,
  createdBefore: 2,
};
const NAMES = Object.keys(FILTERS) as (keyof TrajectoryFilter)[];

/** All 2^15 combinations would take minutes; each pair, each single one and all at once do not. */
function* combinations(): Generator<TrajectoryFilter> {
  yield {};
  yield FILTERS;
  yield { scored: false };
  for (const first of NAMES) {
    for (const second of NAMES) yield { [first]: FILTERS[first], [second]: FILTERS[second] };
  }
}

/** Appends so many trajectories of one step each, 10 ms apart. */
async function fill(
  count: number,
  fields: (i: number) => Partial<TrajectoryRecord>,
  name = 'traj',
): Promise<void> {
  const prng = new Prng(1);
  const root = randomStep(prng, `${name}_root`, null, 4);
  await Promise.all([
    stores.stepLog.append({ steps: [root] }),
    ...Array.from({ length: count }, (_, i) => {
      const id = `${name}_${String(i).padStart(6, '0')}`;
      const record = trajectoryOf(id, root, { createdAt: 1_000_000 + 10 * i, ...fields(i) });
      return stores.stepLog.append({ trajectories: [record] });
    }),
  ]);
}

describe('plans', () => {
  test('every combination of filters searches an index; nothing is scanned or sorted', () => {
    const pages = new TrajectoryPages(db.sqlite);
    let seen = 0;
    for (const filter of combinations()) {
      for (const oldestFirst of [false, true]) {
        for (const { sql, values } of pages.queries(filter, { oldestFirst })) {
          const rows = db.sqlite.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...values);
          const details = (rows as { detail: string }[]).map(({ detail }) => detail);
          const about = `${JSON.stringify(filter)}: ${sql}\n${details.join('\n')}`;
          const wrong = details.filter(
            (detail) => /^SCAN (?!\(subquery)/.test(detail) || /TEMP B-TREE/.test(detail),
          );
          expect(wrong, about).toEqual([]);
          // The walk itself is bounded at both ends by the keys of the page.
          expect(
            details.some((detail) => /INDEX \w+ \(.*>.*<.*\)/.test(detail)),
            about,
          ).toBe(true);
          seen++;
        }
      }
    }
    expect(seen).toBeGreaterThan(1_000);
  });

  test('levels in SQL and in JavaScript are the same', () => {
    const seed = freshSeed();
    const prng = new Prng(seed);
    const odd = [-5, -1, -0.125, 0, 0.05, 0.125, 0.95, 0.9500001, 1, 1.1, 1.25, 1.3, 99];
    const values = [...odd, ...Array.from({ length: 500 }, () => prng.next() * 3 - 1.5)];
    const expressions = ['trajectories_reward', 'trajectories_jump'].map((name) => {
      const sql = db.sqlite
        .prepare<[string], string>('SELECT sql FROM sqlite_master WHERE name = ?')
        .pluck()
        .get(name) as string;
      return /\((\(CASE .* END\))/.exec(sql)?.[1] as string;
    });
    const [reward, jump] = expressions as [string, string];
    const levels = db.sqlite.prepare(
      `SELECT ${reward.replaceAll('"reward"', '@x')} AS reward,
         ${jump.replaceAll('"entropy_jump"', '@x')} AS jump`,
    );
    for (const x of values) {
      const expected = { reward: rewardLevel(x), jump: jumpLevel(x) };
      expect(levels.get({ x }), `seed ${seed}: ${x}`).toEqual(expected);
    }
  });
});

describe('pages', () => {
  test('a reader who pages while others write sees each row that was there once', async () => {
    const fields = (i: number): Partial<TrajectoryRecord> => ({
      source: i % 3 === 0 ? 'live' : 'rollout',
      reward: i % 2,
    });
    await fill(300, fields);
    for (const oldestFirst of [false, true]) {
      const filter: TrajectoryFilter = { source: 'rollout', rewardMin: 0.5 };
      const expected = Array.from({ length: 300 }, (_, i) => i)
        .filter((i) => i % 3 !== 0 && i % 2 === 1)
        .map((i) => `traj_${String(i).padStart(6, '0')}`);
      const seen: string[] = [];
      let cursor: string | null = null;
      let round = 0;
      do {
        const page = { limit: 7, oldestFirst, ...(cursor !== null && { cursor }) };
        const { items, nextCursor } = await stores.trajectories.listInTurns(filter, page);
        seen.push(...items.map(({ id }) => id));
        cursor = nextCursor;
        // Rows before, between and after those that are there, and a changed reward of a seen one.
        const name = `new${oldestFirst ? 'o' : 'n'}${round++}`;
        await fill(3, (i) => ({ ...fields(1), createdAt: 999_995 + 1_500 * i }), name);
        const feedback = { metricName: 'reward', value: 1, tags: {}, createdAt: 1, stepId: null };
        await stores.feedback.record({ ...feedback, id: name, trajectoryId: items[0]?.id ?? '' });
      } while (cursor !== null && round < 200);
      const old = seen.filter((id) => id.startsWith('traj_'));
      expect(old).toEqual(oldestFirst ? expected : expected.reverse());
      expect(new Set(seen).size).toBe(seen.length);
    }
  });

  test('the rarest condition leads, and slices leave nothing out', async () => {
    const rows = 4_050;
    await fill(rows, (i) => ({
      status: i % 10 === 0 ? 'failed' : 'completed',
      endReason: i === 3 || i === rows - 3 ? 'context' : i % 10 === 0 ? 'failed' : 'answer',
      reward: i % 2 === 0 ? 1 : 0,
    }));
    const ids = (filter: TrajectoryFilter): string[] =>
      stores.trajectories.list(filter).items.map(({ id }) => id);
    const name = (i: number): string => `traj_${String(i).padStart(6, '0')}`;
    expect(ids({ status: 'completed', endReason: 'context' })).toEqual([name(rows - 3), name(3)]);
    // Nothing is both, and every slice has to be looked at to know.
    expect(ids({ endReason: 'answer', status: 'failed', rewardMin: 0.5 })).toEqual([]);
    // One in the last slice, found behind two of others.
    expect(ids({ rewardMax: 0.5, rewardMin: -1, createdBefore: 1_000_100 })).toHaveLength(5);
  });

  test('others get their turn between slices, and a page that takes too many ends early', async () => {
    // Both conditions have many rows, and no row has both.
    await fill(16_000, (i) =>
      i % 2 === 0 ? { status: 'failed', endReason: 'failed' } : { endReason: 'answer' },
    );
    const filter: TrajectoryFilter = { status: 'failed', endReason: 'answer' };
    let turns = 0;
    const turn = (): void => void (turns++, (next = setImmediate(turn)));
    let next = setImmediate(turn);
    const page = await stores.trajectories.listInTurns(filter, {});
    clearImmediate(next);
    expect(page).toEqual({ items: [], nextCursor: null });
    expect(turns).toBeGreaterThanOrEqual(2);
    // A page that may look at fewer rows goes on where it stopped, and finds the rest.
    const pages = new TrajectoryPages(db.sqlite, LIMITS.listFirstSliceMicros + 1);
    const first = pages.list(filter, {});
    expect(first.items).toEqual([]);
    const second = pages.list(filter, { cursor: must(first.nextCursor, 'a cursor') });
    expect(second).toEqual({ items: [], nextCursor: null });
  });

  test.each(['', 'x', 'dHJhal8x', '%%%', 'MTI'])('refuses the cursor %j', (cursor) => {
    expect(() => stores.trajectories.list({}, { cursor })).toThrow(
      expect.objectContaining({ code: 'invalid_request', param: 'cursor' }) as Error,
    );
  });

  test('a range of rewards that is upside down holds nothing', async () => {
    await fill(5, () => ({ reward: 0.5 }));
    expect(stores.trajectories.list({ rewardMin: 0.9, rewardMax: 0.1 }).items).toEqual([]);
    expect(stores.trajectories.list({ scored: false, rewardMin: 0 }).items).toEqual([]);
  });
});
