/** Training runs and their figures, and what a start makes of runs that a dead process left. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { TrainingRunRecord, TrainingStatus } from '../core/records.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';
import { TrainingStore } from './training-store.ts';

let db: Database;
let store: TrainingStore;

beforeEach(() => {
  db = openDatabase(':memory:');
  store = new TrainingStore(db);
});
afterEach(() => {
  db.close();
});

function run(id: string, fields: Partial<TrainingRunRecord> = {}): TrainingRunRecord {
  return {
    id,
    status: 'queued',
    trigger: 'request',
    algorithm: 'arpo',
    settings: { groupSize: 16, branch: 'paper', beta: 2.5 },
    baseVersion: 1,
    candidateVersion: null,
    step: 0,
    steps: 10,
    counts: {
      rollouts: 0,
      branches: 0,
      toolCallsExecuted: 0,
      toolCallsSaved: 0,
      tokensSampled: 0,
    },
    gate: null,
    error: null,
    createdAt: 5,
    startedAt: null,
    endedAt: null,
    request: null,
    attempts: 0,
    ...fields,
  };
}

describe('TrainingStore', () => {
  test('a run comes back as it was made and as it was changed', () => {
    expect(store.create(run('trn_1'))).toEqual(run('trn_1'));
    const counts = {
      rollouts: 16,
      branches: 8,
      toolCallsExecuted: 20,
      toolCallsSaved: 12,
      tokensSampled: 4_000,
    };
    const change = { status: 'running' as const, step: 1, counts, startedAt: 6 };
    expect(store.update('trn_1', change)).toEqual({ ...run('trn_1'), ...change });
    expect(store.update('trn_1', {})).toEqual({ ...run('trn_1'), ...change });
    expect(store.get('trn_1')).toEqual({ ...run('trn_1'), ...change });
  });

  test('unknown runs are said by name', () => {
    const unknown = expect.objectContaining({
      code: 'training_run_not_found',
      message: 'no training run has the id trn_9',
    });
    expect(() => store.get('trn_9')).toThrow(unknown);
    expect(() => store.update('trn_9', { step: 1 })).toThrow(unknown);
    expect(() =>
      store.appendMetrics({ runId: 'trn_9', step: 0, values: {}, createdAt: 1 }),
    ).toThrow(unknown);
    expect(store.find('trn_9')).toBeNull();
  });

  test('figures are read in order, a repeated step replaces its figures', () => {
    store.create(run('trn_1'));
    store.create(run('trn_2'));
    const figures = (step: number, reward: number) => ({
      runId: 'trn_1',
      step,
      values: { reward, 'entropy/mean': 0.1 + 0.2 },
      createdAt: 10 + step,
    });
    for (const step of [1, 0, 10, 2]) store.appendMetrics(figures(step, 0.1));
    store.appendMetrics(figures(2, 0.9));
    expect(store.metrics('trn_1')).toEqual([
      figures(0, 0.1),
      figures(1, 0.1),
      figures(2, 0.9),
      figures(10, 0.1),
    ]);
    expect(store.metrics('trn_1', 1)).toEqual([figures(2, 0.9), figures(10, 0.1)]);
    expect(store.metrics('trn_2')).toEqual([]);
  });

  test('pages are newest first and filter by status', () => {
    for (let i = 0; i < 9; i++) {
      store.create(run(`trn_${i}`, { status: i % 2 === 0 ? 'completed' : 'failed' }));
    }
    const first = store.list({}, { limit: 4 });
    const rest = store.list({}, { limit: 9, cursor: first.nextCursor ?? '' });
    expect([...first.items, ...rest.items].map(({ id }) => id)).toEqual(
      [8, 7, 6, 5, 4, 3, 2, 1, 0].map((i) => `trn_${i}`),
    );
    expect(store.list({ status: 'failed' }).items.map(({ id }) => id)).toEqual([
      'trn_7',
      'trn_5',
      'trn_3',
      'trn_1',
    ]);
  });

  test('unfinished runs, oldest first: an interrupted one counts when it can go on', () => {
    const statuses: TrainingStatus[] = [
      'queued',
      'running',
      'completed',
      'rejected',
      'failed',
      'cancelled',
    ];
    for (const status of statuses) store.create(run(`trn_${status}`, { status }));
    const interrupted = { status: 'interrupted' as const };
    store.create(run('trn_a', interrupted));
    store.create(run('trn_b', { ...interrupted, request: { seed: 1 }, attempts: 2 }));
    const unfinished = store.unfinished();
    expect(unfinished.map(({ id }) => id)).toEqual(['trn_b', 'trn_queued', 'trn_running']);
    expect(unfinished[0]).toMatchObject({ request: { seed: 1 }, attempts: 2 });
  });
});
