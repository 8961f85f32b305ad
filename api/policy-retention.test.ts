/**
 * Files of old policies: only what nothing needs goes, the newest few stay, rows stay for ever, and
 * a crash in the middle leaves nothing that the next start does not clean up.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { quiet } from '../core/log.ts';
import { preparePolicies } from './policy-folder.ts';
import { removeOldPolicies } from './policy-retention.ts';
import { waitingRun } from './testing/agent-cases.ts';
import { startHarness, TASKS, until } from './testing/harness.ts';
import type { Harness } from './testing/harness.ts';

let h: Harness;

beforeEach(async () => {
  h = await startHarness();
});

afterEach(() => h.close());

/** Versions 2, 3, ... with files; each has the one before as its parent. */
function register(count: number): void {
  const { policies } = h.deps.stores;
  mkdirSync(h.policiesFolder, { recursive: true });
  for (let i = 0; i < count; i++) {
    const version = policies.nextVersion();
    const path = join(h.policiesFolder, String(version));
    cpSync(policies.get(1).path, path, { recursive: true });
    const first = policies.get(1);
    policies.register({ ...first, version, parentVersion: 1, path, status: 'candidate' });
  }
}

const remove = (kept: number): Promise<void> =>
  removeOldPolicies({ ...h.deps, folder: h.policiesFolder, kept });

const folders = (): number[] =>
  readdirSync(h.policiesFolder)
    .map(Number)
    .sort((a, b) => a - b);

test('the newest few stay, the others go and say so', async () => {
  register(6);
  await remove(2);
  expect(folders()).toEqual([6, 7]);
  const { body } = await h.call('getPolicy', { path: { version: 3 } });
  expect(body.removed_at).not.toBeNull();
  const decisions = await h.call('listPolicyDecisions', { query: { version: 3 } });
  expect(decisions.body.data[0]).toMatchObject({ kind: 'removed', cause: 'retention' });
  const activate = await h.call('activatePolicy', { path: { version: 3 } });
  expect(activate.code).toBe('policy_not_activatable');
  const messages = [{ role: 'user', content: 'x' }];
  const chat = await h.call('createChatCompletion', { body: { model: 'ramify@3', messages } });
  expect(chat.code).toBe('model_not_found');
  await remove(2);
  expect(folders()).toEqual([6, 7]);
});

test('what is needed stays: live, canary, the way back, loaded, the base of a run; the guest', async () => {
  register(8);
  const { policies, training } = h.deps.stores;
  for (const version of [2, 3]) await h.deps.policies.activate(version);
  const terms = { share: 0.5, conversations: 1, minutes: null };
  await h.deps.policies.startCanary(4, terms, { cause: 'gate', reason: 'better' });
  const pinned = await h.deps.policies.open('ramify@5');
  h.deps.stores.tasks.import(TASKS);
  h.plan.end = 'hang';
  const { id } = h.deps.training.retrain({ algorithm: 'arpo', settings: {}, steps: 1 });
  await until(() => training.get(id).step === 1);
  training.update(id, { baseVersion: 6 });
  await remove(0);
  expect(folders()).toEqual([2, 3, 4, 5, 6]);
  expect(existsSync(policies.get(1).path)).toBe(true);
  // A version that is left by its last request may go.
  await h.deps.policies.activate(4);
  pinned.sequence.close();
  await h.deps.training.stop();
  training.update(id, { status: 'cancelled' });
  for (const version of [7, 8]) expect(policies.get(version).removedAt).not.toBeNull();
});

test('the version of an agent run that waits for its client stays until the run ends', async () => {
  register(3);
  const { id } = await waitingRun(h);
  await h.deps.stores.agentRuns.update(id, { policyVersion: 3 });
  await remove(0);
  expect(folders()).toEqual([3]);
  await h.call('cancelAgentRun', { path: { run_id: id } });
  await remove(0);
  expect(folders()).toEqual([]);
});

test('the base of an adapter that is kept stays', async () => {
  register(4);
  const { policies } = h.deps.stores;
  const adapter = policies.get(5);
  const config = {
    ...{ peft_type: 'LORA', base_model_name_or_path: '../2', r: 1, lora_alpha: 1 },
    target_modules: ['q_proj'],
  };
  policies.register({ ...adapter, version: 6, kind: 'lora' });
  // Before it can be read nothing goes.
  await remove(2);
  expect(folders()).toEqual([2, 3, 4, 5]);
  writeFileSync(join(adapter.path, 'adapter_config.json'), JSON.stringify(config));
  writeFileSync(join(h.policiesFolder, '2', 'config.json'), '{}');
  await remove(2);
  expect(folders()).toEqual([2, 5]);
});

test('a training run is followed by it', async () => {
  await h.close();
  h = await startHarness({ policiesKept: 1 });
  h.deps.stores.tasks.import(TASKS);
  for (let i = 0; i < 4; i++) {
    const { id } = h.deps.training.retrain({ algorithm: 'arpo', settings: {}, steps: 1 });
    await until(() => h.deps.stores.training.get(id).endedAt !== null);
  }
  // Live 5, the way back 4, and one more.
  await until(() => folders().join() === '3,4,5');
});

test('files of a version that was marked, and whose deletion a crash stopped, go at the next start', async () => {
  register(2);
  const { policies } = h.deps.stores;
  policies.markRemoved({
    ...{ id: 'dec_1', kind: 'removed', version: 2, otherVersion: null, cause: 'retention' },
    ...{ reason: 'old', figures: {}, trainingRunId: null, createdAt: 1 },
  });
  const { clock } = h.deps;
  const firstPolicy = policies.get(1).path;
  const check = (): void => undefined;
  await preparePolicies({
    ...{ store: policies, folder: h.policiesFolder, firstPolicy, check, clock, logger: quiet },
  });
  expect(folders()).toEqual([3]);
});

test('a first policy that moved is found by its hash, another one is not taken for it', async () => {
  const { policies } = h.deps.stores;
  const firstPolicy = policies.get(1).path;
  policies.setPath(1, '/nowhere/first');
  const { clock } = h.deps;
  const options = {
    ...{ store: policies, folder: h.policiesFolder, clock, logger: quiet },
    check: (): void => undefined,
  };
  const other = join(h.policiesFolder, '..', 'other');
  cpSync(firstPolicy, other, { recursive: true });
  writeFileSync(join(other, 'more.txt'), 'x');
  await expect(preparePolicies({ ...options, firstPolicy: other })).rejects.toThrow('is missing');
  expect((await preparePolicies({ ...options, firstPolicy })).path).toBe(firstPolicy);
});
