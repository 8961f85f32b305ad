/** The step log: what comes back is what went in, shared prefixes are one chain of rows. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { ManualClock } from '../core/clock.ts';
import { Prng, freshSeed } from '../core/prng.ts';
import type { StepRecord } from '../core/records.ts';
import { chain, randomStep, trajectoryOf } from '../test/fixtures/random-records.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

let folder: string;
let db: Database;
let stores: Stores;
let clock: ManualClock;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-step-log-'));
  reopen();
});
afterEach(() => {
  stores.close();
  rmSync(folder, { recursive: true });
});

function reopen(): void {
  db = openDatabase(join(folder, 'ramify.db'));
  clock = new ManualClock();
  stores = openStores(db, clock);
}

const last = (steps: StepRecord[]): StepRecord => must(steps.at(-1), 'a step');

function rows(table: string): number {
  return db.sqlite.prepare(`SELECT count(*) FROM ${table}`).pluck().get() as number;
}

describe('SqliteStepLog', () => {
  test('every record comes back equal, after a restart too', async () => {
    const seed = freshSeed();
    const prng = new Prng(seed);
    const paths = Array.from({ length: 30 }, (_, i) => chain(prng, `s${i}`, 1 + prng.below(8)));
    const records = paths.map((steps, i) =>
      trajectoryOf(`traj_${i}`, last(steps), {
        source: prng.pick(['live', 'rollout', 'replay', 'eval'] as const),
        conversationId: i % 3 === 0 ? `conv_${i}` : null,
        taskId: i % 2 === 0 ? 'task_1' : null,
        trainingRunId: i % 5 === 0 ? 'trn_1' : null,
        groupId: i % 4 === 0 ? 'grp_1' : null,
        branchedFromStepId: i % 7 === 0 ? must(steps[0], 'root').id : null,
        reward: prng.next() < 0.5 ? prng.next() : null,
        answer: i % 2 === 0 ? 'forty-two' : null,
        formatOk: i % 2 === 0,
      }),
    );
    await Promise.all(
      paths.map((steps, i) =>
        stores.stepLog.append({ steps, trajectories: [must(records[i], 'record')] }),
      ),
    );
    stores.close();
    reopen();
    paths.forEach((steps, i) => {
      const stored = stores.trajectories.get(`traj_${i}`);
      expect(stored, `seed ${seed}`).toEqual({ trajectory: records[i], steps });
    });
  });

  test('blobs are byte-exact, empty and NaN ones included', async () => {
    const tokens = Uint32Array.of(0, 0xffffffff, 0x80000000);
    const floats = new Float32Array(Uint32Array.of(0x7fc12345, 0x80000000, 0xff800000).buffer);
    const root = { ...randomStep(new Prng(1), 'root', null), tokens: new Uint32Array(0) };
    const step: StepRecord = {
      ...randomStep(new Prng(1), 'step', root),
      ...{ tokens, logprobs: floats, behaviourLogprobs: floats, entropies: floats },
    };
    await stores.stepLog.append({ steps: [root, step] });
    const [storedRoot, stored] = stores.trajectories.path('step');
    expect(must(storedRoot, 'root').tokens).toEqual(new Uint32Array(0));
    expect(must(stored, 'step').tokens).toEqual(tokens);
    for (const name of ['logprobs', 'behaviourLogprobs', 'entropies'] as const) {
      const array = must(must(stored, 'step')[name], name);
      expect(new Uint32Array(array.buffer)).toEqual(new Uint32Array(floats.buffer));
    }
  });

  test('what is written is what was appended, whatever the caller does to it afterwards', async () => {
    const step = randomStep(new Prng(2), 'root', null);
    const before = structuredClone(step);
    const trajectory = trajectoryOf('traj_1', step, { answer: 'before' });
    const done = stores.stepLog.append({ steps: [step], trajectories: [trajectory] });
    step.tokens.fill(0);
    step.text = 'after';
    trajectory.answer = 'after';
    await done;
    const stored = stores.trajectories.get('traj_1');
    expect(stored.steps).toEqual([before]);
    expect(stored.trajectory.answer).toBe('before');
  });

  test('a shared prefix is stored once, in whatever order the steps come', async () => {
    const prng = new Prng(3);
    const prefix = chain(prng, 'prefix', 4);
    const branches = Array.from({ length: 8 }, (_, i) => chain(prng, `b${i}`, 2, last(prefix)));
    await Promise.all(
      branches.map((branch, i) =>
        stores.stepLog.append({
          steps: prng.shuffle([...prefix, ...branch]),
          trajectories: [trajectoryOf(`traj_${i}`, last(branch))],
        }),
      ),
    );
    expect(rows('steps')).toBe(4 + 8 * 2);
    branches.forEach((branch, i) => {
      expect(stores.trajectories.get(`traj_${i}`).steps).toEqual([...prefix, ...branch]);
    });
  });

  test('a stored step never changes; only an open tool call gets its result, once', async () => {
    const prng = new Prng(4);
    const root = randomStep(prng, 'root', null);
    const call = {
      id: 'call_1',
      name: 'weather',
      arguments: '{}',
      result: null as string | null,
      error: null,
      durationMs: 0,
      effects: 'none' as const,
      served: 'client' as const,
    };
    const step = { ...randomStep(prng, 'step', root), toolCall: call };
    await stores.stepLog.append({ steps: [root, step] });
    const answered = { ...step, text: 'changed', toolCall: { ...call, result: 'sunny' } };
    await stores.stepLog.append({ steps: [answered] });
    const again = { ...step, toolCall: { ...call, result: 'rainy' } };
    await stores.stepLog.append({ steps: [again] });
    expect(stores.trajectories.path('step')[1]).toEqual({
      ...step,
      toolCall: { ...call, result: 'sunny' },
    });
  });

  test('a trajectory moves on to its newer state and keeps the reward that it has', async () => {
    const steps = chain(new Prng(5), 's', 3);
    const [root, middle, leaf] = steps as [StepRecord, StepRecord, StepRecord];
    const first = trajectoryOf('traj_1', middle, { reward: 0.5, endReason: 'tool_calls' });
    await stores.stepLog.append({ steps: [root, middle], trajectories: [first] });
    const second = { ...first, leafStepId: leaf.id, reward: null, endReason: 'answer' as const };
    await stores.stepLog.append({ steps: [leaf], trajectories: [second] });
    const stored = stores.trajectories.get('traj_1');
    expect(stored.trajectory).toEqual({ ...second, reward: 0.5 });
    expect(stored.steps).toEqual(steps);
  });

  test('a batch whose parent was never appended fails alone and leaves nothing', async () => {
    const prng = new Prng(6);
    const stray = randomStep(prng, 'stray', randomStep(prng, 'unknown', null));
    const good = chain(prng, 'good', 2);
    const results = await Promise.allSettled([
      stores.stepLog.append({ steps: [randomStep(prng, 'kin', null), stray] }),
      stores.stepLog.append({ steps: good }),
    ]);
    expect(results[0]).toMatchObject({
      status: 'rejected',
      reason: { code: 'internal', message: expect.stringContaining('FOREIGN KEY') },
    });
    expect(results[1]).toMatchObject({ status: 'fulfilled' });
    expect(rows('steps')).toBe(2);
  });

  test('figures that do not match the tokens are refused', async () => {
    const step = { ...randomStep(new Prng(7), 'root', null), logprobs: new Float32Array(999) };
    await expect(stores.stepLog.append({ steps: [step] })).rejects.toMatchObject({
      code: 'internal',
    });
    expect(rows('steps')).toBe(0);
  });

  test('a live trajectory becomes the newest of its conversation; a rollout does not', async () => {
    const session = { tenant: 'default', sessionKey: 'key/session' };
    const { id } = await stores.conversations.open(session, { id: 'conv_1', nowMs: 1 });
    const other = await stores.conversations.open(session, { id: 'conv_2', nowMs: 2 });
    expect(other.id).toBe(id);
    const steps = chain(new Prng(8), 's', 2);
    const fields = { conversationId: id };
    await stores.stepLog.append({
      steps,
      trajectories: [
        trajectoryOf('traj_1', last(steps), fields),
        trajectoryOf('traj_2', last(steps), fields),
        trajectoryOf('traj_3', last(steps), { ...fields, source: 'replay' }),
      ],
    });
    expect(stores.conversations.findBySession(session)).toEqual({
      id,
      ...session,
      lastTrajectoryId: 'traj_2',
      createdAt: 1,
      updatedAt: clock.now(),
    });
    expect(stores.conversations.findBySession({ ...session, sessionKey: 'other' })).toBeNull();
  });

  test('a session key is one conversation of each tenant', async () => {
    const open = (tenant: string, id: string) =>
      stores.conversations.open({ tenant, sessionKey: 's' }, { id, nowMs: 1 });
    await open('a', 'conv_a');
    await open('b', 'conv_b');
    expect((await open('a', 'conv_c')).id).toBe('conv_a');
    expect(stores.conversations.findBySession({ tenant: 'b', sessionKey: 's' })?.id).toBe('conv_b');
    expect(stores.conversations.findBySession({ tenant: 'c', sessionKey: 's' })).toBeNull();
  });

  test('no prepared statement scans a table', () => {
    const sources: string[] = [];
    const prepare = db.sqlite.prepare.bind(db.sqlite);
    db.sqlite.prepare = (sql: string) => {
      sources.push(sql);
      return prepare(sql);
    };
    openStores(db, clock);
    db.sqlite.prepare = prepare;
    const plans = sources
      .filter((sql) => /^\s*(WITH|SELECT|INSERT|UPDATE|DELETE)/.test(sql))
      .map((sql) => {
        const explain = `EXPLAIN QUERY PLAN ${sql.replace(/@\w+|\?/g, "'x'")}`;
        return (prepare(explain).all() as { detail: string }[]).map((row) => row.detail);
      });
    expect(plans.length).toBeGreaterThan(5);
    // Only the walks themselves, which are short, are read from end to end.
    const scans = plans
      .flat()
      .filter((detail) => /^SCAN (?!(up|down|path|mate|member|newest|json_each)\b)/.test(detail));
    expect(scans).toEqual([]);
  });

  test('an empty batch resolves without a commit', async () => {
    await stores.stepLog.append({});
    await stores.stepLog.append({ steps: [], trajectories: [] });
    expect(rows('steps')).toBe(0);
  });
});

test('what a client offered is kept with the trajectory, equal lists once', async () => {
  const prng = new Prng(3);
  const steps = chain(prng, 'offer', 2);
  const parameters = { type: 'object', properties: { q: { type: 'string' } } };
  const tools = [{ name: 'find', description: 'Finds.', parameters }];
  const metadata = { order: '17' };
  const trajectories = [
    { ...trajectoryOf('traj_1', last(steps)), offer: { tools, metadata } },
    { ...trajectoryOf('traj_2', last(steps)), offer: { tools, metadata: null } },
    { ...trajectoryOf('traj_3', last(steps)), offer: { tools: [], metadata: null } },
    trajectoryOf('traj_4', last(steps)),
  ];
  await stores.stepLog.append({ steps, trajectories });
  const offers = trajectories.map(({ id }) => stores.trajectories.offerOf(id));
  const none = { tools: [], metadata: null };
  expect(offers).toEqual([{ tools, metadata }, { tools, metadata: null }, none, none]);
  expect(rows('offered_tools')).toBe(1);
});
