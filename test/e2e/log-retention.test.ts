/**
 * RAMIFY_KEEP_DAYS in the real server: what is old is archived and forgotten while it serves, and
 * the command line reads the archive into another folder, as it was.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { systemClock } from '../../core/clock.ts';
import { Prng } from '../../core/prng.ts';
import { chain, trajectoryOf } from '../fixtures/random-records.ts';
import { ramify } from '../support/command-line.ts';
import { call, fixture, withStores } from './fixture.ts';

const { path, launch } = fixture();

test('what is too old moves to the archive, from which it can be read back', async () => {
  const [dataFolder, other] = [path('data'), path('other')];
  const [old, id] = [systemClock.now() - 2 * 24 * 3_600_000, 'traj_old'];
  const before = await withStores(dataFolder, async ({ stepLog, trajectories, feedback }) => {
    const steps = chain(new Prng(1), 'step_old', 5);
    await stepLog.append({
      steps,
      trajectories: [trajectoryOf(id, steps[4]!, { createdAt: old })],
    });
    const rated = { metricName: 'reward', value: 0.5, stepId: null, tags: {}, createdAt: old };
    await feedback.record({ id: 'fb_1', trajectoryId: id, ...rated });
    return { ...trajectories.get(id), feedback: feedback.list(id).items };
  });
  const server = await launch({ dataFolder, environment: { RAMIFY_KEEP_DAYS: '1' } }).ready();
  const read = `/v1/trajectories/${id}`;
  const body = { input: 'What is the capital of France?', tools: ['search'], seed: 1 };
  const young = await call(server, 'POST', '/v1/agent/runs', body);
  expect(young.status).toBe(200);
  const status = async (): Promise<number> => (await call(server, 'GET', read)).status;
  await expect.poll(status, { timeout: 30_000, interval: 200 }).toBe(404);
  expect((await call(server, 'GET', `/v1/agent/runs/${young.body.id}`)).status).toBe(200);
  expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
  const kept = await withStores(dataFolder, ({ trajectories }) => trajectories.list().items);
  expect(kept.map((trajectory) => trajectory.id)).toEqual([young.body.trajectory_id]);

  const archive = join(dataFolder, 'archive');
  const files = readdirSync(archive);
  expect(files).toEqual([expect.stringMatching(/^\d{4}-\d\d-\d\d-\d{9}-[0-9a-f]{8}\.jsonl\.gz$/)]);
  const words = ['import', join(archive, files[0]!), '--data', other, '--device', 'cpu'];
  const imported = await ramify(...words);
  expect(imported.code, imported.err).toBe(0);
  const after = await withStores(other, ({ trajectories, feedback }) => ({
    ...trajectories.get(id),
    feedback: feedback.list(id).items,
  }));
  expect(after).toEqual(before);
}, 120_000);
