/**
 * What clients see of a log that has forgotten: the normal answers for what is not there, and chats
 * that go on all the same, as new segments.
 */
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { quiet } from '../core/log.ts';
import { LogRetention } from './log-retention.ts';
import { ANSWER_SCRIPT, CAPITAL_SCRIPT, startHarness } from './testing/harness.ts';
import type { Answer, Harness } from './testing/harness.ts';

let h: Harness;

beforeEach(async () => {
  h = await startHarness();
  h.engine.script = CAPITAL_SCRIPT;
});
afterEach(() => h.close());

const HOUR = 3_600_000;

/** Everything that is there, as if it were two days old. */
async function forget(): Promise<void> {
  const clock = { now: () => h.deps.clock.now() + 48 * HOUR };
  const folder = join(h.policiesFolder, '..', 'archive');
  const keep = { days: 1, bytes: null };
  await new LogRetention({ stores: h.deps.stores, keep, folder, clock, logger: quiet }).look();
}

const QUESTION = { role: 'user', content: 'What is the capital of France?' };
const chat = (messages: object[], headers: Record<string, string> = {}): Promise<Answer> =>
  h.call('createChatCompletion', { headers, body: { model: 'ramify', messages } });
const trajectoryOf = ({ headers }: Answer): string => headers.get('x-ramify-trajectory') ?? '';

test('a trajectory that is gone is unknown, and so is feedback on it', async () => {
  const id = trajectoryOf(await chat([QUESTION]));
  const path = { trajectory_id: id };
  expect((await h.call('getTrajectory', { path })).status).toBe(200);
  await forget();
  for (const operation of ['getTrajectory', 'getTrajectoryTree'] as const) {
    expect(await h.call(operation, { path })).toMatchObject({
      status: 404,
      code: 'trajectory_not_found',
    });
  }
  const body = { trajectory_id: id, metric_name: 'reward', value: 1 };
  expect((await h.call('createFeedback', { body })).code).toBe('trajectory_not_found');
  expect((await h.call('listTrajectories')).body.data).toEqual([]);
});

test('what a chat under way goes on from is not forgotten', async () => {
  h.engine.script = ANSWER_SCRIPT;
  const first = await chat([QUESTION]);
  const history = [QUESTION, first.body.choices[0].message, { role: 'user', content: 'Why?' }];
  h.engine.pieceMs = 20;
  const going = chat(history);
  await expect.poll(() => h.deps.stores.recentUse.has(trajectoryOf(first))).toBe(true);
  await forget();
  const { trajectories } = h.deps.stores;
  const began = trajectories.get(trajectoryOf(first));
  const answer = await going;
  expect(answer.status).toBe(200);
  expect(trajectories.get(trajectoryOf(answer)).steps.slice(0, 2)).toEqual(began.steps);
});

test('a chat whose history is gone is rendered whole, in a conversation of the same session', async () => {
  h.engine.script = ANSWER_SCRIPT;
  const session = { 'x-session-id': 'one' };
  const first = await chat([QUESTION], session);
  const { trajectories } = h.deps.stores;
  const began = trajectories.get(trajectoryOf(first));
  await forget();
  expect(trajectories.find(began.trajectory.id)).toBeNull();
  expect(h.deps.stores.conversations.find(began.trajectory.conversationId ?? '')).toBeNull();
  const history = [QUESTION, first.body.choices[0].message, { role: 'user', content: 'Why?' }];
  const answer = await chat(history, session);
  expect(answer.status).toBe(200);
  const { steps, trajectory } = trajectories.get(trajectoryOf(answer));
  expect(steps[0]?.id).not.toBe(began.steps[0]?.id);
  expect(steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy']);
  expect(steps[0]?.text).toContain('What is the capital of France?');
  expect(h.deps.stores.conversations.find(trajectory.conversationId ?? '')).toMatchObject({
    sessionKey: 'one',
    lastTrajectoryId: trajectory.id,
  });
});

test('agent runs and responses go with their trajectory, also those still in memory', async () => {
  const run = await h.call('createAgentRun', { body: { input: 'France?', tools: ['search'] } });
  const path = { run_id: run.body.id };
  const body = { model: 'ramify', input: 'France?' };
  const plain = await h.call('createResponse', { body });
  const begun = await h.call('createResponse', { body: { ...body, background: true } });
  const ids = [plain, begun].map((answer) => answer.body.id as string);
  await expect
    .poll(async () => {
      const read = await h.call('getResponse', { path: { response_id: ids[1]! } });
      return read.body.status;
    })
    .toBe('completed');
  expect((await h.call('getAgentRun', { path })).status).toBe(200);
  await forget();
  expect(await h.call('getAgentRun', { path })).toMatchObject({
    status: 404,
    code: 'agent_run_not_found',
  });
  expect((await h.call('listAgentRuns')).body.data).toEqual([]);
  for (const id of ids) {
    const read = await h.call('getResponse', { path: { response_id: id } });
    expect(read).toMatchObject({ status: 404, code: 'response_not_found' });
    const next = await h.call('createResponse', { body: { ...body, previous_response_id: id } });
    expect(next.code).toBe('previous_response_not_found');
  }
});
