/** Feedback: kept as history, idempotent by id, and the latest reward counts. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { ManualClock } from '../core/clock.ts';
import { Prng } from '../core/prng.ts';
import type { Feedback } from '../core/records.ts';
import { chain, trajectoryOf } from '../test/fixtures/random-records.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

let stores: Stores;

beforeEach(async () => {
  stores = openStores(openDatabase(':memory:'), new ManualClock());
  const prng = new Prng(1);
  const trunk = chain(prng, 'trunk', 2);
  const other = chain(prng, 'other', 1, trunk[1]);
  await stores.stepLog.append({
    steps: [...trunk, ...other],
    trajectories: [
      trajectoryOf('traj_1', must(trunk[1], 'leaf')),
      trajectoryOf('traj_2', must(other[0], 'leaf')),
    ],
  });
});
afterEach(() => {
  stores.close();
});

function given(fields: Partial<Feedback> = {}): Feedback {
  return {
    id: 'fb_1',
    trajectoryId: 'traj_1',
    stepId: null,
    metricName: 'reward',
    value: 0.5,
    tags: { user: 'ann', channel: 'web' },
    createdAt: 100,
    ...fields,
  };
}

const reward = (): number | null => stores.trajectories.get('traj_1').trajectory.reward;

describe('FeedbackStore', () => {
  test('the latest reward of each step, in one query', async () => {
    const step = (id: string, stepId: string, fields: Partial<Feedback> = {}): Feedback =>
      given({ id, stepId, ...fields });
    const all = [
      step('z', 'trunk-0', { value: 0.1 }),
      step('y', 'trunk-1', { value: 0.2 }),
      step('x', 'trunk-0', { value: 0.9 }),
      step('w', 'trunk-0', { value: 0.3 }),
      step('v', 'trunk-0', { metricName: 'stars', value: 5 }),
      given({ id: 'u', value: 0.7 }),
      step('t', 'other-0', { trajectoryId: 'traj_2', value: 0.4 }),
    ];
    for (const feedback of all) await stores.feedback.record(feedback);
    const rewards = stores.feedback.stepRewards('traj_1');
    expect(Object.fromEntries(rewards)).toEqual({ 'trunk-0': 0.3, 'trunk-1': 0.2 });
    expect(stores.feedback.stepRewards('traj_none').size).toBe(0);
  });

  test('numbers, booleans and texts come back as they were', async () => {
    const all = [
      given({ id: 'c', value: -0.25 }),
      given({ id: 'b', metricName: 'thumb', value: false, tags: {} }),
      given({ id: 'a', metricName: 'comment', value: 'true, "quoted"', stepId: 'trunk-1' }),
    ];
    for (const feedback of all) {
      const stored = { ...feedback, late: false };
      expect(await stores.feedback.record(feedback)).toEqual({ feedback: stored, created: true });
    }
    const stored = all.map((feedback) => ({ ...feedback, late: false }));
    expect(stores.feedback.list('traj_1').items).toEqual(stored);
    expect(stores.feedback.list('traj_2').items).toEqual([]);
  });

  test('the same feedback again is answered with the stored one; other content conflicts', async () => {
    await stores.feedback.record(given());
    // Tags in another order and a later time are the same content.
    const again = given({ tags: { channel: 'web', user: 'ann' }, createdAt: 999 });
    const stored = given({ late: false });
    expect(await stores.feedback.record(again)).toEqual({ feedback: stored, created: false });
    for (const change of [
      { value: 0.6 },
      { trajectoryId: 'traj_2' },
      { metricName: 'comment' },
      { stepId: 'trunk-1' },
      { tags: {} },
    ]) {
      await expect(stores.feedback.record(given(change))).rejects.toMatchObject({
        code: 'feedback_conflict',
        param: 'id',
      });
    }
    expect(stores.feedback.list('traj_1').items).toEqual([stored]);
  });

  test('the latest reward counts, a repeated older one does not, history is kept', async () => {
    await stores.feedback.record(given({ id: 'fb_1', value: 1 }));
    expect(reward()).toBe(1);
    await stores.feedback.record(given({ id: 'fb_2', value: 0 }));
    expect(reward()).toBe(0);
    await stores.feedback.record(given({ id: 'fb_1', value: 1 }));
    expect(reward()).toBe(0);
    await stores.feedback.record(given({ id: 'fb_3', metricName: 'comment', value: 'late' }));
    expect(reward()).toBe(0);
    expect(stores.feedback.list('traj_1').items.map(({ id }) => id)).toEqual([
      'fb_1',
      'fb_2',
      'fb_3',
    ]);
  });

  test('unknown targets and rewards that are no numbers are refused and leave nothing', async () => {
    const refused: [Partial<Feedback>, string][] = [
      [{ trajectoryId: 'traj_9' }, 'trajectory_not_found'],
      [{ stepId: 'step_9' }, 'step_not_found'],
      [{ stepId: 'other-0' }, 'step_not_found'],
      [{ value: 'good' }, 'invalid_request'],
      [{ value: true }, 'invalid_request'],
      [{ value: Number.NaN }, 'invalid_request'],
    ];
    for (const [fields, code] of refused) {
      await expect(stores.feedback.record(given(fields))).rejects.toMatchObject({ code });
    }
    expect(stores.feedback.list('traj_1').items).toEqual([]);
    expect(reward()).toBeNull();
    // The other trajectory does hold that step.
    await stores.feedback.record(given({ trajectoryId: 'traj_2', stepId: 'other-0' }));
  });

  test('what comes after a training run had the trajectory is late, and only that', async () => {
    await stores.feedback.record(given({ id: 'before' }));
    await stores.feedback.markConsumed(['traj_1'], 'trn_1');
    await stores.feedback.markConsumed(['traj_1'], 'trn_2');
    await stores.feedback.record(given({ id: 'after' }));
    await stores.feedback.record(given({ id: 'other', trajectoryId: 'traj_2' }));
    // The same again stays what it was.
    const again = await stores.feedback.record(given({ id: 'before' }));
    expect(again).toMatchObject({ created: false, feedback: { late: false } });
    const late = (id: string): unknown[] =>
      stores.feedback.list(id).items.map((item) => [item.id, item.late]);
    expect(late('traj_1')).toEqual([
      ['before', false],
      ['after', true],
    ]);
    expect(late('traj_2')).toEqual([['other', false]]);
    // The row of the trajectory that is logged again keeps the mark.
    const { trajectory } = stores.trajectories.get('traj_1');
    await stores.stepLog.append({ trajectories: [trajectory] });
    const later = await stores.feedback.record(given({ id: 'later' }));
    expect(later.feedback.late).toBe(true);
  });

  test('feedback of a rollout is late: its own run has had it', async () => {
    const leaf = must(stores.trajectories.path('trunk-1')[1], 'leaf');
    const rollout = trajectoryOf('traj_3', leaf, { source: 'rollout', trainingRunId: 'trn_1' });
    await stores.stepLog.append({ trajectories: [rollout] });
    const { feedback } = await stores.feedback.record(given({ trajectoryId: 'traj_3' }));
    expect(feedback.late).toBe(true);
  });

  test('pages follow the order of arrival', async () => {
    const ids = ['z', 'a', 'm', 'b', 'y'];
    await Promise.all(ids.map((id) => stores.feedback.record(given({ id }))));
    const first = stores.feedback.list('traj_1', { limit: 3 });
    const second = stores.feedback.list('traj_1', { limit: 3, cursor: first.nextCursor ?? '' });
    expect([...first.items, ...second.items].map(({ id }) => id)).toEqual(ids);
    expect(second.nextCursor).toBeNull();
  });
});
