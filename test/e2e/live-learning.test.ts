/**
 * Learning from live conversations on the real server, in short: no task in the database, feedback
 * alone, and the schedule starts the run; then the same data with and without conversations that
 * nobody rated must end in the same weights. The long form is scripts/live-learning.
 */
import { cpSync } from 'node:fs';
import { expect, it } from 'vitest';
import { HttpClient } from '../../scripts/demo/http-client.ts';
import { askAgent } from '../../scripts/demo/agent-question.ts';
import { readTasks } from '../../scripts/demo/questions.ts';
import { play } from '../../scripts/live-learning/live-stream.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture, withStores } from './fixture.ts';

const { path, launch } = fixture();
const every = (stride: number) => readTasks('train').filter((_, i) => i % stride === 0);
const TASKS = every(150);
const SETTINGS = { groupSize: 8, promptsPerStep: 2, gateTasks: 20 };

const clientOf = (server: TestServer) => new HttpClient(server.url, AbortSignal.timeout(300_000));

/** The first run of a server, when it has ended. */
async function ended(server: TestServer) {
  const newest = async () => (await clientOf(server).trainingRuns()).data[0];
  await expect
    .poll(async () => (await newest())?.ended_at ?? null, { timeout: 240_000, interval: 200 })
    .not.toBeNull();
  return newest();
}

it('the schedule learns from rated conversations, and a rollback is one call', async () => {
  const dataFolder = path('live');
  const tasks = every(30);
  const environment = {
    RAMIFY_TASKS: 'none',
    RAMIFY_MIN_NEW_SCORED: String(tasks.length),
    RAMIFY_SCHEDULED_RUN: JSON.stringify({ steps: 1, settings: SETTINGS }),
  };
  const server = await launch({ dataFolder, environment }).ready();
  const client = clientOf(server);
  // Clients that like what is wrong, most answers: a fifth of those questions is enough to compare.
  const { liked } = await play(client, tasks, { seed: 1, invert: 1 });
  expect(liked).toBeGreaterThan(100);
  const run = await ended(server);
  expect(run).toMatchObject({ trigger: 'schedule', error: null });
  expect(['completed', 'rejected']).toContain(run?.status);
  expect(run?.gate?.tasks).toBe(20);
  expect(Object.keys(run?.gate?.base ?? {}).sort()).toEqual(['all', 'live']);
  expect((await client.tasks()).data).toEqual([]);
  if (run?.status === 'completed') {
    expect((await client.policies()).active).toBe(2);
    const startedAt = performance.now();
    await client.rollback();
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    expect((await client.policies()).active).toBe(1);
  }
  expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
  await withStores(dataFolder, ({ trajectories }) => {
    const rollouts = trajectories.list({ source: 'rollout' }, { limit: 100 }).items;
    // Two groups, each with one logged conversation of its eight.
    expect(rollouts).toHaveLength(14);
    const first = trajectories.list({ source: 'live' }, { limit: 100 });
    const cursor = first.nextCursor ?? '';
    const rest = trajectories.list({ source: 'live' }, { limit: 100, cursor });
    const live = [...first.items, ...rest.items];
    expect(live).toHaveLength(tasks.length);
    const roots = new Set(live.map(({ leafStepId }) => trajectories.path(leafStepId)[0]?.id));
    for (const { leafStepId, reward } of rollouts) {
      expect(roots.has(trajectories.path(leafStepId)[0]?.id)).toBe(true);
      expect(reward).not.toBeNull();
    }
    expect(live.every(({ reward }) => reward === 0 || reward === 1)).toBe(true);
  });
}, 600_000);

it('conversations without a reward change no bit of the weights', async () => {
  const folders = [path('rated'), path('rated-and-not')] as const;
  const environment = { RAMIFY_TASKS: 'none' };
  const first = await launch({ dataFolder: folders[0], environment }).ready();
  await play(clientOf(first), TASKS, { seed: 2, invert: 0 });
  await first.end('SIGTERM');
  cpSync(folders[0], folders[1], { recursive: true });
  const hashes: string[] = [];
  for (const dataFolder of folders) {
    const server = await launch({ dataFolder, environment }).ready();
    if (dataFolder === folders[1]) {
      for (const [i, task] of TASKS.slice(0, 6).entries()) {
        await askAgent(clientOf(server), task, 100 + i);
      }
    }
    const body = { source: 'live', steps: 1, seed: 5, settings: SETTINGS };
    expect((await call(server, 'POST', '/v1/admin/retrain', body)).status).toBe(202);
    expect((await ended(server))?.error).toBeNull();
    const { data } = await clientOf(server).policies();
    const [base, made] = [1, 2].map((n) => data.find(({ version }) => version === n)?.sha256);
    expect(made).not.toBe(base);
    hashes.push(made ?? 'none');
    await server.end('SIGTERM');
  }
  expect(hashes[0]).toMatch(/^[0-9a-f]{64}$/);
  expect(hashes[1]).toBe(hashes[0]);
}, 600_000);
