/**
 * Tests of training runs around the trainer: the queue, the gate, swaps under traffic, a live
 * policy that changed meanwhile, a broken candidate, a stop of the server, the schedule, and that
 * writing rollouts leaves the event loop free.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AppError } from '../core/errors.ts';
import type { TrainingRunRecord } from '../core/records.ts';
import { RunFiles } from './run-files.ts';
import { ANSWER_SCRIPT, startHarness, TASKS, until } from './testing/harness.ts';
import type { Harness, Parsed } from './testing/harness.ts';

let h: Harness;

async function start(options: Parameters<typeof startHarness>[0] = {}): Promise<void> {
  h = await startHarness(options);
  h.deps.stores.tasks.import(TASKS);
}

beforeEach(() => start());

afterEach(() => h.close());

const retrain = (): string =>
  h.deps.training.retrain({ algorithm: 'arpo', settings: {}, steps: 2 }).id;
const run = (id: string): TrainingRunRecord => h.deps.stores.training.get(id);
const ended = async (id: string): Promise<TrainingRunRecord> => {
  await until(() => run(id).endedAt !== null);
  return run(id);
};

test('runs that wait start one after the other, each from the policy that is live then', async () => {
  const ids = [retrain(), retrain(), retrain()];
  const runs = await Promise.all(ids.map(ended));
  expect(runs.map(({ status }) => status)).toEqual(['completed', 'completed', 'completed']);
  expect(runs.map(({ baseVersion }) => baseVersion)).toEqual([1, 2, 3]);
  expect(h.deps.policies.liveVersion).toBe(4);
  expect(h.deps.stores.policies.get(4)).toMatchObject({ parentVersion: 3, status: 'active' });
  expect(h.deps.stores.policies.get(1).status).toBe('retired');
});

test('16 streams through 3 swaps: none fails, each is from one version', async () => {
  h.engine.pieceMs = 2;
  h.engine.script = (_, version) =>
    `<think>${'the capital of France '.repeat(6)}</think><answer>\\boxed{${version}}</answer><|im_end|>`;
  let swapping = true;
  const messages = [{ role: 'user', content: 'x' }];
  const client = async (): Promise<string[]> => {
    const seen: string[] = [];
    while (swapping) {
      const body = { model: 'ramify', messages, stream: true };
      const { body: chunks } = await h.call('createChatCompletion', { body });
      const models = new Set<string>(chunks.map(({ model }: { model: string }) => model));
      const content = chunks.map((chunk: Parsed) => chunk.choices[0]?.delta.content ?? '').join('');
      expect([...models]).toEqual([`ramify@${content}`]);
      expect(chunks.at(-1).choices[0].finish_reason).toBe('stop');
      seen.push(content);
    }
    return seen;
  };
  const clients = Array.from({ length: 16 }, client);
  for (let swap = 0; swap < 3; swap++) await ended(retrain());
  await new Promise((resolve) => setTimeout(resolve, 50));
  swapping = false;
  const seen = (await Promise.all(clients)).flat();
  expect(new Set(seen)).toContain('4');
  expect(new Set(seen).size).toBeGreaterThan(1);
  await until(() => h.engine.stats().versions.join() === '3,4');
});

test('a candidate whose base is live no more is kept, not activated', async () => {
  h.plan.beforeCandidate = async () => {
    const { policies } = h.deps.stores;
    const other = policies.register({ ...policies.get(1), version: 7, status: 'candidate' });
    await h.deps.policies.activate(other.version);
  };
  const { status, error } = await ended(retrain());
  expect(status).toBe('rejected');
  expect(error).toBe('the live policy changed from 1 to 7 meanwhile');
  expect(h.deps.policies.liveVersion).toBe(7);
  expect(h.deps.stores.policies.get(2).status).toBe('candidate');
  const [decision] = h.deps.stores.policies.decisions.list({ version: 2 }, { limit: 1 }).items;
  expect(decision).toMatchObject({ kind: 'gate_passed', otherVersion: 1 });
  expect(decision?.reason).toMatch(/; but the live policy changed from 1 to 7 meanwhile$/);
});

test('a candidate that does not load fails the run and leaves the live policy', async () => {
  h.plan.without = 'tokenizer.json';
  const { status, error } = await ended(retrain());
  expect(status).toBe('failed');
  expect(error).toMatch(/^the candidate could not be activated: policy 2: .*tokenizer\.json/);
  expect(h.deps.policies.liveVersion).toBe(1);
  delete h.plan.without;
  expect((await ended(retrain())).candidateVersion).toBe(3);
});

test('a stop of the server interrupts the active run and those that wait', async () => {
  h.plan.end = 'hang';
  const ids = [retrain(), retrain()];
  await until(() => run(ids[0] as string).step === 2);
  await h.deps.training.stop();
  for (const id of ids) expect(run(id).status).toBe('interrupted');
  const call = (): string => retrain();
  expect(call).toThrow(expect.objectContaining({ code: 'not_ready' }));
});

test('a run that is cancelled while its files are written is no failure', async () => {
  const told = vi.spyOn(h.deps.logger, 'error');
  const keep = vi.spyOn(RunFiles.prototype, 'keep').mockImplementationOnce(async ({ runId }) => {
    h.deps.training.cancel(runId);
    throw new AppError('storage_failed', 'its folder is gone');
  });
  const [cancelled, next] = [retrain(), retrain()];
  expect(await ended(next)).toMatchObject({ status: 'completed' });
  expect(run(cancelled)).toMatchObject({ status: 'cancelled', error: null });
  expect(told).not.toHaveBeenCalled();
  keep.mockRestore();
  told.mockRestore();
});

test('events of the active run and those rebuilt after its end are the same', async () => {
  const id = retrain();
  const live = h.call('streamTrainingRunEvents', { path: { run_id: id } });
  await ended(id);
  const rebuilt = await h.call('streamTrainingRunEvents', { path: { run_id: id } });
  const outline = (text: string): string[] => text.match(/^(event|id): .*$/gm) ?? [];
  expect(outline((await live).text)).toEqual(outline(rebuilt.text));
  expect(outline(rebuilt.text)).toHaveLength(16);
});

test('the schedule starts a run when enough trajectories have been scored', async () => {
  await h.close();
  await start({ schedule: { minNewScored: 2, everyMinutes: null } });
  h.engine.script = ANSWER_SCRIPT;
  const rate = async (trajectory_id: string | null): Promise<void> => {
    const body = { trajectory_id, metric_name: 'reward', value: 1 };
    await h.call('createFeedback', { body });
  };
  const score = async (): Promise<void> => {
    await rate((await h.call('createAgentRun', { body: { input: 'x' } })).body.trajectory_id);
  };
  // Chats are never trained on, so their ratings make no run worthwhile.
  const messages = [{ role: 'user', content: 'x' }];
  for (let i = 0; i < 3; i++) {
    const chat = await h.call('createChatCompletion', { body: { model: 'ramify', messages } });
    await rate(chat.headers.get('x-ramify-trajectory'));
  }
  await score();
  h.deps.training.lookAtSchedule();
  expect(h.deps.stores.training.list().items).toHaveLength(0);
  await score();
  h.deps.training.lookAtSchedule();
  const [scheduled] = h.deps.stores.training.list().items;
  expect(scheduled?.trigger).toBe('schedule');
  await ended(scheduled?.id ?? '');
});

test('a rejected candidate stays on disk, an unregistered directory of its number does not', async () => {
  h.plan.end = 'die';
  await ended(retrain());
  h.plan.end = 'reject';
  const { candidateVersion } = await ended(retrain());
  expect(candidateVersion).toBe(2);
  expect(existsSync(join(h.policiesFolder, '2', 'tokenizer.json'))).toBe(true);
});

test('writing the rollouts of a step never holds the event loop for long', async () => {
  h.plan.end = 'reject';
  h.plan.rollouts = 400;
  const { id } = h.deps.training.retrain({ algorithm: 'arpo', settings: {}, steps: 3 });
  // Processor time between two turns of the loop: other programs on the machine do not count.
  let longestMs = 0;
  while (run(id).endedAt === null) {
    const before = process.cpuUsage();
    await new Promise((resolve) => setImmediate(resolve));
    const { user, system } = process.cpuUsage(before);
    longestMs = Math.max(longestMs, (user + system) / 1000);
  }
  // A piece takes up to 20 beside busy programs, which share the caches.
  expect(longestMs).toBeLessThan(50);
  const query = { training_run_id: id, limit: 100 };
  expect((await h.call('listTrajectories', { query })).body.has_more).toBe(true);
});
