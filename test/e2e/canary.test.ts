/**
 * A canary in the real server under 8 clients that rate what they get: it takes its share, answers
 * of it are rated badly, and the server takes it back by itself. What must hold: no request fails,
 * every answer is from one version, nobody gets the canary after it was taken back, and the log
 * says why, with the figures. A second server on the same data knows all of it.
 */
import { expect, it } from 'vitest';
import { freshSeed } from '../../core/prng.ts';
import { clients, keepAsking } from '../support/clients.ts';
import { writePerturbedPolicy } from '../support/policy-copies.ts';
import { call, dataFolderWithPolicies, fixture, withStores } from './fixture.ts';

const { path, launch } = fixture();

const CLIENTS = 8;
/** The look at live traffic comes every second; a busy machine is slow. */
const TAKEN_BACK_MS = 60_000;
const CANARY = 2;

it('a canary that is rated badly is taken back under load, and stays so', async () => {
  const dataFolder = path('data');
  await dataFolderWithPolicies(dataFolder, [
    (directory) => writePerturbedPolicy(directory, CANARY),
  ]);
  await withStores(dataFolder, ({ policies }) => {
    const canary = { share: 0.5, conversations: 1_000, minutes: null };
    policies.decide(
      {
        ...{ id: 'dec_0', kind: 'canary_started', version: CANARY, otherVersion: 1, cause: 'gate' },
        ...{ reason: 'better', figures: { canary }, trainingRunId: null, createdAt: 0 },
      },
      [[CANARY, 'canary']],
    );
  });
  const first = await launch({ dataFolder }).ready();
  const end = new AbortController();
  const seed = freshSeed();
  console.log(`seed of the clients: ${seed}`);
  const asking = clients(first.url, CLIENTS, seed, { maxTokens: 24, temperature: 1 });
  const asked = keepAsking(asking, end.signal, async ({ trajectoryId, version }) => {
    const value = version === CANARY ? 0 : 1;
    const rating = { trajectory_id: trajectoryId, metric_name: 'reward', value };
    const { status } = await call(first, 'POST', '/v1/feedback', rating);
    expect(status).toBe(200);
  });
  const policy = async (): Promise<string> =>
    (await call(first, 'GET', `/v1/admin/policies/${CANARY}`)).body.status;
  await expect.poll(policy, { timeout: TAKEN_BACK_MS, interval: 100 }).toBe('rolled_back');
  const takenBackAt = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  end.abort();
  const { answers, failures } = await asked;
  expect(failures).toEqual([]);
  for (const { version, versionsInBody } of answers) expect([...versionsInBody]).toEqual([version]);
  expect(new Set(answers.map(({ version }) => version))).toEqual(new Set([1, CANARY]));
  const later = answers.filter(({ startedAt }) => startedAt > takenBackAt);
  expect(new Set(later.map(({ version }) => version))).toEqual(new Set([1]));
  expect(await first.end('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(first.stderr).not.toMatch(/"level":[56]0/);

  const second = await launch({ dataFolder }).ready();
  const { body } = await call(second, 'GET', `/v1/admin/decisions?version=${CANARY}`);
  expect(body.data[0]).toMatchObject({ kind: 'rolled_back', other_version: 1, cause: 'live' });
  expect(body.data[0].figures.live).toMatchObject({
    base: { reward_mean: 1 },
    candidate: { reward_mean: 0 },
  });
  const list = await call(second, 'GET', '/v1/admin/policies');
  expect(list.body).toMatchObject({ active: 1, canary: null });
  await second.end('SIGTERM');
  const seen = answers.filter(({ version }) => version === CANARY).length;
  console.log(`${answers.length} answers, ${seen} of them by the canary`);
});
