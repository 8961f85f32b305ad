/** What training is fed with: rated agent runs, the newest rating first, and nothing else. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { ManualClock } from '../core/clock.ts';
import { idGenerator } from '../core/ids.ts';
import type { NewId } from '../core/ids.ts';
import { Prng } from '../core/prng.ts';
import { chain, trajectoryOf } from '../test/fixtures/random-records.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

let stores: Stores;
let clock: ManualClock;
let newId: NewId;
const prng = new Prng(4);

beforeEach(() => {
  clock = new ManualClock();
  clock.advance(1_700_000_000_000);
  newId = idGenerator(clock);
  stores = openStores(openDatabase(':memory:'), clock);
});
afterEach(() => stores.close());

type Request = Record<string, unknown>;

/** An agent run, or a chat when there is no request; its trajectory's id. */
async function answered(
  request: Request | null,
  source: 'live' | 'rollout' = 'live',
): Promise<string> {
  clock.advance(5_000);
  const runId = newId('agentRun');
  const id = newId('trajectory');
  const steps = chain(prng, id, 3);
  const leaf = must(steps.at(-1), 'a leaf');
  const trajectory = { ...trajectoryOf(id, leaf), source, reward: null };
  await stores.stepLog.append({ steps, trajectories: [trajectory] });
  if (request === null) return id;
  await stores.agentRuns.create({
    id: runId,
    status: 'completed',
    model: 'ramify',
    policyVersion: 1,
    request,
    trajectoryId: id,
    answer: null,
    usage: null,
    error: null,
    createdAt: clock.now(),
    startedAt: null,
    tenant: 'default',
    conversationId: null,
    leafStepId: null,
    keyId: null,
    waitsUntil: null,
    progress: null,
    endedAt: null,
  });
  return id;
}

async function say(trajectoryId: string, metricName: string, value: number | string) {
  const id = newId('feedback');
  const createdAt = clock.now();
  const feedback = { id, trajectoryId, stepId: null, metricName, value, tags: {}, createdAt };
  await stores.feedback.record(feedback);
}

const found = async (max?: number) =>
  (await stores.liveSamples.newest(max)).samples.map(({ trajectory }) => trajectory.id);

test('rated agent runs come whole, the newest rating first', async () => {
  const first = await answered({ input: 'q1', tools: ['search'] });
  const second = await answered({ input: 'q2' });
  await say(second, 'reward', 1);
  await say(first, 'reward', -1);
  await say(second, 'reward', 0.5);
  const { samples, chats } = await stores.liveSamples.newest();
  expect(chats).toBe(0);
  expect(samples.map(({ trajectory }) => [trajectory.id, trajectory.reward])).toEqual([
    [second, 0.5],
    [first, -1],
  ]);
  expect(samples[1]).toEqual({
    trajectory: stores.trajectories.get(first).trajectory,
    steps: stores.trajectories.get(first).steps,
    question: '[[["content","q1"],["role","user"]]]',
    tools: ['search'],
    clientTools: false,
  });
});

test('without a reward nothing is read: comments, rollouts and silence', async () => {
  const silent = await answered({ input: 'q1' });
  const commented = await answered({ input: 'q2' });
  const rollout = await answered({ input: 'q3' }, 'rollout');
  await say(commented, 'comment', 'so so');
  await say(rollout, 'reward', 1);
  expect(await found()).toEqual([]);
  await say(silent, 'reward', 1);
  expect(await found()).toEqual([silent]);
});

test('a chat completion is counted, not taken: its functions run on its client', async () => {
  const chat = await answered(null);
  await say(chat, 'reward', 1);
  expect(await stores.liveSamples.newest()).toEqual({ samples: [], chats: 1 });
});

test('equal messages are one question, however they are written', async () => {
  const texts = new Set<string>();
  for (const request of [
    { input: 'q1' },
    { messages: [{ role: 'user', content: 'q1' }] },
    { messages: [{ content: 'q1', role: 'user' }], tools: ['search'] },
    {
      messages: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'q1' },
      ],
    },
  ]) {
    await say(await answered(request), 'reward', 1);
  }
  for (const { question } of (await stores.liveSamples.newest()).samples) texts.add(question);
  expect(texts.size).toBe(2);
});

test('functions of the client are told', async () => {
  const tools = ['search', { type: 'function', function: { name: 'weather' } }];
  await say(await answered({ input: 'q1', tools }), 'reward', 1);
  const { samples } = await stores.liveSamples.newest();
  expect(samples[0]).toMatchObject({ tools: ['search'], clientTools: true });
});

test('no more than so many ratings are read, and many runs of one moment are told apart', async () => {
  const runs: string[] = [];
  for (let i = 0; i < 6; i++) runs.push(await answered({ input: `q${i}` }));
  for (const id of runs) await say(id, 'reward', 1);
  expect(await found(4)).toEqual(runs.slice(2).reverse());
  const questions = (await stores.liveSamples.newest()).samples.map(({ question }) => question);
  expect(questions.map((text) => /q\d/.exec(text)?.[0])).toEqual(
    [5, 4, 3, 2, 1, 0].map((i) => `q${i}`),
  );
});
