/**
 * The authorisation table: every operation of the contract by everyone who may come: no key, a key
 * that is wrong, expired, revoked or replaced, an agent of the tenant, an agent of another tenant,
 * an admin, an admin of another tenant. The data asked for is of the tenant `default`. A new
 * operation has no row and does not compile; what its row says must fit the contract.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadContract } from './contract/contract.ts';
import type { OperationId } from './contract/contract.ts';
import { waitingRun } from './testing/agent-cases.ts';
import { startHarness } from './testing/harness.ts';
import type { Answer, CallOptions, Harness, KeyHeaders } from './testing/harness.ts';
import { trajectoryOf } from './testing/log-cases.ts';
import { VALID } from './testing/valid-calls.ts';

const contract = loadContract();

interface Row {
  scope: 'agent' | 'admin' | null;
  /** What who may call it gets. */
  allowed: number;
  /**
   * What an agent of another tenant gets: the refusal for an unknown id, a list without what is not
   * its own, or what is its own (or everybody's).
   */
  otherTenant?:
    | 'response_not_found'
    | 'agent_run_not_found'
    | 'trajectory_not_found'
    | 'empty list'
    | 'its own';
}

const admin = (allowed = 200): Row => ({ scope: 'admin', allowed });
const own = (allowed = 200): Row => ({ scope: 'agent', allowed, otherTenant: 'its own' });
const run: Row = { scope: 'agent', allowed: 200, otherTenant: 'agent_run_not_found' };
const trajectory: Row = { scope: 'agent', allowed: 200, otherTenant: 'trajectory_not_found' };
const response: Row = { scope: 'agent', allowed: 200, otherTenant: 'response_not_found' };
const list: Row = { scope: 'agent', allowed: 200, otherTenant: 'empty list' };
const open: Row = { scope: null, allowed: 200 };

const TABLE: Record<OperationId, Row> = {
  createChatCompletion: own(),
  listModels: own(),
  getModel: own(),
  createAgentRun: own(),
  listAgentRuns: list,
  getAgentRun: run,
  streamAgentRunEvents: run,
  // Its run is a background one.
  submitToolOutputs: { ...run, allowed: 202 },
  cancelAgentRun: run,
  callMcp: own(),
  createResponse: own(),
  getResponse: response,
  deleteResponse: response,
  cancelResponse: response,
  listResponseInputItems: response,
  listTrajectories: list,
  getTrajectory: trajectory,
  getTrajectoryTree: trajectory,
  exportTrajectories: admin(),
  importTrajectories: admin(),
  listFeedback: trajectory,
  replayTrajectory: trajectory,
  createFeedback: trajectory,
  getTask: admin(),
  deleteTask: admin(),
  importTasks: admin(),
  listTasks: admin(),
  // The tools are the server's, the same for all.
  listTools: own(),
  listCollections: admin(),
  importDocuments: admin(),
  deleteDocument: admin(),
  deleteCollection: admin(),
  // There is nothing to train on.
  retrain: admin(400),
  listTrainingRuns: admin(),
  getTrainingRun: admin(),
  streamTrainingRunEvents: admin(),
  cancelTrainingRun: admin(),
  listPolicies: admin(),
  getPolicy: admin(),
  listPolicyDecisions: admin(),
  activatePolicy: admin(),
  // There is nothing to go back to.
  rollbackPolicy: admin(409),
  createKey: admin(201),
  listKeys: admin(),
  revokeKey: admin(),
  rotateKey: admin(),
  listAudit: admin(),
  getHealth: open,
  getReadiness: open,
  getOpenapi: open,
  getDocs: open,
  getDocsFile: open,
};

let h: Harness;

beforeEach(async () => {
  h = await startHarness();
  // Something of the tenant `default` for every list.
  await trajectoryOf(h);
  await h.call('createAgentRun', { body: { input: 'x' } });
});

afterEach(() => h.close());

/** The call of the row, on data of the tenant `default`, once there are keys. */
async function requestOf(id: OperationId): Promise<CallOptions> {
  const options = await VALID[id](h);
  await h.key();
  if (id !== 'revokeKey' && id !== 'rotateKey') return options;
  const [newest] = h.deps.stores.keys.list().items;
  return { ...options, path: { key_id: newest?.id ?? '' } };
}

/** The key comes last: what the call is about was made before there were keys. */
async function callWith(id: OperationId, request: Parameters<Harness['key']>[0]): Promise<Answer> {
  const options = await requestOf(id);
  return h.call(id, { ...options, headers: await h.key(request) });
}

const auditRows = (): number => h.deps.stores.audit.list().items.length;

/** Each makes the headers of a key that is no good, though an admin's. */
const NO_GOOD: Record<string, () => Promise<Record<string, string>>> = {
  'no key': async () => ({}),
  'a key that nobody has': async () => ({ authorization: `Bearer rk_${'A'.repeat(43)}` }),
  'a key with another end': async () => {
    const { authorization } = await h.key({ scopes: ['admin'] });
    return { authorization: `${authorization.slice(0, -4)}AAAA` };
  },
  'no bearer': async () => {
    const { authorization } = await h.key({ scopes: ['admin'] });
    return { authorization: authorization.replace('Bearer', 'Basic') };
  },
  'an expired key': async () => {
    const headers = await h.key({ scopes: ['admin'], expiresAt: h.deps.clock.now() + 20 });
    await sleep(30);
    return headers;
  },
  'a revoked key': async () => {
    const headers = await h.key({ scopes: ['admin'] });
    await h.deps.keys.revoke(newestKey());
    return headers;
  },
  'a secret that was replaced': async () => {
    const headers = await h.key({ scopes: ['admin'] });
    await h.deps.keys.rotate(newestKey(), 0);
    return headers;
  },
};

function newestKey(): string {
  return h.deps.stores.keys.list().items[0]?.id ?? '';
}

describe.each(contract.operations)('$id', ({ id, scope }) => {
  const row = TABLE[id];

  test('keys that are no good, and its row', async () => {
    expect(row.scope).toBe(scope);
    const options = await requestOf(id);
    const rows = auditRows();
    for (const [what, headersOf] of Object.entries(NO_GOOD)) {
      const answer = await h.call(id, { ...options, headers: await headersOf() });
      expect([answer.status, answer.code], what).toEqual(
        scope === null ? [row.allowed, null] : [401, 'invalid_api_key'],
      );
    }
    expect(auditRows()).toBe(rows);
  });

  test('an agent', async () => {
    const options = await requestOf(id);
    const [rows, headers] = [auditRows(), await h.key()];
    const answer = await h.call(id, { ...options, headers });
    if (scope === 'admin') {
      expect([answer.status, answer.code]).toEqual([403, 'insufficient_scope']);
      expect(auditRows()).toBe(rows);
      return;
    }
    expect(answer.status).toBe(row.allowed);
    if (row.otherTenant === 'empty list') expect(answer.body.data).not.toEqual([]);
  });

  test('an agent of another tenant', async () => {
    const answer = await callWith(id, { tenant: 'other' });
    const { otherTenant = scope === 'admin' ? 'insufficient_scope' : 'its own' } = row;
    if (otherTenant === 'its own') {
      expect(answer.status).toBe(row.allowed);
      const made = answer.headers.get('x-ramify-trajectory');
      if (made !== null) expect(h.deps.stores.trajectories.find(made)?.tenant).toBe('other');
    } else if (otherTenant === 'empty list') {
      expect(answer.body.data).toEqual([]);
    } else {
      expect(answer.code).toBe(otherTenant);
      expect(answer.status).toBe(scope === 'admin' ? 403 : 404);
    }
  });

  test.each(['default', 'other'])('an admin of the tenant %s', async (tenant) => {
    const answer = await callWith(id, { scopes: ['admin'], tenant });
    expect(answer.status).toBe(row.allowed);
    if (row.otherTenant === 'empty list') expect(answer.body.data).not.toEqual([]);
  });
});

describe('another tenant', () => {
  const messages = [{ role: 'user', content: 'What is the capital of France?' }];

  test('changes nothing of a run that it cannot see', async () => {
    const { id, call } = await waitingRun(h);
    const headers = await h.key({ tenant: 'other' });
    const path = { run_id: id };
    const body = { tool_outputs: [{ tool_call_id: call, output: 'Rome' }] };
    expect((await h.call('submitToolOutputs', { path, headers, body })).status).toBe(404);
    expect((await h.call('cancelAgentRun', { path, headers })).status).toBe(404);
    expect(h.deps.stores.agentRuns.get(id).status).toBe('requires_action');
  });

  test('says nothing of a trajectory, by its id or that of a step', async () => {
    const id = await trajectoryOf(h);
    const { steps } = h.deps.stores.trajectories.get(id);
    const headers = await h.key({ tenant: 'other' });
    for (const target of [{ trajectory_id: id }, { step_id: steps[1]?.id }]) {
      const body = { ...target, metric_name: 'reward', value: 1 };
      expect((await h.call('createFeedback', { headers, body })).status).toBe(404);
    }
    expect(h.deps.stores.trajectories.get(id).trajectory.reward).toBeNull();
  });

  test('has conversations of its own under the same session, and feedback under the same id', async () => {
    const tenants = { a: await h.key({ tenant: 'a' }), b: await h.key({ tenant: 'b' }) };
    const made: string[] = [];
    for (const [tenant, key] of Object.entries(tenants)) {
      const headers = { ...key, 'x-session-id': 'same' };
      const body = { model: 'ramify', messages };
      const answer = await h.call('createChatCompletion', { headers, body });
      const id = answer.headers.get('x-ramify-trajectory') as string;
      const conversationId = h.deps.stores.trajectories.find(id)?.conversationId;
      const session = { tenant, sessionKey: 'same' };
      expect(h.deps.stores.conversations.findBySession(session)?.id).toBe(conversationId);
      made.push(conversationId as string);
      const rating = { id: 'fb-1', trajectory_id: id, metric_name: 'reward', value: 1 };
      for (let i = 0; i < 2; i++) {
        const { body: said } = await h.call('createFeedback', { headers: key, body: rating });
        expect(said).toMatchObject({ id: 'fb-1', trajectory_id: id });
      }
    }
    expect(new Set(made).size).toBe(2);
  });

  test('does not go on from an answer that it did not get', async () => {
    const ask = async (headers: KeyHeaders, more: object[]): Promise<Answer> =>
      h.call('createChatCompletion', {
        headers,
        body: { model: 'ramify', messages: [...messages, ...more] },
      });
    const [a, b] = [await h.key({ tenant: 'a' }), await h.key({ tenant: 'b' })];
    const { message } = (await ask(a, [])).body.choices[0];
    const further = [message, { role: 'user', content: 'And of Italy?' }];
    const stepsOf = ({ headers }: Answer): number =>
      h.deps.stores.trajectories.get(headers.get('x-ramify-trajectory') as string).steps.length;
    expect(stepsOf(await ask(a, further))).toBe(4);
    expect(stepsOf(await ask(b, further))).toBe(2);
  });
});
