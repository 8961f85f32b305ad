/** Tests of names, pinned versions that are loaded when asked for, and how many stay loaded. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { startHarness } from './testing/harness.ts';
import type { Harness } from './testing/harness.ts';

let h: Harness;

beforeEach(async () => {
  h = await startHarness();
  const { policies } = h.deps.stores;
  for (let version = 2; version <= 6; version++) {
    policies.register({ ...policies.get(1), version, parentVersion: 1, status: 'candidate' });
  }
});

afterEach(() => h.close());

const open = async (model: string): Promise<number> => {
  const { policy, sequence } = await h.deps.policies.open(model);
  sequence.close();
  expect(sequence.policyVersion).toBe(policy.version);
  return policy.version;
};

test('ramify is the live version, ramify@N is N, loaded when asked for', async () => {
  expect(await open('ramify')).toBe(1);
  expect(await open('ramify@3')).toBe(3);
  await h.deps.policies.activate(2);
  expect(await open('ramify')).toBe(2);
  expect(await open('ramify@1')).toBe(1);
});

test('only so many stay loaded, the live one always', async () => {
  for (const version of [2, 3, 4, 5, 6]) await open(`ramify@${version}`);
  const { versions } = h.engine.stats();
  expect(versions).toHaveLength(LIMITS.policiesLoadedMax);
  expect(versions).toContain(1);
  expect(versions).toContain(6);
});

test('requests at once for a version that is not loaded load it once', async () => {
  const opened = await Promise.all(Array.from({ length: 8 }, () => open('ramify@2')));
  expect(opened).toEqual(Array.from({ length: 8 }, () => 2));
  expect(h.engine.stats().versions).toEqual([1, 2]);
});

test('a sequence keeps its version through a swap; the version goes when it is closed', async () => {
  const { sequence } = await h.deps.policies.open('ramify');
  await h.deps.policies.activate(2);
  expect(sequence.policyVersion).toBe(1);
  const loading = open('ramify@1');
  sequence.close();
  expect(await loading).toBe(1);
});

test('activating the active version changes nothing', async () => {
  await h.deps.policies.activate(1);
  expect(h.deps.policies.liveVersion).toBe(1);
  expect(h.engine.stats().versions).toEqual([1]);
});

test('a version that a new worker could not load again is loaded by the next request', async () => {
  expect(await open('ramify@3')).toBe(3);
  // What the engine does when its worker was replaced and the files were broken meanwhile.
  for (const version of [1, 3]) await h.engine.unload(version);
  expect(await open('ramify@3')).toBe(3);
  expect(await open('ramify')).toBe(1);
  expect(h.engine.stats().versions).toEqual([3, 1]);
});

test('one that cannot be loaded again: unknown when it is pinned, unavailable when it is live', async () => {
  const { policies } = h.deps.stores;
  expect(await open('ramify@3')).toBe(3);
  for (const version of [1, 3]) {
    await h.engine.unload(version);
    policies.setPath(version, '/nowhere');
  }
  const code = async (model: string): Promise<unknown> =>
    open(model).catch((error: unknown) => (error as { code: string }).code);
  expect(await code('ramify@3')).toBe('model_not_found');
  expect(await code('ramify')).toBe('engine_unavailable');
});

test('what was live before stays loaded, so that a rollback loads nothing', async () => {
  await h.deps.policies.activate(2);
  await h.deps.policies.activate(3);
  // Only the one before: not the one before that.
  expect(h.engine.stats().versions).toEqual([2, 3]);
  h.engine.loadFault = new AppError('engine_unavailable', 'nothing may be loaded now');
  expect((await h.deps.policies.rollback()).version).toBe(2);
  h.engine.loadFault = null;
  expect(h.engine.stats().versions).toEqual([2]);
  expect((await h.deps.policies.rollback()).version).toBe(1);
});
