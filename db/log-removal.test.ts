/** What may leave the log and what stays, by rows: nothing that something else still uses goes. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ManualClock } from '../core/clock.ts';
import { LIMITS } from '../core/limits.ts';
import { Prng } from '../core/prng.ts';
import type {
  AgentRunRecord,
  ResponseItem,
  ResponseRecord,
  StepRecord,
  TrajectoryRecord,
} from '../core/records.ts';
import { chain, trajectoryOf } from '../test/fixtures/random-records.ts';
import type { LeftOverKind } from './log-removal.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

const NOW = 1_000_000;

let db: Database;
let stores: Stores;
let clock: ManualClock;
let prng: Prng;

beforeEach(() => {
  clock = new ManualClock(NOW);
  prng = new Prng(7);
  db = openDatabase(':memory:');
  stores = openStores(db, clock);
});
afterEach(() => stores.close());

const ids = (table: string): string[] =>
  db.sqlite.prepare<[], string>(`SELECT id FROM ${table} ORDER BY id`).pluck().all();
const count = (table: string): number =>
  db.sqlite.prepare<[], number>(`SELECT count(*) FROM ${table}`).pluck().get() ?? -1;

/** One of three steps below `parent`, created at the time. */
async function logged(
  name: string,
  createdAt: number,
  fields: Partial<TrajectoryRecord> = {},
  parent: StepRecord | null = null,
): Promise<StepRecord[]> {
  const steps = chain(prng, `step_${name}`, 3, parent);
  const trajectory = trajectoryOf(`traj_${name}`, steps[2]!, { createdAt, ...fields });
  await stores.stepLog.append({ steps, trajectories: [trajectory] });
  return steps;
}

const oldest = (before = NOW, limit = 100) =>
  stores.logRemoval.oldest({ createdAt: 0, id: '' }, before, limit);
/** Removes all that may go. */
const removeOld = (before = NOW): Promise<number> =>
  stores.logRemoval.remove(oldest(before).old, clock.now());

function run(id: string, fields: Partial<AgentRunRecord>): AgentRunRecord {
  return {
    ...{ id, status: 'completed', tenant: 'default', model: 'ramify', policyVersion: 1 },
    ...{ request: {}, trajectoryId: null, answer: null, usage: null, error: null, createdAt: 1 },
    ...{ startedAt: 1, endedAt: 2, conversationId: null, leafStepId: null, waitsUntil: null },
    ...{ progress: null, keyId: null, ...fields },
  };
}

function response(id: string, fields: Partial<ResponseRecord>): ResponseRecord {
  return {
    ...{ id, tenant: 'default', status: 'completed', policyVersion: 1, settings: {} },
    ...{ previousId: null, conversationId: null, sessionId: null, trajectoryId: null },
    ...{ leafStepId: null, usage: null, error: null, incompleteReason: null, createdAt: 1 },
    ...{ completedAt: 2, ...fields },
  };
}

const item = (id: string): ResponseItem => ({ id, type: 'message', role: 'user' });
const save = (record: ResponseRecord): Promise<void> =>
  stores.responses.save(record, { input: [item(`in_${record.id}`)], output: [item('out')] });

async function trainingRun(id: string): Promise<void> {
  const counts = { rollouts: 0, branches: 0, toolCallsExecuted: 0, toolCallsSaved: 0 };
  stores.training.create({
    ...{ id, status: 'queued', trigger: 'request', algorithm: 'arpo', settings: {} },
    ...{ baseVersion: 1, candidateVersion: null, step: 0, steps: 1, gate: null, error: null },
    ...{ counts: { ...counts, tokensSampled: 0 }, createdAt: 1, startedAt: null, endedAt: null },
  });
}

test('the oldest come first, in pieces that go on from each other, and none of the bound', async () => {
  for (const [i, name] of ['c', 'a', 'b', 'd'].entries()) await logged(name, 10 + i);
  const names = (piece: ReturnType<typeof oldest>): string[] => piece.old.map(({ id }) => id);
  const first = oldest(13, 2);
  expect(names(first)).toEqual(['traj_c', 'traj_a']);
  expect(first.last).toMatchObject({ createdAt: 11, id: 'traj_a' });
  const second = stores.logRemoval.oldest(first.last!, 13, 2);
  expect(names(second)).toEqual(['traj_b']);
  expect(second.last).toBeNull();
});

test('with it goes what nothing else uses; shared steps, and those with feedback, stay', async () => {
  const tools = [{ name: 'find', description: 'Finds.', parameters: { type: 'object' } }];
  const offer = { tools, metadata: null };
  const old = await logged('old', 10, { conversationId: 'conv_a', offer });
  const young = await logged('young', NOW, { branchedFromStepId: old[1]!.id }, old[1]);
  await logged('alone', 20, { conversationId: 'conv_b' });
  const said = { metricName: 'comment', value: 'good', tags: {}, createdAt: 1 };
  const give = (id: string, trajectoryId: string, step: StepRecord) =>
    stores.feedback.record({ id, trajectoryId, stepId: step.id, ...said });
  await give('fb_own', 'traj_old', old[2]!);
  await give('fb_shared', 'traj_young', old[1]!);
  expect(await removeOld()).toBe(2);
  expect(ids('trajectories')).toEqual(['traj_young']);
  const kept = [old[0]!, old[1]!, ...young];
  expect(ids('steps')).toEqual(kept.map(({ id }) => id).sort());
  expect(ids('feedback')).toEqual(['fb_shared']);
  expect(count('tool_calls')).toBe(kept.filter(({ toolCall }) => toolCall !== null).length);
  expect(count('conversations')).toBe(0);
  expect(count('offered_tools')).toBe(0);
  expect(db.sqlite.pragma('foreign_key_check')).toEqual([]);
  expect(stores.trajectories.get('traj_young').steps).toHaveLength(5);
  expect(await removeOld(NOW + 1)).toBe(1);
  expect([count('steps'), count('tool_calls'), count('feedback')]).toEqual([0, 0, 0]);
  expect(count('trajectory_tools')).toBe(0);
});

test('a list of tools and a conversation stay while another trajectory names them', async () => {
  const offer = { tools: [{ name: 'a', description: '', parameters: {} }], metadata: null };
  await logged('old', 10, { conversationId: 'conv_a', offer });
  await logged('young', NOW, { conversationId: 'conv_a', offer });
  expect(await removeOld()).toBe(1);
  expect(stores.conversations.find('conv_a')?.lastTrajectoryId).toBe('traj_young');
  expect(stores.trajectories.offerOf('traj_young').tools).toHaveLength(1);
});

test('what is under way or waits stays, and so does its conversation; what has ended goes', async () => {
  const { agentRuns } = stores;
  const endedAt = null;
  for (const status of ['queued', 'in_progress', 'requires_action'] as const) {
    await logged(status, 10);
    await agentRuns.create(
      run(`run_${status}`, { status, endedAt, trajectoryId: `traj_${status}` }),
    );
  }
  for (const status of ['completed', 'failed', 'cancelled'] as const) {
    await logged(status, 10);
    await agentRuns.create(run(`run_${status}`, { status, trajectoryId: `traj_${status}` }));
  }
  await logged('earlier', 5, { conversationId: 'conv_run' });
  const waits = { status: 'requires_action', endedAt, conversationId: 'conv_run' } as const;
  await agentRuns.create(run('run_in_conversation', waits));
  await logged('answered', 5, { conversationId: 'conv_response' });
  const works = { status: 'in_progress', completedAt: null } as const;
  await save(response('resp_in_conversation', { ...works, conversationId: 'conv_response' }));
  await logged('response', 10);
  await save(response('resp_works', { ...works, trajectoryId: 'traj_response' }));
  await logged('done', 10);
  await save(response('resp_done', { trajectoryId: 'traj_done' }));
  expect(await removeOld()).toBe(4);
  const stay = ['answered', 'earlier', 'in_progress', 'queued', 'requires_action', 'response'];
  expect(ids('trajectories')).toEqual(stay.map((name) => `traj_${name}`));
  const runs = ['in_conversation', 'in_progress', 'queued', 'requires_action'];
  expect(ids('agent_runs')).toEqual(runs.map((name) => `run_${name}`));
  expect(ids('responses')).toEqual(['resp_in_conversation', 'resp_works']);
  // It ends between the choice and the removal, or begins.
  const chosen = oldest().old;
  await agentRuns.update('run_queued', { status: 'completed', endedAt: 3 });
  expect(chosen).toEqual([]);
  const now = oldest().old;
  expect(now.map(({ id }) => id)).toEqual(['traj_queued']);
  await agentRuns.update('run_queued', { status: 'in_progress', endedAt });
  expect(await stores.logRemoval.remove(now, NOW)).toBe(0);
});

test('while a training run is queued or running nothing goes', async () => {
  await logged('old', 10);
  const { old } = oldest();
  await trainingRun('trn_a');
  for (const status of ['queued', 'running'] as const) {
    stores.training.update('trn_a', { status });
    expect(stores.logRemoval.isRead).toBe(true);
    expect(await stores.logRemoval.remove(old, NOW)).toBe(0);
  }
  stores.training.update('trn_a', { status: 'rejected' });
  expect(await stores.logRemoval.remove(old, NOW)).toBe(1);
});

test('what has changed since it was chosen stays', async () => {
  await logged('rated', 10);
  await logged('commented', 11);
  await logged('same', 12);
  const { old } = oldest();
  const of = { stepId: null, tags: {}, createdAt: 1 };
  const rated = { id: 'fb_1', trajectoryId: 'traj_rated', metricName: 'reward', value: 1 };
  await stores.feedback.record({ ...of, ...rated });
  const said = { id: 'fb_2', trajectoryId: 'traj_commented', metricName: 'comment', value: 'no' };
  await stores.feedback.record({ ...of, ...said });
  expect(await stores.logRemoval.remove(old, NOW)).toBe(1);
  expect(ids('trajectories')).toEqual(['traj_commented', 'traj_rated']);
  expect(await removeOld()).toBe(2);
});

test('what a request goes on from stays as long as a request may take', async () => {
  await logged('old', 10);
  await logged('of_session', 10, { conversationId: 'conv_a' });
  const { old } = oldest();
  stores.recentUse.note('traj_old');
  stores.recentUse.note('conv_a');
  expect(await stores.logRemoval.remove(old, NOW)).toBe(0);
  expect(oldest().old).toEqual([]);
  clock.advance(LIMITS.recentUseMs);
  expect(await removeOld()).toBe(2);
  expect(count('conversations')).toBe(0);
});

test('of the noted uses only the newest are remembered', () => {
  for (let i = 0; i <= LIMITS.recentUsesMax; i++) stores.recentUse.note(`traj_${i}`);
  expect(stores.recentUse.has('traj_0')).toBe(false);
  expect(stores.recentUse.has('traj_1')).toBe(true);
  expect(stores.recentUse.has(`traj_${LIMITS.recentUsesMax}`)).toBe(true);
});

test('what is worked on stays, even behind more notes than are kept, and for no longer', async () => {
  await logged('old', 10);
  const { old } = oldest();
  const { recentUse } = stores;
  await recentUse.during(['traj_old'], async () => {
    await recentUse.during(['traj_old'], async () => {});
    for (let i = 0; i <= LIMITS.recentUsesMax; i++) recentUse.note(`traj_${i}`);
    expect(await stores.logRemoval.remove(old, NOW)).toBe(0);
  });
  expect(await stores.logRemoval.remove(old, NOW)).toBe(1);
  const failing = recentUse.during(['traj_old'], () => Promise.reject(new Error('full')));
  await expect(failing).rejects.toThrow('full');
  expect(recentUse.has('traj_old')).toBe(false);
});

test('a response that others go on from is hidden, and goes with the last of them', async () => {
  await logged('first', 10, { conversationId: 'conv_a' });
  await logged('second', 500);
  await save(response('resp_1', { trajectoryId: 'traj_first', conversationId: 'conv_a' }));
  await save(response('resp_2', { trajectoryId: 'traj_second', previousId: 'resp_1' }));
  expect(await removeOld(100)).toBe(1);
  expect(stores.responses.find('resp_1', undefined)).toBeNull();
  const whole = stores.responses.chain('resp_2', 100);
  expect(whole.map(({ record }) => record.id)).toEqual(['resp_1', 'resp_2']);
  expect(whole[0]?.input).toHaveLength(1);
  expect(count('conversations')).toBe(1);
  expect(await removeOld()).toBe(1);
  expect([count('responses'), count('response_items'), count('conversations')]).toEqual([0, 0, 0]);
});

test('rows that lost their trajectory, or never had one, go by age', async () => {
  const kept = await logged('there', NOW);
  const { agentRuns, conversations } = stores;
  const prompt = chain(prng, 'step_failed', 1);
  await stores.stepLog.append({ steps: prompt });
  const leafStepId = prompt[0]!.id;
  await agentRuns.create(run('run_1', { status: 'failed', trajectoryId: 'traj_gone', leafStepId }));
  await agentRuns.create(run('run_2', { trajectoryId: 'traj_there' }));
  await agentRuns.create(run('run_3', { status: 'requires_action', endedAt: null }));
  await agentRuns.create(run('run_4', { createdAt: NOW }));
  await save(response('resp_1', { status: 'failed' }));
  await save(response('resp_2', { status: 'in_progress', completedAt: null }));
  await save(response('resp_3', { status: 'failed', leafStepId: 'step_there-2' }));
  const open = (id: string, nowMs: number) =>
    conversations.open({ tenant: 'default', sessionKey: id }, { id, nowMs });
  await open('conv_1', 1);
  await open('conv_2', 1);
  await open('conv_3', NOW);
  await agentRuns.update('run_2', { conversationId: 'conv_2' });
  // In pieces of one row.
  for (const kind of ['agentRun', 'response', 'conversation'] as LeftOverKind[]) {
    for (let after: string | null = ''; after !== null;) {
      const piece = { after, before: NOW, limit: 1 };
      after = await stores.logRemoval.removeLeftOver(kind, piece, NOW);
    }
  }
  expect(ids('agent_runs')).toEqual(['run_2', 'run_3', 'run_4']);
  expect(ids('responses')).toEqual(['resp_2', 'resp_3']);
  expect(ids('conversations')).toEqual(['conv_2', 'conv_3']);
  expect(ids('steps')).toEqual(kept.map(({ id }) => id));
});

test('what a trajectory uses is near what the database grows by; each step counts once', async () => {
  const before = stores.logRemoval.usedBytes;
  const counted = new Set<string>();
  let bytes = 0;
  for (let i = 0; i < 400; i++) {
    // Ids as long as real ones.
    const name = String(i).padStart(30, '0');
    const old = await logged(`${name}_old`, 10);
    const branch = await logged(`${name}_new`, 11, {}, old[1]);
    bytes += stores.logRemoval.bytesOf({ leaf: old[2]!.id }, counted);
    bytes += stores.logRemoval.bytesOf({ leaf: branch[2]!.id }, counted);
  }
  expect(counted.size).toBe(count('steps'));
  const grown = stores.logRemoval.usedBytes - before;
  expect(bytes).toBeGreaterThan(0.7 * grown);
  expect(bytes).toBeLessThan(1.3 * grown);
});
