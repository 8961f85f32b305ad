/** Reading trajectories: lists against a plain model, pages under inserts, trees, scored counts. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { ManualClock } from '../core/clock.ts';
import { idGenerator } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import { Prng, freshSeed } from '../core/prng.ts';
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';
import { chain, randomStep, trajectoryOf } from '../test/fixtures/random-records.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';
import type { TrajectoryFilter } from './trajectory-filter.ts';

let stores: Stores;
let clock: ManualClock;

beforeEach(() => {
  clock = new ManualClock();
  stores = openStores(openDatabase(':memory:'), clock);
});
afterEach(() => {
  stores.close();
});

const last = (steps: StepRecord[]): StepRecord => must(steps.at(-1), 'a step');

/** The plain model: all trajectories with the tools on their paths, filtered by hand. */
interface Known {
  record: TrajectoryRecord;
  path: StepRecord[];
}

/** NaN where nothing was sampled, which is no less and no more than anything. */
function jumpOf(path: readonly StepRecord[]): number {
  const jumps = path.flatMap(({ deltaEntropy }) => deltaEntropy ?? []);
  return jumps.length === 0 ? NaN : Math.max(...jumps);
}

function fits({ record, path }: Known, filter: TrajectoryFilter): boolean {
  const { reward } = record;
  const tools = path.flatMap((step) => step.toolCall?.name ?? []);
  return (
    (filter.policyVersion === undefined || record.policyVersion === filter.policyVersion) &&
    (filter.source === undefined || record.source === filter.source) &&
    (filter.status === undefined || record.status === filter.status) &&
    (filter.endReason === undefined || record.endReason === filter.endReason) &&
    (filter.entropyJumpMin === undefined || jumpOf(path) >= filter.entropyJumpMin) &&
    (filter.taskId === undefined || record.taskId === filter.taskId) &&
    (filter.trainingRunId === undefined || record.trainingRunId === filter.trainingRunId) &&
    (filter.groupId === undefined || record.groupId === filter.groupId) &&
    (filter.conversationId === undefined || record.conversationId === filter.conversationId) &&
    (filter.toolName === undefined || tools.includes(filter.toolName)) &&
    (filter.rewardMin === undefined || (reward !== null && reward >= filter.rewardMin)) &&
    (filter.rewardMax === undefined || (reward !== null && reward <= filter.rewardMax)) &&
    (filter.scored === undefined || (reward !== null) === filter.scored) &&
    (filter.createdFrom === undefined || record.createdAt >= filter.createdFrom) &&
    (filter.createdBefore === undefined || record.createdAt < filter.createdBefore)
  );
}

function randomFilter(prng: Prng, startMs: number, endMs: number): TrajectoryFilter {
  const filter: TrajectoryFilter = {};
  const maybe = (add: () => void): void => (prng.next() < 0.2 ? add() : undefined);
  const time = (): number => startMs + prng.below(endMs - startMs + 1);
  maybe(() => (filter.policyVersion = 1 + prng.below(3)));
  maybe(() => (filter.source = prng.pick(['live', 'rollout', 'replay', 'eval'] as const)));
  maybe(() => (filter.status = prng.pick(['completed', 'cancelled', 'failed'] as const)));
  maybe(() => (filter.endReason = prng.pick(['answer', 'stop', 'failed'] as const)));
  maybe(() => (filter.entropyJumpMin = prng.next() - 0.5));
  maybe(() => (filter.taskId = `task_${prng.below(3)}`));
  maybe(() => (filter.trainingRunId = `trn_${prng.below(2)}`));
  maybe(() => (filter.groupId = `grp_${prng.below(3)}`));
  maybe(() => (filter.conversationId = `conv_${prng.below(3)}`));
  maybe(() => (filter.toolName = prng.pick(['search', 'javascript', 'http', 'never'])));
  maybe(() => (filter.rewardMin = prng.below(3) / 2));
  maybe(() => (filter.rewardMax = prng.below(3) / 2));
  maybe(() => (filter.scored = prng.next() < 0.5));
  maybe(() => (filter.createdFrom = time()));
  maybe(() => (filter.createdBefore = time()));
  return filter;
}

describe('TrajectoryStore.list', () => {
  test('random appends, rewards and filters agree with a plain model', async () => {
    const seed = freshSeed();
    const prng = new Prng(seed);
    const newId = idGenerator(clock);
    const startMs = clock.now();
    const known: Known[] = [];
    const nullable = <T>(make: () => T): T | null => (prng.next() < 0.5 ? make() : null);
    for (let operation = 0; operation < 600; operation++) {
      clock.advance(prng.below(5));
      const kind = prng.next();
      if (kind < 0.5 || known.length === 0) {
        // A new root, or a branch below some step that is there.
        const base = nullable(() => prng.pick(prng.pick([...known, { path: [] }]).path));
        const prefix = base ? stores.trajectories.path(base.id) : [];
        const path = [...prefix, ...chain(prng, newId('step'), 1 + prng.below(4), base ?? null)];
        const record = trajectoryOf(newId('trajectory'), last(path), {
          source: prng.pick(['live', 'rollout', 'replay', 'eval'] as const),
          taskId: nullable(() => `task_${prng.below(3)}`),
          trainingRunId: nullable(() => `trn_${prng.below(2)}`),
          groupId: nullable(() => `grp_${prng.below(3)}`),
          conversationId: nullable(() => `conv_${prng.below(3)}`),
          status: prng.pick(['completed', 'cancelled', 'failed'] as const),
          endReason: prng.pick(['answer', 'stop', 'failed'] as const),
          reward: nullable(() => prng.below(3) / 2),
          createdAt: clock.now(),
        });
        await appendNow(path, record);
        known.push({ record, path });
      } else if (kind < 0.6) {
        const { record } = prng.pick(known);
        record.reward = prng.below(3) / 2;
        await rewardNow(newId('feedback'), record);
      } else {
        const filter = randomFilter(prng, startMs, clock.now());
        const expected = known.filter((one) => fits(one, filter)).reverse();
        const listed = readAll(filter, 1 + prng.below(7));
        const context = `seed ${seed}, operation ${operation}, ${JSON.stringify(filter)}`;
        expect(listed, context).toEqual(expected.map(({ record }) => record));
      }
    }
  });

  test('pages neither repeat nor lose a row while rows are added', async () => {
    const newId = idGenerator(clock);
    const prng = new Prng(freshSeed());
    const add = async (): Promise<string> => {
      const root = randomStep(prng, newId('step'), null);
      const record = trajectoryOf(newId('trajectory'), root);
      await appendNow([root], record);
      return record.id;
    };
    const before: string[] = [];
    for (let i = 0; i < 25; i++) before.push(await add());
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = stores.trajectories.list({}, { limit: 4, cursor });
      seen.push(...page.items.map(({ id }) => id));
      expect(seen.length).toBeLessThan(1_000);
      cursor = page.nextCursor ?? undefined;
      await add();
      await add();
    } while (cursor !== undefined);
    expect(seen).toEqual(before.reverse());
  });

  test('oldest first is the same list the other way round, in pages too', async () => {
    const root = randomStep(new Prng(1), 'step_0', null);
    const trajectories = [1, 2, 3, 4, 5].map((i) => trajectoryOf(`traj_${i}`, root));
    await stores.stepLog.append({ steps: [root], trajectories });
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page = { limit: 2, oldestFirst: true, ...(cursor !== null && { cursor }) };
      const { items, nextCursor } = stores.trajectories.list({ source: 'live' }, page);
      seen.push(...items.map(({ id }) => id));
      cursor = nextCursor;
    } while (cursor !== null);
    expect(seen).toEqual(['traj_1', 'traj_2', 'traj_3', 'traj_4', 'traj_5']);
  });

  test('a limit out of range is refused, the last page says so', async () => {
    for (const limit of [0, -1, 1.5, Number.NaN, LIMITS.pageItemsMax + 1]) {
      expect(() => stores.trajectories.list({}, { limit })).toThrow(
        expect.objectContaining({ code: 'invalid_request', param: 'limit' }),
      );
    }
    expect(stores.trajectories.list()).toEqual({ items: [], nextCursor: null });
    const root = randomStep(new Prng(1), 'root', null);
    await appendNow([root], trajectoryOf('traj_1', root));
    expect(stores.trajectories.list({}, { limit: 1 }).nextCursor).toBeNull();
  });
});

describe('TrajectoryStore.tree', () => {
  test('holds all that share the root or the group, each step once, parents first', async () => {
    const prng = new Prng(11);
    const trunk = chain(prng, 'trunk', 3);
    const left = chain(prng, 'left', 2, last(trunk));
    const right = chain(prng, 'right', 2, trunk[1]);
    const sibling = chain(prng, 'sibling', 2);
    const foreign = chain(prng, 'foreign', 2);
    await appendNow([...trunk, ...left], trajectoryOf('traj_1', last(left), { groupId: 'grp_1' }));
    await appendNow(right, trajectoryOf('traj_2', last(right)));
    await appendNow(sibling, trajectoryOf('traj_3', last(sibling), { groupId: 'grp_1' }));
    await appendNow(foreign, trajectoryOf('traj_4', last(foreign), { groupId: 'grp_2' }));
    const tree = stores.trajectories.tree('traj_1');
    expect(tree.trajectories.map(({ id }) => id)).toEqual(['traj_1', 'traj_2', 'traj_3']);
    expect(tree.truncated).toBe(false);
    const expected = [...trunk, ...left, ...right, ...sibling];
    expect(new Set(tree.steps.map(({ id }) => id))).toEqual(new Set(expected.map(({ id }) => id)));
    expect(tree.steps).toHaveLength(expected.length);
    const place = new Map(tree.steps.map((step, index) => [step.id, index]));
    for (const [index, step] of tree.steps.entries()) {
      expect(expected).toContainEqual(step);
      if (step.parentId !== null) expect(place.get(step.parentId)).toBeLessThan(index);
    }
    // One without a group sees its root's forest only.
    const seen = stores.trajectories.tree('traj_2').trajectories.map(({ id }) => id);
    expect(seen).toEqual(['traj_1', 'traj_2']);
  });

  test('a tree over the limit is cut, and holds the asked trajectory all the same', async () => {
    const root = randomStep(new Prng(12), 'root', null);
    const many = Array.from({ length: LIMITS.treeTrajectoriesMax + 1 }, (_, i) =>
      trajectoryOf(`traj_${String(i).padStart(5, '0')}`, root),
    );
    const done = stores.stepLog.append({ steps: [root], trajectories: many });
    stores.stepLog.flush();
    await done;
    const asked = must(many.at(-1), 'last').id;
    const tree = stores.trajectories.tree(asked);
    expect(tree.truncated).toBe(true);
    expect(tree.trajectories).toHaveLength(LIMITS.treeTrajectoriesMax);
    expect(tree.trajectories.at(-1)?.id).toBe(asked);
  });
});

describe('TrajectoryStore', () => {
  test('unknown ids are said by name', () => {
    const unknown = expect.objectContaining({
      code: 'trajectory_not_found',
      message: 'no trajectory has the id traj_9',
    });
    expect(() => stores.trajectories.get('traj_9')).toThrow(unknown);
    expect(() => stores.trajectories.tree('traj_9')).toThrow(unknown);
    expect(stores.trajectories.find('traj_9')).toBeNull();
    expect(stores.trajectories.findByStep('step_9')).toBeNull();
    expect(stores.trajectories.path('step_9')).toEqual([]);
  });

  test('a step finds the newest trajectory through it', async () => {
    const prng = new Prng(13);
    const trunk = chain(prng, 'trunk', 2);
    const left = chain(prng, 'left', 1, last(trunk));
    const right = chain(prng, 'right', 1, last(trunk));
    await appendNow([...trunk, ...left], trajectoryOf('traj_1', last(left)));
    await appendNow(right, trajectoryOf('traj_2', last(right)));
    expect(stores.trajectories.findByStep('trunk-0')?.id).toBe('traj_2');
    expect(stores.trajectories.findByStep('left-0')?.id).toBe('traj_1');
  });

  test('a continuation key finds the newest trajectory that was logged with it', async () => {
    const root = randomStep(new Prng(15), 'root', null);
    const keyed = (id: string, continuationKey?: string): Promise<void> =>
      appendNow([root], trajectoryOf(id, root, { ...(continuationKey && { continuationKey }) }));
    await keyed('traj_1', 'a');
    await keyed('traj_3', 'a');
    await keyed('traj_2', 'a');
    await keyed('traj_4', 'b');
    await keyed('traj_5');
    expect(stores.trajectories.newestByContinuationKey('a', 'default')).toEqual(
      trajectoryOf('traj_3', root),
    );
    expect(stores.trajectories.newestByContinuationKey('b', 'default')?.id).toBe('traj_4');
    expect(stores.trajectories.newestByContinuationKey('c', 'default')).toBeNull();
    expect(stores.trajectories.newestByContinuationKey('a', 'other')).toBeNull();
  });

  test('a tenant sees its own live trajectories, the operator all', async () => {
    const { trajectories } = stores;
    const root = randomStep(new Prng(16), 'root', null);
    const add = (id: string, fields: Partial<TrajectoryRecord>): Promise<void> =>
      appendNow([root], trajectoryOf(id, root, { groupId: 'group', ...fields }));
    await add('traj_1', { tenant: 'a' });
    await add('traj_2', { tenant: 'b' });
    await add('traj_3', { tenant: 'a', source: 'rollout' });
    const ids = (records: readonly TrajectoryRecord[]): string[] => records.map(({ id }) => id);
    expect(ids(trajectories.list({ tenant: 'a' }).items)).toEqual(['traj_1']);
    expect(ids(trajectories.list({ tenant: 'b', groupId: 'group' }).items)).toEqual(['traj_2']);
    expect(ids(trajectories.list({ tenant: 'a', source: 'rollout' }).items)).toEqual([]);
    expect(trajectories.list().items).toHaveLength(3);
    expect(ids(trajectories.tree('traj_1', 'a').trajectories)).toEqual(['traj_1']);
    expect(trajectories.tree('traj_1').trajectories).toHaveLength(3);
    expect(trajectories.findByStep('root')?.id).toBe('traj_3');
    expect(trajectories.findByStep('root', 'b')?.id).toBe('traj_2');
    expect(trajectories.findByStep('root', 'c')).toBeNull();
    expect(trajectories.get('traj_1', 'a').trajectory.tenant).toBe('a');
    const unknown = expect.objectContaining({ code: 'trajectory_not_found' });
    for (const id of ['traj_2', 'traj_3']) {
      expect(() => trajectories.get(id, 'a')).toThrow(unknown);
      expect(() => trajectories.tree(id, 'a')).toThrow(unknown);
      expect(trajectories.find(id, 'a')).toBeNull();
    }
  });

  test('counts live agent runs by the time of their reward, not of their making', async () => {
    const root = randomStep(new Prng(14), 'root', null);
    const startMs = clock.now();
    await appendNow([root], trajectoryOf('traj_1', root, { reward: 1 }));
    await appendNow([], trajectoryOf('traj_2', root));
    await appendNow([], trajectoryOf('traj_3', root, { reward: 1, source: 'rollout' }));
    // A chat completion is never trained on.
    await appendNow([], trajectoryOf('traj_4', root, { reward: 1 }));
    for (const id of ['1', '2', '3']) await runNow(`run_${id}`, `traj_${id}`);
    expect(stores.trajectories.countNewScored(startMs - 1)).toBe(1);
    expect(stores.trajectories.countNewScored(startMs)).toBe(0);
    clock.advance(1_000);
    await rewardNow('fb_1', { ...trajectoryOf('traj_2', root), reward: 0 });
    expect(stores.trajectories.countNewScored(startMs)).toBe(1);
    // The same reward written again is no new one.
    clock.advance(1_000);
    await appendNow([], trajectoryOf('traj_1', root, { reward: 1 }));
    expect(stores.trajectories.countNewScored(startMs + 1_000)).toBe(0);
  });
});

/** Without the wait for others to join. */
async function appendNow(steps: StepRecord[], trajectory: TrajectoryRecord): Promise<void> {
  const done = stores.stepLog.append({ steps, trajectories: [trajectory] });
  stores.stepLog.flush();
  await done;
}

async function runNow(id: string, trajectoryId: string): Promise<void> {
  const none = { policyVersion: 1, answer: null, usage: null, error: null, endedAt: null };
  const own = { conversationId: null, leafStepId: null, waitsUntil: null, progress: null };
  const done = stores.agentRuns.create({
    ...{ id, trajectoryId, ...none, ...own, startedAt: null, keyId: null, tenant: 'default' },
    status: 'completed',
    model: 'ramify',
    request: { input: 'x' },
    createdAt: clock.now(),
  });
  stores.stepLog.flush();
  await done;
}

async function rewardNow(
  id: string,
  { id: trajectoryId, reward }: TrajectoryRecord,
): Promise<void> {
  const done = stores.feedback.record({
    id,
    trajectoryId,
    stepId: null,
    metricName: 'reward',
    value: must(reward, 'reward'),
    tags: {},
    createdAt: clock.now(),
  });
  stores.stepLog.flush();
  await done;
}

function readAll(filter: TrajectoryFilter, limit: number): TrajectoryRecord[] {
  const all: TrajectoryRecord[] = [];
  let cursor: string | undefined;
  do {
    const page = stores.trajectories.list(filter, { limit, cursor });
    expect(page.items.length).toBeLessThanOrEqual(limit);
    all.push(...page.items);
    // A cursor that does not move would go on for ever.
    expect(all.length).toBeLessThan(1_000);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  return all;
}
