/** Tests of names, pinned versions that are loaded when asked for, and how many stay loaded. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { startHarness } from './testing/harness.ts';
import type { Answer, Harness } from './testing/harness.ts';

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

describe('a request is measured by the window of the version that it runs on', () => {
  beforeEach(async () => {
    h.engine.windows.set(2, 120).set(3, 1_000);
    // Both are loaded beside the live one, whose window has 512 tokens.
    for (const version of [2, 3]) await open(`ramify@${version}`);
  });

  const messages = [{ role: 'user', content: 'x' }];
  const WINDOWS = [
    ['ramify', 512],
    ['ramify@2', 120],
    ['ramify@3', 1_000],
  ] as const;

  test.each([
    ['createChatCompletion', (max_tokens: number) => ({ messages, max_tokens })],
    ['createAgentRun', (max_tokens: number) => ({ messages, max_tokens })],
    ['createResponse', (tokens: number) => ({ input: 'x', max_output_tokens: tokens })],
  ] as const)('%s', async (operation, bodyOf) => {
    const ask = (model: string, tokens: number): Promise<Answer> =>
      h.call(operation, { body: { model, ...bodyOf(tokens) } });
    for (const [model, window] of WINDOWS) {
      expect((await ask(model, window - 100)).status).toBe(200);
      const refused = await ask(model, window);
      expect(refused.code).toBe('context_length_exceeded');
      expect(refused.body.error.message).toContain(`the context window of ${window}`);
    }
  });

  test('without a bound an answer fills that window', async () => {
    h.engine.script = () => '<think>capital of France '.repeat(20);
    for (const [model, window] of WINDOWS) {
      const { body } = await h.call('createChatCompletion', { body: { model, messages } });
      expect(body.choices[0].finish_reason).toBe('length');
      expect(body.usage.total_tokens).toBe(window);
    }
  });

  test('a stored conversation goes on where its own version holds it', async () => {
    const ask = (messages: object[]): Promise<Answer> =>
      h.call('createChatCompletion', { body: { model: 'ramify', messages } });
    h.engine.script = () =>
      `<think>${'capital of France '.repeat(12)}</think><answer>\\boxed{Paris}</answer><|im_end|>`;
    const first = await ask(messages);
    const [{ message }] = first.body.choices;
    const second = await ask([...messages, message, ...messages]);
    expect(second.body.usage.prompt_tokens).toBeGreaterThan(first.body.usage.total_tokens);
  });

  test('a path is drawn anew where the named version holds it', async () => {
    const content = 'capital of France '.repeat(40);
    const body = { model: 'ramify', messages: [{ role: 'user', content }] };
    const { headers } = await h.call('createChatCompletion', { body });
    const path = { trajectory_id: headers.get('x-ramify-trajectory') as string };
    const draw = (policy_version: number): Promise<Answer> =>
      h.call('replayTrajectory', { path, body: { mode: 'resample', policy_version } });
    expect((await draw(2)).code).toBe('context_length_exceeded');
    for (const version of [1, 3]) expect((await draw(version)).status).toBe(200);
  });
});
