/**
 * A run that trains an adapter, end to end: the candidate is an adapter directory over the base, it
 * goes live beside the base, both answer, it is trained on by the next run without being asked, and
 * a restart serves it again.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { writeRandomPolicy } from '../../api/testing/random-policy.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture } from './fixture.ts';

const { path, launch } = fixture();
const base = path('base');
const dataFolder = path('data');
const environment = {
  RAMIFY_POLICY: base,
  RAMIFY_ENGINE_THREADS: '1',
  RAMIFY_TRAINER_THREADS: '1',
};

let server: TestServer;
beforeAll(async () => {
  writeRandomPolicy(base);
  server = await launch({ dataFolder, environment }).ready();
});

const SMALL = { groupSize: 2, promptsPerStep: 2, maxTokens: 8, gateTasks: 20, maxToolCalls: 1 };

async function train(settings: Record<string, unknown>) {
  const body = { steps: 1, seed: 1, settings: { ...SMALL, ...settings } };
  const started = await call(server, 'POST', '/v1/admin/retrain', body);
  const runOf = async () =>
    (await call(server, 'GET', `/v1/admin/training-runs/${started.body.id}`)).body;
  await expect
    .poll(async () => (await runOf()).status, { timeout: 180_000, interval: 200 })
    .toMatch(/completed|failed|rejected/);
  return runOf();
}

async function answerOf(model: string): Promise<number> {
  const messages = [{ role: 'user', content: 'what is 1 plus 1' }];
  const body = { model, messages, max_tokens: 8, seed: 1 };
  return (await call(server, 'POST', '/v1/chat/completions', body)).status;
}

it('trains an adapter, serves it, trains it on, and starts with it again', async () => {
  const first = await train({ training: 'lora', loraRank: 4, loraTargets: ['q_proj', 'v_proj'] });
  expect(first).toMatchObject({ status: 'completed', settings: { training: 'lora', loraRank: 4 } });
  const { data } = (await call(server, 'GET', '/v1/admin/policies')).body;
  const [policy] = data.filter(({ version }: { version: number }) => version === 2);
  expect(policy).toMatchObject({ kind: 'lora', parent: 1, status: 'active' });
  expect(readdirSync(join(dataFolder, 'policies', '2')).sort()).toEqual([
    'adapter_config.json',
    'adapter_model.safetensors',
  ]);
  expect(await answerOf('ramify')).toBe(200);
  expect(await answerOf('ramify@2')).toBe(200);

  const second = await train({});
  expect(second).toMatchObject({ status: 'completed', settings: { training: 'lora' } });
  expect(second.settings).not.toHaveProperty('loraRank');
  const refused = await call(server, 'POST', '/v1/admin/retrain', {
    settings: { ...SMALL, loraRank: 4 },
  });
  expect(refused).toMatchObject({ status: 400, body: { error: { param: 'settings.loraRank' } } });

  await server.end('SIGTERM');
  server = await launch({ dataFolder, environment }).ready();
  expect(await answerOf('ramify@3')).toBe(200);
}, 600_000);
