/** Cases of the operations tagged training, policies and health. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { TrainingStatus } from '../../core/records.ts';
import type { Case } from './cases.ts';
import { TASKS, until } from './harness.ts';
import type { Answer, Harness, Parsed } from './harness.ts';
import type { TrainerPlan } from './scripted-trainer.ts';

export async function retrain(h: Harness, body: object = {}): Promise<Answer> {
  h.deps.stores.tasks.import(TASKS);
  return h.call('retrain', { body: { steps: 2, ...body } });
}

/** A run that has ended as planned. */
export async function endedRun(h: Harness, end: TrainerPlan['end']): Promise<string> {
  h.plan.end = end;
  const { body } = await retrain(h);
  const status = (): TrainingStatus => h.deps.stores.training.get(body.id as string).status;
  await until(() => status() !== 'queued' && status() !== 'running');
  return body.id as string;
}

async function hangingRun(h: Harness): Promise<string> {
  h.plan.end = 'hang';
  const { body } = await retrain(h);
  await until(() => h.deps.stores.training.get(body.id as string).step === 2);
  return body.id as string;
}

/** Registers a copy of the live policy as version 2. */
function secondPolicy(h: Harness, path?: string): number {
  const { policies } = h.deps.stores;
  const first = policies.get(1);
  const { version } = policies.register({
    ...first,
    version: policies.nextVersion(),
    parentVersion: 1,
    status: 'candidate',
    path: path ?? first.path,
  });
  return version;
}

export const ADMIN_CASES: Case[] = [
  {
    operation: 'retrain',
    what: 'runs, passes the gate, and the candidate answers',
    status: 202,
    call: (h) =>
      retrain(h, { algorithm: 'arpo', source: 'tasks', seed: 1, settings: { groupSize: 4 } }),
    check: async ({ body }, h) => {
      expect(body.status).toBe('queued');
      expect(body.settings.groupSize).toBe(4);
      const path = { run_id: body.id as string };
      await until(() => h.deps.stores.training.get(path.run_id).endedAt !== null);
      const run = (await h.call('getTrainingRun', { path, query: { include: 'metrics' } })).body;
      expect(run.status).toBe('completed');
      expect(run).toMatchObject({ base_version: 1, candidate_version: 2 });
      expect(run.progress).toEqual({ step: 2, steps: 2 });
      expect(run.counts.tool_calls_saved).toBe(1);
      expect(run.metrics).toHaveLength(2);
      const messages = [{ role: 'user', content: 'x' }];
      const chat = await h.call('createChatCompletion', { body: { model: 'ramify', messages } });
      expect(chat.body.model).toBe('ramify@2');
      const query = { training_run_id: path.run_id, source: 'rollout' };
      const rows = (await h.call('listTrajectories', { query })).body.data;
      expect(rows).toHaveLength(6);
      const tree = { path: { trajectory_id: rows[0].id as string } };
      expect((await h.call('getTrajectoryTree', tree)).body.trajectories).toHaveLength(3);
    },
  },
  ...[
    { settings: { groupSise: 4 } },
    { settings: { groupSize: 'many' } },
    { settings: { gateTasks: LIMITS.gateTasksMin - 1 } },
    { algorithm: 'grpo', settings: { beta: 1 } },
    { source: 'live', settings: { multiToolBonus: 0.2 } },
    { algorithm: 'sft' },
    { steps: 0 },
  ].map((body): Case => ({
    operation: 'retrain',
    what: `refuses ${JSON.stringify(body)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => retrain(h, body),
    check: (answer) => expect(answer.body.error.param).not.toBeNull(),
  })),
  {
    operation: 'retrain',
    what: 'both without tasks has no setting of tasks alone',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('retrain', { body: { source: 'both', settings: { multiToolBonus: 0.2 } } }),
    check: ({ body }) => expect(body.error.param).toBe('settings.multiToolBonus'),
  },
  {
    operation: 'retrain',
    what: 'without tasks there is nothing to train on',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('retrain', { body: {} }),
    check: ({ body }) => expect(body.error.param).toBe('source'),
  },
  {
    operation: 'retrain',
    what: 'on live conversations, of which none has a reward',
    status: 400,
    code: 'invalid_request',
    call: (h) => retrain(h, { source: 'live' }),
    check: ({ body }) => expect(body.error.param).toBe('source'),
  },
  {
    operation: 'retrain',
    what: 'a second run queues; a full queue refuses',
    status: 503,
    code: 'training_queue_full',
    call: async (h) => {
      await hangingRun(h);
      for (let i = 0; i < LIMITS.trainingQueueMax; i++) {
        expect((await retrain(h)).body.status).toBe('queued');
      }
      return retrain(h);
    },
    check: ({ headers }) => expect(Number(headers.get('retry-after'))).toBeGreaterThan(0),
  },
  {
    operation: 'listTrainingRuns',
    what: 'newest first',
    status: 200,
    call: async (h) => {
      await endedRun(h, 'reject');
      await endedRun(h, 'die');
      return h.call('listTrainingRuns');
    },
    check: ({ body }) => {
      expect(body.data.map(({ status }: { status: string }) => status)).toEqual([
        'failed',
        'rejected',
      ]);
      expect(body.data[0].error).toContain('died');
      expect(body.data[1].gate.passed).toBe(false);
    },
  },
  {
    operation: 'listTrainingRuns',
    what: 'a limit out of range',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listTrainingRuns', { query: { limit: 1000 } }),
  },
  {
    operation: 'getTrainingRun',
    what: 'a run that failed leaves serving untouched',
    status: 200,
    call: async (h) => h.call('getTrainingRun', { path: { run_id: await endedRun(h, 'fail') } }),
    check: ({ body }, h) => {
      expect(body.status).toBe('failed');
      expect(body.error).toBe('loss is not a number');
      expect(h.deps.policies.liveVersion).toBe(1);
    },
  },
  {
    operation: 'streamTrainingRunEvents',
    what: 'a run that has ended, resumed after the second event',
    status: 200,
    call: async (h) => {
      const path = { run_id: await endedRun(h, 'pass') };
      return h.call('streamTrainingRunEvents', { path, headers: { 'last-event-id': '2' } });
    },
    check: ({ body, text }) => {
      expect(body.map(({ type }: { type: string }) => type)).toEqual([
        'step.completed',
        'step.completed',
        'gate.completed',
        'policy.decided',
        'policy.decided',
        'run.completed',
      ]);
      expect(text).toContain('id: 3\n');
    },
  },
  {
    operation: 'streamTrainingRunEvents',
    what: 'too many streams',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const path = { run_id: await hangingRun(h) };
      const url = `http://127.0.0.1/v1/admin/training-runs/${path.run_id}/events`;
      const open = await Promise.all(
        Array.from({ length: LIMITS.eventStreamsMax }, async () => await h.app.request(url)),
      );
      const answer = await h.call('streamTrainingRunEvents', { path });
      for (const response of open) await response.body?.cancel();
      return answer;
    },
  },
  {
    operation: 'streamTrainingRunEvents',
    what: 'a Last-Event-ID that is no number',
    status: 400,
    code: 'invalid_request',
    call: (h) =>
      h.call('streamTrainingRunEvents', {
        path: { run_id: 'trn_0' },
        headers: { 'last-event-id': 'x' },
      }),
  },
  {
    operation: 'cancelTrainingRun',
    what: 'the active run',
    status: 200,
    call: async (h) => h.call('cancelTrainingRun', { path: { run_id: await hangingRun(h) } }),
    check: async ({ body }, h) => {
      const run = () => h.deps.stores.training.get(body.id as string);
      await until(() => run().endedAt !== null);
      expect(run().status).toBe('cancelled');
    },
  },
  {
    operation: 'cancelTrainingRun',
    what: 'a run that waits',
    status: 200,
    call: async (h) => {
      await hangingRun(h);
      const { body } = await retrain(h);
      return h.call('cancelTrainingRun', { path: { run_id: body.id } });
    },
    check: ({ body }) => expect(body.status).toBe('cancelled'),
  },
  {
    operation: 'cancelTrainingRun',
    what: 'a run that has ended',
    status: 409,
    code: 'training_run_finished',
    call: async (h) => h.call('cancelTrainingRun', { path: { run_id: await endedRun(h, 'pass') } }),
  },
  ...(['getTrainingRun', 'streamTrainingRunEvents', 'cancelTrainingRun'] as const).flatMap(
    (operation): Case[] => [
      {
        operation,
        what: 'an unknown run',
        status: 404,
        code: 'training_run_not_found',
        call: (h) => h.call(operation, { path: { run_id: 'trn_0' } }),
      },
      {
        operation,
        what: 'an id of another kind',
        status: 400,
        code: 'invalid_request',
        call: (h) => h.call(operation, { path: { run_id: 'run_0' } }),
      },
    ],
  ),
  {
    operation: 'listPolicies',
    what: 'newest first, and the active one',
    status: 200,
    call: (h) => {
      secondPolicy(h);
      return h.call('listPolicies', { query: { limit: 1 } });
    },
    check: async ({ body }, h) => {
      expect(body.active).toBe(1);
      expect(body.data[0]).toMatchObject({ version: 2, parent: 1, status: 'candidate' });
      const next = await h.call('listPolicies', { query: { cursor: body.next_cursor as string } });
      expect(next.body.data).toHaveLength(1);
    },
  },
  {
    operation: 'listPolicies',
    what: 'a cursor that is none',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listPolicies', { query: { cursor: 'x' } }),
  },
  {
    operation: 'getPolicy',
    what: 'one that the gate rejected, with its figures',
    status: 200,
    call: async (h) => {
      await endedRun(h, 'reject');
      return h.call('getPolicy', { path: { version: 2 } });
    },
    check: ({ body }) => {
      expect(body).toMatchObject({ version: 2, parent: 1, status: 'rejected', removed_at: null });
      expect(body.eval.passed).toBe(false);
    },
  },
  {
    operation: 'getPolicy',
    what: 'an unknown version',
    status: 404,
    code: 'policy_not_found',
    call: (h) => h.call('getPolicy', { path: { version: 9 } }),
  },
  {
    operation: 'getPolicy',
    what: 'a version that is no number',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('getPolicy', { path: { version: 'new' } }),
  },
  {
    operation: 'listPolicyDecisions',
    what: 'gate, activation and rollback, newest first, by version and in pages',
    status: 200,
    call: async (h) => {
      await endedRun(h, 'pass');
      await h.call('rollbackPolicy');
      await endedRun(h, 'reject');
      return h.call('listPolicyDecisions');
    },
    check: async ({ body }, h) => {
      const outline = body.data.map((row: Parsed) => [row.kind, row.version, row.other_version]);
      expect(outline).toEqual([
        ['gate_rejected', 3, 1],
        ['rolled_back', 2, 1],
        ['activated', 2, 1],
        ['gate_passed', 2, 1],
      ]);
      expect(body.data[3].figures.gate.difference.mean).toBe(0.2);
      const causes = body.data.map(({ cause }: { cause: string }) => cause);
      expect(causes).toEqual(['gate', 'request', 'gate', 'gate']);
      const query = { version: 2, limit: 2 };
      const first = await h.call('listPolicyDecisions', { query });
      const cursor = first.body.next_cursor as string;
      const next = await h.call('listPolicyDecisions', { query: { ...query, cursor } });
      expect(next.body.data).toEqual([body.data[3]]);
      const { body: policy } = await h.call('getPolicy', { path: { version: 2 } });
      expect(policy.status).toBe('rolled_back');
    },
  },
  {
    operation: 'listPolicyDecisions',
    what: 'a version that is no number',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listPolicyDecisions', { query: { version: 'x' } }),
  },
  {
    operation: 'activatePolicy',
    what: 'new requests get the new version, the old one can still be pinned',
    status: 200,
    call: (h) => h.call('activatePolicy', { path: { version: secondPolicy(h) } }),
    check: async ({ body }, h) => {
      expect(body.status).toBe('active');
      // The one before stays ready for a rollback.
      expect(h.deps.engine.stats().versions).toEqual([1, 2]);
      const messages = [{ role: 'user', content: 'x' }];
      const model = 'ramify@1';
      const pinned = await h.call('createChatCompletion', { body: { model, messages } });
      expect(pinned.body.model).toBe('ramify@1');
    },
  },
  {
    operation: 'activatePolicy',
    what: 'an unknown version',
    status: 404,
    code: 'policy_not_found',
    call: (h) => h.call('activatePolicy', { path: { version: 9 } }),
  },
  {
    operation: 'activatePolicy',
    what: 'a version that is no number',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('activatePolicy', { path: { version: 'new' } }),
  },
  {
    operation: 'activatePolicy',
    what: 'a directory that is gone',
    status: 409,
    code: 'policy_not_activatable',
    call: (h) => h.call('activatePolicy', { path: { version: secondPolicy(h, '/nowhere') } }),
    check: (_, h) => expect(h.deps.policies.liveVersion).toBe(1),
  },
  {
    operation: 'activatePolicy',
    what: 'one that the gate rejected',
    status: 409,
    code: 'policy_not_activatable',
    call: async (h) => {
      await endedRun(h, 'reject');
      return h.call('activatePolicy', { path: { version: 2 } });
    },
  },
  {
    operation: 'activatePolicy',
    what: 'the policy worker restarts',
    status: 503,
    code: 'engine_unavailable',
    call: (h) => {
      h.engine.loadFault = new AppError('engine_unavailable', 'the worker stopped');
      return h.call('activatePolicy', { path: { version: secondPolicy(h) } });
    },
  },
  {
    operation: 'rollbackPolicy',
    what: 'to the parent',
    status: 200,
    call: async (h) => {
      await endedRun(h, 'pass');
      return h.call('rollbackPolicy');
    },
    check: ({ body }, h) => {
      expect(body.version).toBe(1);
      expect(h.deps.policies.liveVersion).toBe(1);
    },
  },
  {
    operation: 'rollbackPolicy',
    what: 'the first policy has no parent',
    status: 409,
    code: 'nothing_to_roll_back',
    call: (h) => h.call('rollbackPolicy'),
  },
  {
    operation: 'rollbackPolicy',
    what: 'the parent is gone',
    status: 409,
    code: 'policy_not_activatable',
    call: async (h) => {
      await endedRun(h, 'pass');
      rmSync(h.deps.stores.policies.get(1).path, { recursive: true });
      return h.call('rollbackPolicy');
    },
    check: (_, h) => expect(h.deps.policies.liveVersion).toBe(2),
  },
  {
    operation: 'rollbackPolicy',
    what: 'the policy worker restarts',
    status: 503,
    code: 'engine_unavailable',
    call: async (h) => {
      await endedRun(h, 'pass');
      await h.engine.unload(1);
      h.engine.loadFault = new AppError('engine_unavailable', 'the worker stopped');
      return h.call('rollbackPolicy');
    },
  },
  {
    operation: 'getHealth',
    what: 'up, also while stopping',
    status: 200,
    call: async (h) => {
      await h.deps.lifecycle.stop(0);
      return h.call('getHealth');
    },
  },
  {
    operation: 'getReadiness',
    what: 'the engine and the database are ready',
    status: 200,
    call: (h) => h.call('getReadiness'),
    check: ({ body }) => expect(body.policy_version).toBe(1),
  },
  {
    operation: 'getReadiness',
    what: 'the engine starts anew',
    status: 503,
    code: 'not_ready',
    call: (h) => {
      h.engine.state = 'starting';
      return h.call('getReadiness');
    },
  },
  {
    operation: 'getOpenapi',
    what: 'this very document',
    status: 200,
    call: (h) => h.call('getOpenapi'),
    check: ({ text }, h) => {
      expect(text).toBe(h.deps.contract.text);
      expect(join(h.policiesFolder, '..')).not.toBe('');
    },
  },
];
