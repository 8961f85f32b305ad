/** Rollouts that are made again leave the log whole, with what others share of them still there. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ManualClock } from '../core/clock.ts';
import { idGenerator } from '../core/ids.ts';
import { Prng } from '../core/prng.ts';
import { chain, trajectoryOf } from '../test/fixtures/random-records.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

let db: Database;
let stores: Stores;
const clock = new ManualClock();
const newId = idGenerator(clock);

beforeEach(() => {
  db = openDatabase(':memory:');
  stores = openStores(db, clock);
});
afterEach(() => stores.close());

const ids = (sql: string): string[] => db.sqlite.prepare<[], string>(sql).pluck().all();

test('trajectories after the step go, with the steps that nothing else uses', async () => {
  const prng = new Prng(3);
  const live = chain(prng, newId('step'), 3, null);
  const liveLeaf = live.at(-1)!;
  await stores.stepLog.append({
    steps: live,
    trajectories: [trajectoryOf(newId('trajectory'), liveLeaf)],
  });
  const kept: string[] = live.map(({ id }) => id);
  const keptTrajectories = ids('SELECT id FROM trajectories');
  for (let trainingStep = 1; trainingStep <= 4; trainingStep++) {
    for (const trainingRunId of ['trn_a', 'trn_b']) {
      // A group of its own root, with a branch, and one that was rebuilt from the live path.
      const root = chain(prng, newId('step'), 4, null);
      const branch = chain(prng, newId('step'), 2, root[1]);
      const rebuilt = chain(prng, newId('step'), 2, live[1]);
      const of = { source: 'rollout' as const, trainingRunId, trainingStep };
      const trajectories = [
        trajectoryOf(newId('trajectory'), root.at(-1)!, of),
        trajectoryOf(newId('trajectory'), branch.at(-1)!, {
          ...of,
          branchedFromStepId: root[1]!.id,
        }),
        trajectoryOf(newId('trajectory'), rebuilt.at(-1)!, {
          ...of,
          branchedFromStepId: live[1]!.id,
        }),
      ];
      const steps = [...root, ...branch, ...rebuilt];
      await stores.stepLog.append({ steps, trajectories });
      if (trainingRunId === 'trn_a' && trainingStep > 2) continue;
      kept.push(...steps.map(({ id }) => id));
      keptTrajectories.push(...trajectories.map(({ id }) => id));
    }
  }
  expect(await stores.rolloutRemoval.removeAfter('trn_a', 2)).toBe(6);
  expect(ids('SELECT id FROM steps ORDER BY id')).toEqual(kept.sort());
  expect(ids('SELECT id FROM trajectories ORDER BY id')).toEqual(keptTrajectories.sort());
  expect(await stores.rolloutRemoval.removeAfter('trn_a', 2)).toBe(0);
});

test('feedback to a step keeps the step', async () => {
  const steps = chain(new Prng(1), newId('step'), 3, null);
  const id = newId('trajectory');
  const record = trajectoryOf(id, steps[2]!, { trainingRunId: 'trn_a', trainingStep: 1 });
  const other = trajectoryOf(newId('trajectory'), steps[2]!);
  await stores.stepLog.append({ steps, trajectories: [record, other] });
  const feedback = { ...{ id: 'fb_1', trajectoryId: other.id, stepId: steps[1]!.id } };
  await stores.feedback.record({
    ...{ ...feedback, metricName: 'comment', value: 'good', tags: {}, createdAt: 1 },
  });
  expect(await stores.rolloutRemoval.removeAfter('trn_a', 0)).toBe(1);
  expect(ids('SELECT id FROM steps')).toHaveLength(3);
});

test('many trajectories go in pieces', async () => {
  const [root] = chain(new Prng(2), newId('step'), 1, null);
  const trajectories = Array.from({ length: 100 }, () =>
    trajectoryOf(newId('trajectory'), root!, { trainingRunId: 'trn_a', trainingStep: 1 }),
  );
  await stores.stepLog.append({ steps: [root!], trajectories });
  expect(await stores.rolloutRemoval.removeAfter('trn_a', 0)).toBe(100);
  expect(ids('SELECT id FROM steps')).toEqual([]);
});
