/** Cases of the operations tagged trajectories, feedback and tasks. */
import { gzipSync } from 'node:zlib';
import { expect } from 'vitest';
import type { Case } from './cases.ts';
import { finishedRun } from './agent-cases.ts';
import { CHAT } from './chat-cases.ts';
import type { Answer, Harness } from './harness.ts';
import { TASKS } from './harness.ts';

export async function trajectoryOf(h: Harness): Promise<string> {
  const { headers } = await h.call('createChatCompletion', { body: CHAT });
  return headers.get('x-ramify-trajectory') as string;
}

const feedback = (h: Harness, body: object): Promise<Answer> =>
  h.call('createFeedback', { body: { metric_name: 'reward', value: 1, ...body } });

const BAD_QUERIES: Record<string, string | number>[] = [
  { limit: 0 },
  { limit: 101 },
  { source: 'dream' },
  { created_after: 'today' },
  { status: 'lost' },
  { end_reason: 'tired' },
  { min_entropy_jump: 'high' },
  { scored: 'maybe' },
  { cursor: 'nothing' },
  { foo: 1 },
];

const LINE = line({});

function line(change: object): string {
  return JSON.stringify({ ...TASKS[0], ...change });
}
const importLines = (h: Harness, ...lines: string[]): Promise<Answer> =>
  h.call('importTasks', { body: lines.join('\n') });

export const LOG_CASES: Case[] = [
  {
    operation: 'listTrajectories',
    what: 'pages, filtered by tool and reward',
    status: 200,
    call: async (h) => {
      await trajectoryOf(h);
      const run = await h.call('getAgentRun', { path: { run_id: await finishedRun(h) } });
      await feedback(h, { trajectory_id: run.body.trajectory_id, value: 0.5 });
      const query = { tool: 'search', reward_min: 0.4, reward_max: 0.6, source: 'live', limit: 1 };
      return h.call('listTrajectories', { query: { ...query, policy_version: 1 } });
    },
    check: async ({ body }, h) => {
      expect(body.data).toHaveLength(1);
      expect(body.data[0].reward).toBe(0.5);
      const first = await h.call('listTrajectories', { query: { limit: 1 } });
      expect(first.body.has_more).toBe(true);
      const cursor = first.body.next_cursor as string;
      const second = await h.call('listTrajectories', { query: { limit: 1, cursor } });
      expect(second.body.data[0].id).not.toBe(first.body.data[0].id);
      const created_before = first.body.data[0].created_at as string;
      const query = { created_before, created_after: created_before };
      expect((await h.call('listTrajectories', { query })).body.data).toEqual([]);
      const shown = async (one: Record<string, string | number>): Promise<number> =>
        (await h.call('listTrajectories', { query: one })).body.data.length;
      expect(await shown({ status: 'completed', end_reason: 'answer' })).toBe(2);
      expect(await shown({ status: 'failed' })).toBe(0);
      expect(await shown({ scored: 'true' })).toBe(1);
      expect(await shown({ min_entropy_jump: -1, scored: 'false' })).toBe(1);
      expect(await shown({ min_entropy_jump: 2 })).toBe(0);
      expect(await shown({ conversation_id: 'conv_0' })).toBe(0);
      expect(await shown({ group_id: 'grp_0' })).toBe(0);
    },
  },
  ...BAD_QUERIES.map((query): Case => ({
    operation: 'listTrajectories',
    what: `refuses ${JSON.stringify(query)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listTrajectories', { query }),
    check: ({ body }) => expect(body.error.param).toBe(Object.keys(query)[0]),
  })),
  {
    operation: 'getTrajectory',
    what: 'with its steps and tokens, and the reward of a step',
    status: 200,
    call: async (h) => {
      const id = await trajectoryOf(h);
      const { steps } = h.deps.stores.trajectories.get(id);
      await feedback(h, { step_id: steps[1]?.id, value: 0.25 });
      return h.call('getTrajectory', { path: { trajectory_id: id }, query: { include: 'tokens' } });
    },
    check: ({ body }) => {
      expect(body.steps[1].reward).toBe(0.25);
      expect(body.steps[1].tokens).toHaveLength(body.steps[1].token_count as number);
      expect(body.end_reason).toBe('answer');
    },
  },
  {
    operation: 'getTrajectoryTree',
    what: 'the path and its leaf',
    status: 200,
    call: async (h) =>
      h.call('getTrajectoryTree', { path: { trajectory_id: await trajectoryOf(h) } }),
    check: ({ body }) => {
      expect(body.steps).toHaveLength(2);
      expect(body.trajectories[0].leaf_step_id).toBe(body.steps[1].id);
      expect(body.truncated).toBe(false);
      expect(body.branches).toEqual([]);
    },
  },
  ...(['getTrajectory', 'getTrajectoryTree', 'listFeedback'] as const).flatMap(
    (operation): Case[] => [
      {
        operation,
        what: 'an unknown id',
        status: 404,
        code: 'trajectory_not_found',
        call: (h) => h.call(operation, { path: { trajectory_id: 'traj_0' } }),
      },
      {
        operation,
        what: 'an id of another kind',
        status: 400,
        code: 'invalid_request',
        call: (h) => h.call(operation, { path: { trajectory_id: 'run_0' } }),
      },
    ],
  ),
  {
    operation: 'createFeedback',
    what: 'a reward; the same id and content again is the same answer',
    status: 200,
    call: async (h) => {
      const id = await trajectoryOf(h);
      await feedback(h, { id: 'mine', trajectory_id: id, tags: { by: 'test' } });
      return feedback(h, { id: 'mine', trajectory_id: id, tags: { by: 'test' } });
    },
    check: async ({ body }, h) => {
      const path = { trajectory_id: body.trajectory_id as string };
      expect((await h.call('getTrajectory', { path })).body.reward).toBe(1);
      expect(h.deps.stores.feedback.list(path.trajectory_id).items).toHaveLength(1);
    },
  },
  {
    operation: 'createFeedback',
    what: 'a demonstration leaves the reward alone',
    status: 200,
    call: async (h) => {
      const trajectory_id = await trajectoryOf(h);
      return feedback(h, { trajectory_id, metric_name: 'demonstration', value: 'Paris' });
    },
    check: ({ body }, h) => {
      const id = body.trajectory_id as string;
      expect(h.deps.stores.trajectories.find(id)?.reward).toBeNull();
    },
  },
  ...[
    {},
    { trajectory_id: 'traj_0', step_id: 'step_0' },
    { trajectory_id: 'traj_0', value: 'good' },
    { trajectory_id: 'traj_0', metric_name: 'comment', value: 3 },
    { trajectory_id: 'traj_0', metric_name: 'mood' },
    { trajectory_id: 'traj_0', value: true },
    { trajectory_id: 'traj_0', metric_name: 'stars', value: 6 },
    { trajectory_id: 'traj_0', metric_name: 'stars', value: 'five' },
    { trajectory_id: 'traj_0', metric_name: 'helpful', value: 1 },
  ].map((body): Case => ({
    operation: 'createFeedback',
    what: `refuses ${JSON.stringify(body)}`,
    status: 400,
    code: 'invalid_request',
    call: (h) => feedback(h, body),
  })),
  {
    operation: 'createFeedback',
    what: 'a declared metric, late',
    status: 200,
    call: async (h) => {
      const trajectory_id = await trajectoryOf(h);
      await h.deps.stores.feedback.markConsumed([trajectory_id], 'trn_1');
      return feedback(h, { trajectory_id, metric_name: 'helpful', value: true });
    },
    check: ({ body }) => expect(body).toMatchObject({ value: true, late: true }),
  },
  {
    operation: 'listFeedback',
    what: 'in the order of arrival, in pages',
    status: 200,
    call: async (h) => {
      const trajectory_id = await trajectoryOf(h);
      await feedback(h, { trajectory_id, id: 'z', value: 0 });
      await feedback(h, { trajectory_id, id: 'a', metric_name: 'stars', value: 5 });
      return h.call('listFeedback', { path: { trajectory_id }, query: { limit: 1 } });
    },
    check: async ({ body }, h) => {
      expect(body).toMatchObject({ has_more: true, data: [{ id: 'z', late: false }] });
      const path = { trajectory_id: body.data[0].trajectory_id as string };
      const query = { cursor: body.next_cursor as string };
      const rest = await h.call('listFeedback', { path, query });
      expect(rest.body).toMatchObject({ has_more: false, data: [{ id: 'a', value: 5 }] });
    },
  },
  {
    operation: 'listFeedback',
    what: 'a cursor of another list',
    status: 400,
    code: 'invalid_request',
    call: async (h) =>
      h.call('listFeedback', {
        path: { trajectory_id: await trajectoryOf(h) },
        query: { cursor: 'task_1' },
      }),
  },
  {
    operation: 'createFeedback',
    what: 'an unknown trajectory',
    status: 404,
    code: 'trajectory_not_found',
    call: (h) => feedback(h, { trajectory_id: 'traj_0' }),
  },
  {
    operation: 'createFeedback',
    what: 'an unknown step',
    status: 404,
    code: 'step_not_found',
    call: (h) => feedback(h, { step_id: 'step_0' }),
  },
  {
    operation: 'createFeedback',
    what: 'the same id with other content; clients are told not to repeat it',
    status: 409,
    code: 'feedback_conflict',
    call: async (h) => {
      const trajectory_id = await trajectoryOf(h);
      await feedback(h, { id: 'twice', trajectory_id, value: 1 });
      return feedback(h, { id: 'twice', trajectory_id, value: 0 });
    },
    check: ({ headers }) => expect(headers.get('x-should-retry')).toBe('false'),
  },
  {
    operation: 'importTasks',
    what: 'lines, blank ones skipped; known ids are replaced',
    status: 200,
    call: async (h) => {
      await importLines(h, LINE);
      return importLines(h, LINE, '', line({ id: 'task_2' }), '');
    },
    check: ({ body }, h) => {
      expect(body.imported).toBe(2);
      expect(h.deps.stores.tasks.count()).toBe(2);
    },
  },
  ...[
    ['not JSON', '{'],
    ['a missing field', '{"family":"x"}'],
    ['an unknown split', line({ split: 'later' })],
    ['a tool that does not exist', line({ tools: ['telescope'] })],
  ].map(([what, wrong]): Case => ({
    operation: 'importTasks',
    what: `refuses all lines for ${what}`,
    status: 400,
    code: 'task_invalid',
    call: (h) => importLines(h, line({ id: 'task_fine' }), wrong as string),
    check: (_, h) => expect(h.deps.stores.tasks.find('task_fine')).toBeNull(),
  })),
  {
    operation: 'importTasks',
    what: 'names every wrong line',
    status: 400,
    code: 'task_invalid',
    call: (h) => importLines(h, LINE, '{', '', line({ tools: ['telescope'] }), LINE),
    check: ({ body }, h) => {
      expect(body.error.param).toBe('line 2');
      expect(body.error.message).toContain('line 2: not valid JSON');
      expect(body.error.message).toContain("line 4: task task_train: no tool 'telescope'");
      expect(h.deps.stores.tasks.count()).toBe(0);
    },
  },
  {
    operation: 'importTasks',
    what: 'compressed',
    status: 200,
    call: async (h) => {
      const headers = { 'content-encoding': 'gzip' };
      return h.call('importTasks', { body: gzipSync(LINE), headers });
    },
    check: ({ body }) => expect(body.imported).toBe(1),
  },
  {
    operation: 'importTasks',
    what: 'bytes that only claim to be compressed',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('importTasks', { body: LINE, headers: { 'content-encoding': 'gzip' } }),
  },
  ...(['getTask', 'deleteTask'] as const).flatMap((operation): Case[] => [
    {
      operation,
      what: 'a stored task',
      status: 200,
      call: async (h) => {
        h.deps.stores.tasks.import(TASKS);
        return h.call(operation, { path: { task_id: 'task_gate' } });
      },
      check: ({ body }, h) => {
        expect(body.id).toBe('task_gate');
        expect(h.deps.stores.tasks.count()).toBe(operation === 'getTask' ? 2 : 1);
      },
    },
    {
      operation,
      what: 'an unknown id',
      status: 404,
      code: 'task_not_found',
      call: (h) => h.call(operation, { path: { task_id: 'task_0' } }),
    },
    {
      operation,
      what: 'an id that is too long',
      status: 400,
      code: 'invalid_request',
      call: (h) => h.call(operation, { path: { task_id: 'x'.repeat(201) } }),
    },
  ]),
  {
    operation: 'importTasks',
    what: 'an unknown query parameter',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('importTasks', { body: LINE, query: { replace: 1 } }),
  },
  {
    operation: 'listTasks',
    what: 'of one split and family',
    status: 200,
    call: (h) => {
      h.deps.stores.tasks.import(TASKS);
      return h.call('listTasks', { query: { split: 'gate', family: 'knowledge' } });
    },
    check: ({ body }) =>
      expect(body.data.map(({ id }: { id: string }) => id)).toEqual(['task_gate']),
  },
  {
    operation: 'listTasks',
    what: 'an unknown split',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('listTasks', { query: { split: 'later' } }),
  },
];
