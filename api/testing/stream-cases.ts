/** Cases of exports, imports and replays of trajectories. */
import { rmSync } from 'node:fs';
import { gunzipSync, gzipSync } from 'node:zlib';
import { expect } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { readTrajectoryLine, trajectoryLine } from '../trajectory-lines.ts';
import { finishedRun } from './agent-cases.ts';
import type { Case } from './cases.ts';
import type { Answer, Harness } from './harness.ts';
import { TASKS } from './harness.ts';
import { trajectoryOf } from './log-cases.ts';

/** A trajectory of another server, as one line. */
export async function exported(h: Harness): Promise<string> {
  const id = await trajectoryOf(h);
  const line = trajectoryLine({ ...h.deps.stores.trajectories.get(id), feedback: [] });
  return line.replaceAll(/"(traj|step|conv)_0/g, '"$1_other');
}

const importing = (h: Harness, ...lines: string[]): Promise<Answer> =>
  h.call('importTrajectories', { body: lines.join('\n') });

/** A run that searched, scored by a task, as its trajectory. */
async function searched(h: Harness): Promise<string> {
  const run = await h.call('getAgentRun', { path: { run_id: await finishedRun(h) } });
  const id = run.body.trajectory_id as string;
  h.deps.stores.tasks.import(TASKS);
  const { trajectory } = h.deps.stores.trajectories.get(id);
  await h.deps.stores.stepLog.append({ trajectories: [{ ...trajectory, taskId: 'task_train' }] });
  return id;
}

async function replay(h: Harness, body: object, id?: string): Promise<Answer> {
  const trajectory_id = id ?? (await trajectoryOf(h));
  return h.call('replayTrajectory', { path: { trajectory_id }, body });
}

async function whileSampling(h: Harness, fault: AppError): Promise<Answer> {
  const id = await trajectoryOf(h);
  h.engine.sampleFault = fault;
  const answer = await replay(h, {}, id);
  h.engine.sampleFault = null;
  return answer;
}

export const STREAM_CASES: Case[] = [
  {
    operation: 'exportTrajectories',
    what: 'every line, oldest first, as import reads them',
    status: 200,
    call: async (h) => {
      const id = await trajectoryOf(h);
      await searched(h);
      const body = { trajectory_id: id, metric_name: 'comment', value: 'fine' };
      await h.call('createFeedback', { body });
      return h.call('exportTrajectories');
    },
    check: ({ text, headers }, h) => {
      expect(headers.get('content-encoding')).toBeNull();
      const lines = text.split('\n');
      expect(lines.pop()).toBe('');
      const read = lines.map(readTrajectoryLine);
      const { items } = h.deps.stores.trajectories.list({}, { oldestFirst: true });
      expect(read.map(({ trajectory }) => trajectory)).toEqual(items);
      expect(read[0]?.feedback).toMatchObject([{ value: 'fine' }]);
      expect(read[1]?.steps).toEqual(h.deps.stores.trajectories.path(items[1]?.leafStepId ?? ''));
    },
  },
  {
    operation: 'exportTrajectories',
    what: 'what fits the filters, and nothing where nothing does',
    status: 200,
    call: async (h) => {
      await trajectoryOf(h);
      await searched(h);
      return h.call('exportTrajectories', { query: { tool: 'search', status: 'completed' } });
    },
    check: async ({ text }, h) => {
      expect(text.trimEnd().split('\n')).toHaveLength(1);
      const query = { created_before: '2020-01-01T00:00:00Z' };
      expect((await h.call('exportTrajectories', { query })).text).toBe('');
    },
  },
  {
    operation: 'exportTrajectories',
    what: 'an unknown source',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('exportTrajectories', { query: { source: 'dream' } }),
  },
  {
    operation: 'exportTrajectories',
    what: 'more at once than allowed',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const headers = { 'accept-encoding': 'br, gzip;q=0.5' };
      const open = async (): Promise<Response> =>
        h.app.request('http://localhost/v1/trajectories/export', { headers });
      const held = Array.from({ length: LIMITS.exportsMax }, open);
      // They have begun, and none has an answer yet.
      const answer = await h.call('exportTrajectories');
      for (const response of await Promise.all(held)) {
        expect(response.headers.get('content-encoding')).toBe('gzip');
        expect(gunzipSync(await response.arrayBuffer()).toString()).toBe('');
      }
      return answer;
    },
    check: ({ headers }) => expect(Number(headers.get('retry-after'))).toBeGreaterThan(0),
  },
  {
    operation: 'importTrajectories',
    what: 'twice the same: nothing is doubled',
    status: 200,
    call: async (h) => {
      const line = await exported(h);
      await importing(h, '', line, '');
      return importing(h, line);
    },
    check: async ({ body }, h) => {
      expect(body).toMatchObject({ created: 0, known: 1, feedback: 0 });
      const again = (await h.call('exportTrajectories')).text.trimEnd().split('\n').map(readLine);
      const original = again.find(({ id }) => !id.includes('other'));
      const copy = again.find(({ id }) => id.includes('other'));
      expect(copy?.texts).toEqual(original?.texts);
    },
  },
  {
    operation: 'importTrajectories',
    what: 'compressed, and of a policy that is not known here',
    status: 200,
    call: async (h) => {
      const line = (await exported(h)).replaceAll('"policy_version":1', '"policy_version":77');
      const headers = { 'content-encoding': 'gzip' };
      return h.call('importTrajectories', { body: gzipSync(line), headers });
    },
    check: ({ body }) => expect(body).toMatchObject({ created: 1, unknown_policy_versions: [77] }),
  },
  ...[
    ['a line that is no JSON', '{', 'invalid_json'],
    ['a line of another form', '{"object":"trajectory"}', 'invalid_request'],
  ].map(([what, wrong, code]): Case => ({
    operation: 'importTrajectories',
    what: `${what}; those before it are stored`,
    status: 400,
    code,
    call: async (h) => importing(h, await exported(h), wrong as string),
    check: ({ body }, h) => {
      expect(body.error.param).toBe('line 2');
      expect(h.deps.stores.trajectories.list().items).toHaveLength(2);
    },
  })),
  {
    operation: 'importTrajectories',
    what: 'an unknown query parameter',
    status: 400,
    code: 'invalid_request',
    call: async (h) => h.call('importTrajectories', { query: { x: 1 }, body: await exported(h) }),
  },
  {
    operation: 'importTrajectories',
    what: 'feedback that is known with other content',
    status: 409,
    code: 'feedback_conflict',
    call: async (h) => {
      const id = await trajectoryOf(h);
      const given = { id: 'fb_1', trajectory_id: id, metric_name: 'reward', value: 1 };
      await h.call('createFeedback', { body: given });
      const logged = h.deps.stores.trajectories.get(id);
      const [feedback] = h.deps.stores.feedback.list(id).items;
      if (feedback === undefined) throw new Error('no feedback was stored');
      return importing(h, trajectoryLine({ ...logged, feedback: [{ ...feedback, value: 0 }] }));
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'scores every sampled token and nothing else',
    status: 200,
    call: async (h) => replay(h, { policy_version: 1 }),
    check: async ({ body }, h) => {
      const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      const sampled = steps.filter(({ kind }) => kind === 'policy');
      expect(body.tokens).toBe(sampled.reduce((sum, { tokens }) => sum + tokens.length, 0));
      expect(body.max_drift).toBe(0);
      const ids = body.steps.map((step: { step_id: string }) => step.step_id);
      expect(ids).toEqual(sampled.map(({ id }) => id));
      expect(body.steps[0].logprobs).toEqual(Array.from(sampled[0]?.logprobs ?? []));
      expect(h.engine.stats().openSequences).toBe(0);
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'resamples from a step with recorded tools, which run none, and keeps the paths',
    status: 200,
    call: async (h) => {
      const id = await searched(h);
      let calls = 0;
      const { tools } = h.deps;
      const call = tools.call.bind(tools);
      tools.call = (...given) => (calls++, call(...given));
      const body = { mode: 'resample', samples: 2, save: true };
      const answer = await replay(h, body, id);
      expect(calls).toBe(0);
      return answer;
    },
    check: ({ body }, h) => {
      expect(body.paths).toHaveLength(2);
      const [{ steps, trajectory, correct }] = body.paths;
      expect(steps.map(({ kind }: { kind: string }) => kind)).toEqual(['policy', 'tool', 'policy']);
      expect(steps[1].tool_call).toMatchObject({ served: 'recorded', error: null });
      expect(correct).toBe(true);
      const stored = h.deps.stores.trajectories.get(trajectory.id as string);
      expect(stored.trajectory).toMatchObject({ source: 'replay', taskId: 'task_train' });
      expect(stored.steps).toHaveLength(4);
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'resamples with tools denied',
    status: 200,
    call: async (h) => replay(h, { mode: 'resample', tools: 'deny', step: 0 }, await searched(h)),
    check: ({ body }, h) => {
      const [{ steps, trajectory }] = body.paths;
      expect(steps[1].tool_call.error).toBe('tool_failed');
      expect(h.deps.stores.trajectories.find(trajectory.id as string)).toBeNull();
    },
  },
  ...[
    { samples: 2 },
    { mode: 'score', tools: 'live' },
    { mode: 'resample', step: 99 },
    { mode: 'dream' },
  ].map((body): Case => ({
    operation: 'replayTrajectory',
    what: `refuses ${JSON.stringify(body)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => replay(h, body),
  })),
  {
    operation: 'replayTrajectory',
    what: 'a path that is longer than the window',
    status: 400,
    code: 'context_length_exceeded',
    call: (h) =>
      whileSampling(h, new AppError('context_length_exceeded', 'it does not fit the window')),
  },
  {
    operation: 'replayTrajectory',
    what: 'an unknown trajectory',
    status: 404,
    code: 'trajectory_not_found',
    call: (h) => replay(h, {}, 'traj_0'),
  },
  {
    operation: 'replayTrajectory',
    what: 'an unknown version',
    status: 404,
    code: 'policy_not_found',
    call: (h) => replay(h, { policy_version: 9 }),
  },
  {
    operation: 'replayTrajectory',
    what: 'a version whose files are gone',
    status: 404,
    code: 'policy_not_found',
    call: async (h) => {
      const { policies } = h.deps.stores;
      const path = `${policies.get(1).path}-gone`;
      const facts = { kind: 'full', path, sha256: 'x', sourceRunId: null } as const;
      const { version } = policies.register({
        ...{ ...policies.get(1), ...facts, version: 2, parentVersion: 1 },
        status: 'candidate',
      });
      rmSync(path, { recursive: true, force: true });
      return replay(h, { policy_version: version });
    },
  },
  {
    operation: 'replayTrajectory',
    what: 'more at once than allowed',
    status: 503,
    code: 'queue_full',
    call: async (h) => {
      const id = await trajectoryOf(h);
      h.engine.pieceMs = 50;
      const held = Array.from({ length: LIMITS.replaysMax }, () => replay(h, {}, id));
      const answer = await replay(h, {}, id);
      for (const { status } of await Promise.all(held)) expect(status).toBe(200);
      return answer;
    },
  },
  ...(['engine_unavailable', 'request_timeout'] as const).map((code): Case => ({
    operation: 'replayTrajectory',
    what: 'the policy worker stopped, or takes too long',
    status: code === 'request_timeout' ? 504 : 503,
    code,
    call: (h) => whileSampling(h, new AppError(code, 'it is gone')),
  })),
];

function readLine(text: string): { id: string; texts: string[] } {
  const { trajectory, steps } = readTrajectoryLine(text);
  return { id: trajectory.id, texts: steps.map((step) => step.text) };
}
