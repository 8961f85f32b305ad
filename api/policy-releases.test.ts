/**
 * What becomes of candidates: a canary's share of conversations and how it ends, live traffic that
 * takes a version back, and that all of it happens under traffic without a failed request.
 */
import { afterEach, expect, test } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import type { CanaryTerms, PolicyDecision } from '../core/records.ts';
import { PolicyService } from './policy-service.ts';
import { ANSWER_SCRIPT, startHarness, TASKS, until } from './testing/harness.ts';
import type { Harness, HarnessOptions } from './testing/harness.ts';

let h: Harness;

afterEach(() => h.close());

const TERMS: CanaryTerms = { share: 0.5, conversations: 30, minutes: null };

async function start(options: HarnessOptions = {}): Promise<void> {
  h = await startHarness(options);
  h.deps.stores.tasks.import(TASKS);
}

/** Trains version `parent + 1`, which passes the gate. */
async function release(): Promise<void> {
  const { id } = h.deps.training.retrain({ algorithm: 'arpo', settings: {}, steps: 1 });
  await until(() => h.deps.stores.training.get(id).endedAt !== null);
  expect(h.deps.stores.training.get(id).status).toBe('completed');
}

/** One rated conversation of a session; the version that answered. */
async function converse(session: string, reward: (version: number) => number): Promise<number> {
  const body = { model: 'ramify', messages: [{ role: 'user', content: 'x' }] };
  const headers = { 'x-session-id': session };
  const answer = await h.call('createChatCompletion', { body, headers });
  expect(answer.status).toBe(200);
  const version = Number(answer.headers.get('x-ramify-policy'));
  const trajectory_id = answer.headers.get('x-ramify-trajectory');
  const rating = { trajectory_id, metric_name: 'reward', value: reward(version) };
  expect((await h.call('createFeedback', { body: rating })).status).toBe(200);
  return version;
}

async function converseMany(
  count: number,
  reward: (version: number) => number,
  name = 's',
): Promise<number[]> {
  const seen: number[] = [];
  while (seen.length < count) {
    const batch = Array.from({ length: Math.min(40, count - seen.length) }, (_, i) =>
      converse(`${name}${seen.length + i}`, reward),
    );
    seen.push(...(await Promise.all(batch)));
  }
  return seen;
}

const status = (version: number): string => h.deps.stores.policies.get(version).status;

function newestDecision(version: number): PolicyDecision {
  const [newest] = h.deps.stores.policies.decisions.list({ version }, { limit: 1 }).items;
  if (newest === undefined) throw new Error(`no decision about ${version}`);
  return newest;
}

test('without a canary a candidate that passed is live at once', async () => {
  await start();
  await release();
  expect([status(1), status(2)]).toEqual(['retired', 'active']);
  expect(newestDecision(2)).toMatchObject({ kind: 'activated', otherVersion: 1, cause: 'gate' });
});

test('a canary gets its share of sessions, each always on one side; pins are not drawn', async () => {
  await start({ release: { canary: { ...TERMS, share: 0.25 } } });
  await release();
  expect([status(1), status(2)]).toEqual(['active', 'canary']);
  expect((await h.call('listPolicies')).body).toMatchObject({ active: 1, canary: 2 });
  const seen = await converseMany(200, () => 1);
  const share = seen.filter((version) => version === 2).length / seen.length;
  expect(share).toBeGreaterThan(0.15);
  expect(share).toBeLessThan(0.35);
  // The agent's runs of a session are on the side of its chats.
  for (let i = 0; i < 20; i++) {
    const headers = { 'x-session-id': `s${i}` };
    const run = await h.call('createAgentRun', { body: { input: 'x' }, headers });
    expect(run.body.policy_version).toBe(seen[i]);
  }
  const opened = await Promise.all(
    ['ramify@1', 'ramify@2'].map((model) => h.deps.policies.open(model, { key: 's0' })),
  );
  expect(opened.map(({ policy }) => policy.version)).toEqual([1, 2]);
  for (const { sequence } of opened) sequence.close();
});

test('a canary that does well becomes live, with the figures', async () => {
  await start({ release: { canary: TERMS } });
  await release();
  await converseMany(20, () => 1);
  await h.releases.look();
  expect(status(2)).toBe('canary');
  await converseMany(60, () => 1, 't');
  await h.releases.look();
  expect([status(1), status(2)]).toEqual(['retired', 'active']);
  expect(await converse('u', () => 1)).toBe(2);
  const decision = newestDecision(2);
  expect(decision).toMatchObject({ kind: 'activated', cause: 'live', figures: { canary: TERMS } });
  expect(decision.figures.live?.candidate.conversations).toBeGreaterThanOrEqual(30);
});

test('time is enough for a canary that nothing speaks against', async () => {
  await start({ release: { canary: { ...TERMS, minutes: 1e-9 } } });
  await release();
  await h.releases.look();
  expect(status(2)).toBe('active');
  expect(newestDecision(2).reason).toMatch(
    /^nothing against it in 0 conversations in 0\.\d minutes$/,
  );
});

test('a canary with lower rewards is taken back; its sessions go on with the live version', async () => {
  await start({ release: { canary: TERMS } });
  await release();
  const seen = await converseMany(50, (version) => (version === 1 ? 1 : 0));
  await h.releases.look();
  expect([status(1), status(2)]).toEqual(['active', 'rolled_back']);
  const decision = newestDecision(2);
  expect(decision).toMatchObject({ kind: 'rolled_back', otherVersion: 1, cause: 'live' });
  expect(decision.reason).toMatch(/^reward is lower: difference -1\.000 \[/);
  expect(decision.figures.live).toMatchObject({
    base: { version: 1, rewardMean: 1, rated: seen.filter((version) => version === 1).length },
    candidate: { version: 2, rewardMean: 0 },
  });
  const session = `s${seen.indexOf(2)}`;
  expect(await converse(session, () => 1)).toBe(1);
  await until(() => h.engine.stats().versions.join() === '1');
});

test('a live version with more errors is taken back, without any reward', async () => {
  await start();
  const ask = async (count: number): Promise<void> => {
    const call = () => h.call('createAgentRun', { body: { input: 'x' } });
    await Promise.all(Array.from({ length: count }, call));
  };
  await ask(30);
  await release();
  h.engine.script = (_, version) => (version === 2 ? 'no tags at all<|im_end|>' : ANSWER_SCRIPT());
  await ask(LIMITS.liveRatedMin - 1);
  await h.releases.look();
  expect(status(2)).toBe('active');
  await ask(10);
  await h.releases.look();
  expect([status(1), status(2)]).toEqual(['active', 'rolled_back']);
  expect(newestDecision(2).reason).toMatch(/^more errors: difference 1\.000 \[/);
});

test('equal rewards take nothing back, and a switched-off look does not either', async () => {
  await start();
  const mixed = (): ((version: number) => number) => {
    let i = 0;
    return () => i++ % 2;
  };
  await converseMany(40, mixed());
  await release();
  await converseMany(40, mixed(), 't');
  await h.releases.look();
  expect(status(2)).toBe('active');
  await h.close();
  await start({ release: { rollbackTolerance: null } });
  await converseMany(30, () => 1);
  await release();
  await converseMany(30, () => 0, 't');
  await h.releases.look();
  expect(status(2)).toBe('active');
});

test('what the log forgets changes no judgement: all stays until it is settled, for good', async () => {
  await start();
  await converseMany(30, () => 1);
  await release();
  await converseMany(1, () => 1, 't');
  const { logRemoval, stepLog, trajectories } = h.deps.stores;
  const copies = (policyVersion: number, count: number) => {
    const [one] = trajectories.list({ policyVersion, source: 'live' }).items;
    return Array.from({ length: count }, () => {
      const id = h.deps.newId('trajectory');
      return { ...one!, id, conversationId: `conv_of_${id}` };
    });
  };
  const old = () => {
    const after = { createdAt: 0, id: '' };
    const found = logRemoval.oldest(after, Number.MAX_SAFE_INTEGER, 2_000).old;
    return found.filter(({ conversation }) => conversation?.startsWith('conv_of_') === true);
  };
  const [before, own] = [copies(1, 5), copies(2, LIMITS.liveTrajectoriesMax)];
  await stepLog.append({ trajectories: before });
  await stepLog.append({ trajectories: own.slice(1) });
  expect(old().map(({ policyVersion }) => policyVersion)).toEqual([1, 1, 1, 1, 1]);
  await h.releases.look();
  expect(await logRemoval.remove(old(), Date.now())).toBe(LIMITS.liveTrajectoriesMax + 4);
  expect(old()).toEqual([]);
  await converseMany(60, () => 0, 'u');
  await h.releases.look();
  expect(status(2)).toBe('active');
});

test('what an operator activated is left alone', async () => {
  await start();
  await converseMany(30, () => 1);
  await release();
  await h.call('rollbackPolicy');
  await h.call('activatePolicy', { path: { version: 2 } });
  await converseMany(30, () => 0, 't');
  await h.releases.look();
  expect(status(2)).toBe('active');
});

test('a rollback by request takes the canary back', async () => {
  await start({ release: { canary: TERMS } });
  await release();
  expect((await h.call('rollbackPolicy')).body.version).toBe(1);
  expect([status(1), status(2)]).toEqual(['active', 'rolled_back']);
  expect(h.deps.policies.canaryVersion).toBeNull();
});

test('a canary gives way to the next candidate, and to an activation by hand', async () => {
  await start({ release: { canary: TERMS } });
  await release();
  await release();
  expect([status(2), status(3)]).toEqual(['candidate', 'canary']);
  expect(newestDecision(2)).toMatchObject({ kind: 'canary_ended', otherVersion: 3 });
  await h.call('activatePolicy', { path: { version: 2 } });
  expect([status(1), status(2), status(3)]).toEqual(['retired', 'active', 'candidate']);
});

test('a canary goes on after a restart, with the same sessions', async () => {
  await start({ release: { canary: TERMS } });
  await release();
  const seen = await converseMany(20, () => 1);
  const { stores, clock, newId, logger } = h.deps;
  const { loadText } = await import('../core/text/load-text.ts');
  const again = new PolicyService({
    ...{ store: stores.policies, engine: h.engine, loadText, clock, newId, logger },
  });
  await again.start();
  expect(again.canaryVersion).toBe(2);
  for (const [i, version] of seen.entries()) {
    const { policy, sequence } = await again.open('ramify', { key: `s${i}` });
    expect(policy.version).toBe(version);
    sequence.close();
  }
});

test('16 streams through canary, rollback, canary and promotion: none fails, none is mixed', async () => {
  await start({ release: { canary: { ...TERMS, minutes: 1e-9 } } });
  h.engine.pieceMs = 2;
  h.engine.script = (_, version) =>
    `<think>${'the capital of France '.repeat(6)}</think><answer>\\boxed{${version}}</answer><|im_end|>`;
  let asking = true;
  const client = async (_: unknown, i: number): Promise<number[]> => {
    const seen: number[] = [];
    while (asking) {
      const body = { model: 'ramify', messages: [{ role: 'user', content: 'x' }], stream: true };
      const headers = { 'x-session-id': `client${i}-${seen.length}` };
      const { body: chunks } = await h.call('createChatCompletion', { body, headers });
      const content = chunks
        .map((chunk: { choices: { delta: { content?: string } }[] }) => chunk.choices[0])
        .map((choice: { delta: { content?: string } }) => choice.delta.content ?? '')
        .join('');
      expect(new Set(chunks.map(({ model }: { model: string }) => model))).toEqual(
        new Set([`ramify@${content}`]),
      );
      expect(chunks.at(-1).choices[0].finish_reason).toBe('stop');
      seen.push(Number(content));
    }
    return seen;
  };
  const clients = Array.from({ length: 16 }, client);
  const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 150));
  await release();
  await settle();
  await h.call('rollbackPolicy');
  await settle();
  await release();
  await settle();
  await h.releases.look();
  await settle();
  asking = false;
  const seen = (await Promise.all(clients)).flat();
  expect(new Set(seen)).toEqual(new Set([1, 2, 3]));
  expect(status(3)).toBe('active');
  await until(() => h.engine.stats().versions.join() === '1,3');
});
