/**
 * Agent runs: round trip, changes, pages, and those that a start or the clock has to do with.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AgentRunRecord, AgentRunStatus } from '../core/records.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

const STATUSES: AgentRunStatus[] = [
  'queued',
  'in_progress',
  'requires_action',
  'completed',
  'failed',
  'cancelled',
];

let stores: Stores;

beforeEach(() => {
  stores = openStores(openDatabase(':memory:'));
});
afterEach(() => {
  stores.close();
});

function run(id: string, fields: Partial<AgentRunRecord> = {}): AgentRunRecord {
  return {
    id,
    status: 'queued',
    model: 'ramify',
    policyVersion: null,
    request: { input: 'What is 6 * 7?', tools: ['javascript'], metadata: { user: 'ann' } },
    trajectoryId: null,
    answer: null,
    usage: null,
    error: null,
    createdAt: 5,
    startedAt: null,
    endedAt: null,
    tenant: 'default',
    conversationId: null,
    leafStepId: null,
    keyId: null,
    waitsUntil: null,
    progress: null,
    ...fields,
  };
}

describe('AgentRunStore', () => {
  test('a run comes back as it was made and as it was changed', async () => {
    expect(await stores.agentRuns.create(run('run_1'))).toEqual(run('run_1'));
    const change: Partial<AgentRunRecord> = {
      status: 'completed',
      policyVersion: 3,
      trajectoryId: 'traj_1',
      answer: '42',
      usage: { promptTokens: 10, completionTokens: 20 },
      startedAt: 6,
      endedAt: 7,
    };
    expect(await stores.agentRuns.update('run_1', change)).toEqual({ ...run('run_1'), ...change });
    expect(await stores.agentRuns.update('run_1', {})).toEqual({ ...run('run_1'), ...change });
    expect(stores.agentRuns.get('run_1')).toEqual({ ...run('run_1'), ...change });
  });

  test('a tenant finds and lists its own runs', async () => {
    const { agentRuns } = stores;
    await agentRuns.create(run('run_1', { tenant: 'a' }));
    await agentRuns.create(run('run_2', { tenant: 'b' }));
    expect(agentRuns.list({ tenant: 'a' }).items).toEqual([run('run_1', { tenant: 'a' })]);
    expect(agentRuns.list().items).toHaveLength(2);
    expect(agentRuns.get('run_2', 'b').id).toBe('run_2');
    expect(agentRuns.find('run_2', 'a')).toBeNull();
    const unknown = expect.objectContaining({ code: 'agent_run_not_found' });
    expect(() => agentRuns.get('run_2', 'a')).toThrow(unknown);
  });

  test('unknown runs are said by name', async () => {
    const unknown = {
      code: 'agent_run_not_found',
      message: 'no agent run has the id run_9',
    };
    expect(() => stores.agentRuns.get('run_9')).toThrow(expect.objectContaining(unknown));
    await expect(stores.agentRuns.update('run_9', { answer: 'x' })).rejects.toMatchObject(unknown);
    expect(stores.agentRuns.find('run_9')).toBeNull();
  });

  test('pages are newest first and filter by status', async () => {
    const ids = [0, 1, 2, 3, 4].map((i) => `run_${i}`);
    await Promise.all(
      ids.map((id, i) =>
        stores.agentRuns.create(run(id, { status: i < 2 ? 'failed' : 'completed' })),
      ),
    );
    const first = stores.agentRuns.list({}, { limit: 2 });
    const rest = stores.agentRuns.list({}, { limit: 9, cursor: first.nextCursor ?? '' });
    expect([...first.items, ...rest.items].map(({ id }) => id)).toEqual(ids.reverse());
    const failed = stores.agentRuns.list({ status: 'failed' }).items;
    expect(failed.map(({ id }) => id)).toEqual(['run_1', 'run_0']);
  });

  test('runs that have not ended, and those that waited too long', async () => {
    const waiting = (id: string, waitsUntil: number | null): AgentRunRecord =>
      run(id, { status: 'requires_action', waitsUntil, policyVersion: 3 });
    for (const [i, status] of STATUSES.entries()) {
      await stores.agentRuns.create(run(`run_${status}`, { status, policyVersion: i % 2 }));
    }
    await stores.agentRuns.create(waiting('run_soon', 10));
    await stores.agentRuns.create(waiting('run_later', 11));
    const { agentRuns } = stores;
    const ids = (records: AgentRunRecord[]): string[] => records.map(({ id }) => id);
    expect(ids(agentRuns.unfinished())).toEqual(['run_in_progress', 'run_queued']);
    // One without a time was made before runs could wait.
    expect(ids(agentRuns.expired(9))).toEqual(['run_requires_action']);
    expect(ids(agentRuns.expired(10)).sort()).toEqual(['run_requires_action', 'run_soon']);
    expect(agentRuns.countWaiting()).toBe(3);
    expect(agentRuns.versionsInUse().sort()).toEqual([0, 1, 3]);
    await agentRuns.update('run_soon', { status: 'in_progress', waitsUntil: null });
    expect(ids(agentRuns.expired(10))).toEqual(['run_requires_action']);
    expect(agentRuns.countWaiting()).toBe(2);
    await agentRuns.create({ ...waiting('run_keyed', 12), keyId: 'key_a' });
    const counts = [agentRuns.countWaiting('key_a'), agentRuns.countWaiting('key_b')];
    expect([...counts, agentRuns.countWaiting()]).toEqual([1, 0, 3]);
  });
});
