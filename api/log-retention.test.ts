/**
 * A log that forgets, on a database on disk: by age and by size, exported before it is deleted, and
 * nothing deleted that is not exported. What is archived comes back as it was.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../core/clock.ts';
import { LIMITS } from '../core/limits.ts';
import { quiet } from '../core/log.ts';
import { Prng } from '../core/prng.ts';
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';
import type { Database } from '../db/open.ts';
import { openDatabase } from '../db/open.ts';
import type { Stores } from '../db/stores.ts';
import { openStores } from '../db/stores.ts';
import { chain, trajectoryOf } from '../test/fixtures/random-records.ts';
import { LogArchive } from './log-archive.ts';
import type { KeepSettings } from './log-retention.ts';
import { LogRetention } from './log-retention.ts';
import { TrajectoryImport } from './trajectory-import.ts';
import { readTrajectoryLine } from './trajectory-lines.ts';

const DAY = 24 * 3_600_000;

let folder: string;
let archive: string;
let db: Database;
let stores: Stores;
let clock: ManualClock;
let warnings: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-retention-'));
  archive = join(folder, 'archive');
  clock = new ManualClock();
  db = openDatabase(join(folder, 'ramify.db'));
  stores = openStores(db, clock);
  warnings = [];
});
afterEach(() => {
  stores.close();
  rmSync(folder, { recursive: true });
});

function retention(keep: Partial<KeepSettings>): LogRetention {
  const warn = (_: object, message: string): void => void warnings.push(message);
  return new LogRetention({
    ...{ stores, keep: { days: null, bytes: null, ...keep }, folder: archive, clock },
    logger: { ...quiet, warn },
  });
}

const ids = (table = 'trajectories', of = db): string[] =>
  of.sqlite.prepare<[], string>(`SELECT id FROM ${table} ORDER BY id`).pluck().all();

interface Forest {
  steps: StepRecord[];
  trajectories: TrajectoryRecord[];
}

/** Three trajectories below two shared steps, with a rating of one of them. */
async function forest(name: string, ageDays: number, length = 3): Promise<Forest> {
  const prng = new Prng(ageDays * 1_000);
  const root = chain(prng, `step_${name}_root`, 2);
  const paths = [0, 1, 2].map((k) => chain(prng, `step_${name}_${k}`, length, root[1]));
  const tools = [{ name: 'find', description: 'Finds "é".', parameters: { type: 'object' } }];
  const trajectories = paths.map((path, k) =>
    trajectoryOf(`traj_${name}_${k}`, path.at(-1)!, {
      createdAt: clock.now() - ageDays * DAY + k,
      conversationId: `conv_${name}`,
      branchedFromStepId: k === 0 ? null : root[1]!.id,
      reward: k === 0 ? 0.25 : null,
      offer: { tools, metadata: { order: name } },
    }),
  );
  const steps = [...root, ...paths.flat()];
  await stores.stepLog.append({ steps, trajectories });
  const of = { trajectoryId: trajectories[1]!.id, tags: { who: 'é' }, createdAt: clock.now() };
  const rated = { metricName: 'reward', value: 0.5, stepId: null };
  await stores.feedback.record({ id: `fb_${name}_a`, ...of, ...rated });
  const said = { metricName: 'comment', value: 'good', stepId: root[1]!.id };
  await stores.feedback.record({ id: `fb_${name}_b`, ...of, ...said });
  return { steps, trajectories };
}

const files = (): string[] => readdirSync(archive).sort();
const lines = (name: string): string[] =>
  gunzipSync(readFileSync(join(archive, name)))
    .toString()
    .trimEnd()
    .split('\n');
const archived = (name: string): string[] =>
  lines(name).map((line) => readTrajectoryLine(line).trajectory.id);

/** Into an empty database on disk; it must be closed. */
async function imported(names: readonly string[]): Promise<{ db: Database; stores: Stores }> {
  const other = openDatabase(':memory:');
  const into = openStores(other, clock);
  for (const name of names) {
    const all = new TrajectoryImport(into);
    for (const line of lines(name)) await all.add(readTrajectoryLine(line));
    await all.flush();
  }
  return { db: other, stores: into };
}

/** All rows of the log, but for columns that an export does not have. */
function rowsOf(of: Database): Record<string, unknown[]> {
  const without: Record<string, string[]> = {
    steps: [],
    tool_calls: [],
    trajectories: ['rewarded_at', 'training_step', 'continuation_key', 'consumed_by'],
    trajectory_tools: [],
    feedback: ['late'],
    offered_tools: [],
  };
  return Object.fromEntries(
    Object.entries(without).map(([table, left]) => {
      const rows = of.sqlite.prepare<[], Record<string, unknown>>(`SELECT * FROM ${table}`).all();
      const kept = rows.map((row) =>
        Object.fromEntries(Object.entries(row).filter(([column]) => !left.includes(column))),
      );
      const text = (row: object): string => JSON.stringify(row);
      return [table, kept.sort((a, b) => (text(a) < text(b) ? -1 : 1))];
    }),
  );
}

describe('by age', () => {
  test('what is older goes to a file of the day, what is younger stays', async () => {
    const [old, young] = [await forest('old', 10), await forest('young', 9.9)];
    await retention({ days: 10 - 1 / 86_400 }).look();
    expect(ids()).toEqual(young.trajectories.map(({ id }) => id));
    expect(ids('steps')).toEqual(young.steps.map(({ id }) => id).sort());
    expect(ids('feedback')).toEqual(['fb_young_a', 'fb_young_b']);
    expect(ids('conversations')).toEqual(['conv_young']);
    expect(files()).toHaveLength(1);
    expect(files()[0]).toMatch(/^2026-01-01-000000\d{3}-[0-9a-f]{8}\.jsonl\.gz$/);
    expect(archived(files()[0]!)).toEqual(old.trajectories.map(({ id }) => id));
    expect(warnings).toEqual([]);
  });

  test('a look that finds nothing leaves no file; the next file has a later name', async () => {
    const looks = retention({ days: 5 });
    await forest('young', 3);
    await looks.look();
    expect(existsSync(archive)).toBe(false);
    clock.advance(3 * DAY);
    await looks.look();
    await forest('other', 6);
    await looks.look();
    expect(files().map((name) => archived(name)[0])).toEqual(['traj_young_0', 'traj_other_0']);
    expect(ids()).toEqual([]);
  });

  test('no name comes back when files, or the folder, are moved away', async () => {
    const looks = retention({ days: 5 });
    const seen: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      await forest(name, 6);
      await looks.look();
      expect(files()).toHaveLength(1);
      seen.push(...files());
      rmSync(name === 'a' ? join(archive, files()[0]!) : archive, { recursive: true });
    }
    expect(new Set(seen).size).toBe(3);
    expect(seen).toEqual([...seen].sort());
    // Nor in the next process, in the same millisecond.
    await forest('d', 6);
    await retention({ days: 5 }).look();
    expect(seen).not.toContain(files()[0]);
    expect(ids()).toEqual([]);
    expect(warnings).toEqual([]);
  });

  test('the archive gives an empty database equal rows, also when it is imported again', async () => {
    for (let i = 0; i < 12; i++) await forest(`old${i}`, 20 + i, 1 + (i % 4));
    const before = rowsOf(db);
    await retention({ days: 7 }).look();
    for (const rows of Object.values(rowsOf(db))) expect(rows).toEqual([]);
    const once = await imported(files());
    expect(rowsOf(once.db)).toEqual(before);
    expect(once.db.sqlite.pragma('foreign_key_check')).toEqual([]);
    once.stores.close();
    const twice = await imported([...files(), ...files()]);
    expect(rowsOf(twice.db)).toEqual(before);
    twice.stores.close();
  });

  test('while a training run needs the log all of it stays', async () => {
    await forest('old', 10);
    const counts = { rollouts: 0, branches: 0, toolCallsExecuted: 0, toolCallsSaved: 0 };
    stores.training.create({
      ...{ id: 'trn_a', status: 'running', trigger: 'request', algorithm: 'arpo', settings: {} },
      ...{ baseVersion: 1, candidateVersion: null, step: 0, steps: 1, gate: null, error: null },
      ...{ counts: { ...counts, tokensSampled: 0 }, createdAt: 1, startedAt: 1, endedAt: null },
    });
    const looks = retention({ days: 5, bytes: 1 });
    await looks.look();
    await looks.look();
    expect(ids()).toHaveLength(3);
    expect(existsSync(archive)).toBe(false);
    expect(warnings).toEqual(['the log is too large, but a training run needs it as it is']);
    stores.training.update('trn_a', { status: 'failed', endedAt: 2 });
    await looks.look();
    expect(ids()).toEqual([]);
  });

  test('expired answers go too', async () => {
    const answer = { digest: 'd', status: 200, headers: {}, body: new Uint8Array(3) };
    const keep = (tenant: string, key = 'k'): Promise<void> =>
      stores.answers.keep({ tenant, key, ...answer, createdAt: clock.now() });
    await Promise.all(['a', 'b', 'z'].map((tenant) => keep(tenant)));
    await Promise.all(Array.from({ length: 150 }, (_, i) => keep('many', `k${i}`)));
    clock.advance(LIMITS.idempotencyKeptMs);
    await keep('last');
    await retention({ days: 5 }).look();
    const tenants = db.sqlite.prepare('SELECT tenant FROM kept_answers').pluck().all();
    expect(tenants).toEqual(['last']);
  });
});

describe('by size', () => {
  /** Larger than the pages of the tables alone, in the order of their names. */
  async function fill(count: number): Promise<void> {
    const days = Array.from({ length: count }, (_, i) => 30 - i / 100);
    await Promise.all(days.map((age, i) => forest(`${1_000 + i}`, age, 12)));
  }

  test('the oldest go until the database is within the bound, and its file gets smaller', async () => {
    await fill(120);
    const { usedBytes } = stores.logRemoval;
    const bytes = Math.round(0.6 * usedBytes);
    const all = ids();
    const pages = db.sqlite.pragma('page_count', { simple: true }) as number;
    await retention({ bytes }).look();
    expect(stores.logRemoval.usedBytes).toBeLessThanOrEqual(bytes);
    expect(stores.logRemoval.usedBytes).toBeGreaterThan(0.8 * bytes);
    const left = ids();
    expect(left.length).toBeGreaterThan(all.length / 3);
    expect(left).toEqual(all.slice(-left.length));
    expect(files().flatMap(archived)).toEqual(all.slice(0, -left.length));
    expect(db.sqlite.pragma('page_count', { simple: true })).toBeLessThan(0.75 * pages);
    expect(db.sqlite.pragma('integrity_check', { simple: true })).toBe('ok');
    expect(warnings).toEqual([]);
  });

  test('a little more goes than must, so that a look makes one file', async () => {
    await fill(400);
    const bytes = stores.logRemoval.usedBytes;
    const looks = retention({ bytes });
    for (let i = 0; i < 8; i++) {
      await forest(`new${i}`, 2 - i / 10, 24);
      await looks.look();
      expect(stores.logRemoval.usedBytes).toBeLessThanOrEqual(bytes);
    }
    expect(files().length).toBeLessThanOrEqual(8);
    for (const name of files()) expect(archived(name).length).toBeGreaterThan(9);
  });

  test('failed runs, and conversations without a name, go before what is younger', async () => {
    await fill(20);
    const at = (ageDays: number): number => clock.now() - ageDays * DAY;
    const failed = async (id: string, createdAt: number): Promise<void> => {
      await stores.agentRuns.create({
        ...{ id, status: 'failed', tenant: 'default', model: 'ramify', policyVersion: 1 },
        ...{ request: {}, trajectoryId: null, answer: null, usage: null, error: null, createdAt },
        ...{ startedAt: createdAt, endedAt: createdAt, conversationId: null, leafStepId: null },
        ...{ waitsUntil: null, progress: null, keyId: null },
      });
      const key = { tenant: 'default', sessionKey: id };
      await stores.conversations.open(key, { id: `conv_0${id}`, nowMs: createdAt });
    };
    await failed('run_a', at(31));
    await failed('run_b', at(29.95));
    await failed('run_c', at(1));
    const bytes = stores.logRemoval.usedBytes;
    await retention({ bytes }).look();
    expect(ids('agent_runs')).toEqual(['run_a', 'run_b', 'run_c']);
    await retention({ bytes: 0.6 * bytes }).look();
    expect(ids()).not.toEqual([]);
    expect(ids('agent_runs')).toEqual(['run_c']);
    expect(ids('conversations')).toContain('conv_0run_c');
    expect(ids('conversations').filter((id) => id.startsWith('conv_0'))).toHaveLength(1);
  });

  test('within the bound nothing goes', async () => {
    await fill(3);
    await retention({ bytes: stores.logRemoval.usedBytes }).look();
    expect(ids()).toHaveLength(9);
  });

  test('that nothing is left to remove is said once, and again after it was otherwise', async () => {
    await fill(3);
    const looks = retention({ bytes: 1 });
    await looks.look();
    expect(ids()).toEqual([]);
    await looks.look();
    expect(warnings).toEqual(['nothing more of the log may be removed']);
  });

  test('what may not go is passed over', async () => {
    await fill(3);
    const kept = stores.trajectories.get('traj_1000_0').trajectory;
    stores.recentUse.note(kept.id);
    await retention({ bytes: 1 }).look();
    expect(ids()).toEqual([kept.id]);
    expect(stores.trajectories.get(kept.id).steps).toHaveLength(14);
  });
});

describe('when the archive fails', () => {
  test('nothing is deleted, it is said once, and tried again', async () => {
    await forest('old', 10);
    const before = rowsOf(db);
    writeFileSync(archive, 'in the way');
    const looks = retention({ days: 5 });
    await looks.look();
    await looks.look();
    expect(rowsOf(db)).toEqual(before);
    expect(warnings).toEqual(['the log could not be made smaller']);
    rmSync(archive);
    await looks.look();
    expect(ids()).toEqual([]);
    expect(archived(files()[0]!)).toHaveLength(3);
    rmSync(archive, { recursive: true });
    writeFileSync(archive, 'in the way');
    await forest('other', 11);
    await looks.look();
    expect(warnings).toHaveLength(2);
    expect(ids()).toHaveLength(3);
  });

  test('a process that ends between archive and deletion leaves it in both', async () => {
    const { trajectories } = await forest('old', 10);
    const names = trajectories.map(({ id }) => id);
    const before = rowsOf(db);
    const first = new LogArchive({ stores, folder: archive, clock });
    await first.write(names, new AbortController().signal);
    writeFileSync(join(archive, 'other.jsonl.gz.partial'), 'half');
    stores.close();
    db = openDatabase(join(folder, 'ramify.db'));
    stores = openStores(db, clock);
    expect(rowsOf(db)).toEqual(before);
    await retention({ days: 5 }).look();
    expect(ids()).toEqual([]);
    expect(files()).toHaveLength(2);
    for (const name of files()) expect(archived(name)).toEqual(names);
    const back = await imported(files());
    expect(rowsOf(back.db)).toEqual(before);
    back.stores.close();
  });

  test('a stop ends the work at the next piece, and leaves no half file', async () => {
    for (let i = 0; i < 40; i++) await forest(`${1_000 + i}`, 10);
    const looks = retention({ days: 5 });
    const looking = looks.look();
    const isBegun = (): boolean => existsSync(archive) && files().length > 0;
    while (!isBegun()) await nextTurn();
    expect(files()[0]).toMatch(/\.partial$/);
    await looks.stop();
    await looking;
    expect(ids()).toHaveLength(120);
    expect(files()).toEqual([]);
    const next = retention({ days: 5 });
    const nextLook = next.look();
    while (ids().length === 120) await nextTurn();
    await next.stop();
    await nextLook;
    expect(ids().length).toBeGreaterThan(0);
    expect(files()).toHaveLength(1);
    expect(archived(files()[0]!)).toHaveLength(120);
    expect(warnings).toEqual([]);
  });
});
