/**
 * Training runs that go on: a trainer process that dies, a server that stops, a server that died
 * at a bad moment. What is done again takes the place of what was written before, followers are
 * told of everything once, and what a run keeps on disk goes when it ends.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import type { TrainingRunRecord } from '../core/records.ts';
import type { TrainingJob } from '../core/trainer/types.ts';
import { startHarness, TASKS, until } from './testing/harness.ts';
import type { Harness } from './testing/harness.ts';

let h: Harness;
const STEPS = 6;
const ROLLOUTS = 3;

beforeEach(async () => {
  h = await startHarness();
  h.deps.stores.tasks.import(TASKS);
  h.plan.rollouts = ROLLOUTS;
});

afterEach(() => h.close());

const retrain = (): string =>
  h.deps.training.retrain({ algorithm: 'arpo', settings: {}, steps: STEPS, seed: 7 }).id;
const run = (id: string): TrainingRunRecord => h.deps.stores.training.get(id);
const ended = async (id: string): Promise<TrainingRunRecord> => {
  await until(() => run(id).endedAt !== null);
  return run(id);
};

/** Rollouts in the log, and steps of the forest that they are. */
async function logged(id: string): Promise<{ trajectories: number; steps: number }> {
  const { items } = h.deps.stores.trajectories.list({ trainingRunId: id }, { limit: 100 });
  const forests = items.flatMap((item) => h.deps.stores.trajectories.tree(item.id).steps);
  return { trajectories: items.length, steps: new Set(forests.map((step) => step.id)).size };
}

const eventsOf = async (id: string): Promise<string[]> => {
  const { text } = await h.call('streamTrainingRunEvents', { path: { run_id: id } });
  return text.match(/^(event|id): .*$/gm) ?? [];
};

test('a process that dies again and again goes on from its checkpoints', async () => {
  h.plan.checkpointEvery = 2;
  // In the second step, in a repeated one, in a new one twice, and without a new one in between.
  h.plan.diesAt = [2, 1, 4, 4, 6];
  h.plan.jobs = [];
  const id = retrain();
  const live = eventsOf(id);
  expect(await ended(id)).toMatchObject({ status: 'completed', step: STEPS, candidateVersion: 2 });
  expect(h.plan.jobs).toHaveLength(6);
  const { metrics } = (
    await h.call('getTrainingRun', { path: { run_id: id }, query: { include: 'metrics' } })
  ).body;
  expect(metrics.map(({ step }: { step: number }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(await logged(id)).toEqual({
    trajectories: STEPS * ROLLOUTS,
    steps: STEPS * (3 + ROLLOUTS),
  });
  expect(await live).toEqual(await eventsOf(id));
  // created, started, six steps, gate, two decisions, completed.
  expect(await eventsOf(id)).toHaveLength(2 * 12);
  await until(() => !existsSync(join(h.runsFolder, id)));
});

test('one that only dies is given up, and its files go', async () => {
  h.plan.jobs = [];
  h.plan.diesAt = Array.from({ length: 20 }, () => 1);
  const id = retrain();
  const { status, error } = await ended(id);
  expect(status).toBe('failed');
  expect(error).toBe('the trainer process died 5 times without a new step: SIGKILL');
  expect(h.plan.jobs).toHaveLength(LIMITS.trainingAttemptsMax);
  await until(() => !existsSync(join(h.runsFolder, id)));
  expect(h.deps.policies.liveVersion).toBe(1);
});

test('a stop of the server: runs go on at the next start, in order, with the job they had', async () => {
  h.plan.jobs = [];
  h.plan.checkpointEvery = 2;
  h.plan.end = 'hang';
  const ids = [retrain(), retrain()];
  const [first, second] = ids as [string, string];
  await until(() => run(first).step === STEPS);
  const firstJob = h.plan.jobs[0] as TrainingJob;
  await h.deps.training.stop();
  expect(ids.map((id) => run(id).status)).toEqual(['interrupted', 'interrupted']);
  expect(existsSync(join(h.runsFolder, first, 'job'))).toBe(true);
  // Tasks that come meanwhile are for the next run.
  h.deps.stores.tasks.import([{ ...TASKS[0]!, id: 'task_new' }]);
  h.plan.end = 'pass';
  await h.restartTraining();
  expect((await ended(first)).status).toBe('completed');
  expect((await ended(second)).status).toBe('completed');
  expect(h.plan.jobs[1]).toEqual(firstJob);
  expect(h.plan.jobs[2]?.trainTasks.map(({ id }) => id)).toContain('task_new');
  expect(run(first)).toMatchObject({ baseVersion: 1, candidateVersion: 2, attempts: 1 });
  expect(run(second)).toMatchObject({ baseVersion: 2, candidateVersion: 3 });
  expect(await logged(first)).toEqual({
    trajectories: STEPS * ROLLOUTS,
    steps: STEPS * (3 + ROLLOUTS),
  });
});

test('a follower that comes back after the restart gets what it has not seen, once', async () => {
  h.plan.checkpointEvery = 2;
  h.plan.end = 'hang';
  const id = retrain();
  const before = eventsOf(id);
  await until(() => run(id).step === STEPS);
  await h.deps.training.stop();
  // The stream ends without a last event: the run has not ended.
  expect((await before).filter((line) => line.startsWith('event'))).toHaveLength(2 + STEPS);
  h.plan.end = 'reject';
  await h.restartTraining();
  await ended(id);
  const headers = { 'last-event-id': String(2 + STEPS) };
  const after = await h.call('streamTrainingRunEvents', { path: { run_id: id }, headers });
  expect(after.body.map(({ type }: { type: string }) => type)).toEqual([
    'gate.completed',
    'policy.decided',
    'run.completed',
  ]);
});

test('a run that was interrupted can be cancelled before it goes on; then nothing is left', async () => {
  h.plan.end = 'hang';
  const ids = [retrain(), retrain()];
  await until(() => run(ids[0] as string).step === STEPS);
  await h.restartTraining();
  for (const id of [...ids].reverse()) await h.call('cancelTrainingRun', { path: { run_id: id } });
  for (const id of ids) expect((await ended(id)).status).toBe('cancelled');
  await until(() => readdirSync(h.runsFolder).length === 0);
});

test('a server that died after the candidate was registered: the verdict stands', async () => {
  h.plan.jobs = [];
  h.plan.end = 'hang';
  const id = retrain();
  await until(() => run(id).step === STEPS);
  await h.deps.training.stop();
  const { policies } = h.deps.stores;
  const difference = { mean: 0.2, low: 0.1, high: 0.3 };
  const gate = { passed: true, reason: 'better', tasks: 1, base: {}, candidate: {}, difference };
  policies.register({
    ...policies.get(1),
    ...{ version: 2, parentVersion: 1, status: 'candidate', sourceRunId: id },
    evaluation: { ...gate, tolerance: 0 },
  });
  await h.restartTraining();
  expect(await ended(id)).toMatchObject({ status: 'completed', candidateVersion: 2 });
  expect(h.plan.jobs).toHaveLength(1);
  expect(h.deps.policies.liveVersion).toBe(2);
});

test('what nobody can resume is said to be interrupted, and is not tried', async () => {
  const { training } = h.deps.stores;
  const id = retrain();
  const { candidateVersion } = await ended(id);
  training.update(id, { status: 'running', endedAt: null, request: null });
  const hopeless = training.create({
    ...run(id),
    id: 'trn_hopeless',
    request: { algorithm: 'arpo', settings: {}, seed: 1 },
    attempts: LIMITS.trainingAttemptsMax,
  });
  await h.restartTraining();
  expect(run(id)).toMatchObject({ status: 'interrupted', candidateVersion });
  expect(run(hopeless.id)).toMatchObject({ status: 'failed' });
  expect(run(hopeless.id).error).toBe('interrupted 5 times without a new step');
});
