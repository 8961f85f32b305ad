/**
 * Events of a run as places: whoever stops behind any event and comes back, to this process or to
 * the next, gets each step once and each character once.
 */
import { expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { freshSeed, Prng } from '../core/prng.ts';
import type { AgentRunRecord, AgentRunStatus, StepRecord } from '../core/records.ts';
import { positionOf, RunFeed } from './agent-run-feed.ts';
import type { PlacedEvent } from './agent-run-feed.ts';

/** A token is a byte, so a character may take several. */
const TEXT = { tokenBytes: (token: number): Uint8Array => Uint8Array.of(token) };
const TEXTS = ['prompt', 'I search für 東京.', 'result', 'Its 😀 answer.'];
const ENDED: AgentRunRecord = {
  id: 'run_1',
  keyId: null,
  tenant: 'default',
  status: 'completed',
  model: 'ramify',
  policyVersion: 1,
  request: {},
  trajectoryId: 'traj_1',
  answer: 'x',
  usage: null,
  error: null,
  createdAt: 1,
  startedAt: 1,
  endedAt: 2,
  conversationId: null,
  leafStepId: 'step_3',
  waitsUntil: null,
  progress: null,
};

const STEPS = TEXTS.map((text, index): StepRecord => {
  const tokens = Uint32Array.from(new TextEncoder().encode(text));
  return {
    id: `step_${index}`,
    parentId: index === 0 ? null : `step_${index - 1}`,
    index,
    kind: (['prompt', 'policy', 'tool', 'policy'] as const)[index] ?? 'policy',
    policyVersion: 1,
    tokens,
    logprobs: null,
    behaviourLogprobs: null,
    entropies: null,
    sampling: null,
    stepEntropy: null,
    deltaEntropy: null,
    text,
    toolCall: null,
    startedAt: 1,
    durationMs: 1,
  };
});

class Run {
  record: AgentRunRecord;
  readonly feed: RunFeed;

  constructor(durable: number, status: AgentRunStatus = 'in_progress') {
    this.record = { ...ENDED, status, endedAt: status === 'completed' ? 2 : null };
    this.feed = new RunFeed(() => this.record, STEPS.slice(0, durable));
    if (status === 'in_progress') this.feed.begin(TEXT);
  }

  /** Does all that is left, in pieces of random length; durability lags behind. */
  async work(prng: Prng): Promise<void> {
    for (const step of STEPS.slice(this.feed.steps.length)) {
      for (let at = 0; step.kind === 'policy' && at < step.tokens.length;) {
        const length = 1 + prng.below(5);
        this.feed.sampled(step.index, step.tokens.slice(at, at + length));
        at += length;
        if (prng.below(2) === 0) await Promise.resolve();
      }
      this.feed.add([step]);
      await Promise.resolve();
    }
    this.record = ENDED;
    this.feed.changed();
  }
}

const never = new AbortController().signal;

async function collect(feed: RunFeed, after: string | null, max = Infinity) {
  const events: PlacedEvent[] = [];
  const place = after === null ? null : positionOf(after);
  for await (const event of feed.follow(place, never, { endsAtWait: false })) {
    if (events.push(event) >= max) break;
  }
  return events;
}

/** What a client puts together: the text of each step by its pieces, and the steps told. */
function read(events: readonly PlacedEvent[]) {
  const pieces = new Map<number, string>();
  const steps: string[] = [];
  for (const { id, event } of events) {
    const { step } = positionOf(id);
    if (event.type === 'step.delta') pieces.set(step, (pieces.get(step) ?? '') + event.text);
    if (event.type === 'step.completed') steps.push(event.step.id);
  }
  return { pieces: [...pieces], steps, ends: events.at(-1)?.event.type };
}

const WHOLE = {
  pieces: [
    [1, TEXTS[1]],
    [3, TEXTS[3]],
  ],
  steps: STEPS.map(({ id }) => id),
  ends: 'run.completed',
};

test('a follower that breaks off anywhere and comes back gets everything once', async () => {
  const seed = freshSeed();
  const prng = new Prng(seed);
  for (let round = 0; round < 300; round++) {
    const what = `seed ${seed}, round ${round}`;
    const first = new Run(0);
    const following = collect(first.feed, null, 1 + prng.below(20));
    await Promise.all([following, first.work(prng)]);
    const seen = await following;
    const last = must(seen.at(-1), 'an event').id;
    // The next process has the steps up to some point, and samples the others again.
    const places = seen.map(({ id }) => positionOf(id).step);
    const next = new Run(Math.min(4, Math.max(...places)));
    const resumed = collect(next.feed, last);
    await Promise.all([resumed, next.work(prng)]);
    const all = [...seen, ...(await resumed)];
    expect(read(all), what).toEqual(WHOLE);
    expect(new Set(all.map(({ id }) => id)).size, what).toBe(all.length);
    expect(all.map(({ event }) => event.type).filter((type) => type === 'run.created')).toEqual([
      'run.created',
    ]);
  }
});

test('a run that has ended tells whole steps; half a text is not told without its tokens', async () => {
  const { feed } = new Run(4, 'completed');
  const events = await collect(feed, null);
  expect(read(events)).toEqual(WHOLE);
  expect(events.map(({ id }) => id)).toEqual(['0', '1', '1.21', '2', '3', '3.16', '4', '5']);
  const late = await collect(feed, '3.5');
  expect(late.map(({ event }) => event.type)).toEqual(['step.completed', 'run.completed']);
  expect(await collect(feed, '5')).toEqual([]);
});

test('a wait is told once, with the whole run; where the end is asked for, it ends there', async () => {
  const run = new Run(2, 'requires_action');
  const events: PlacedEvent[] = [];
  for await (const event of run.feed.follow(null, never, { endsAtWait: true })) events.push(event);
  expect(events.map(({ id }) => id)).toEqual(['0', '1', '1.21', '2', '2.1']);
  expect(events.at(-1)?.event).toMatchObject({
    type: 'run.requires_action',
    run: { steps: [{}, {}] },
  });
  const rest = collect(run.feed, '2.1');
  run.record = { ...run.record, status: 'in_progress' };
  run.feed.begin(TEXT);
  await run.work(new Prng(1));
  const whole = (await rest).map(({ id }) => id).filter((id) => !id.includes('.'));
  expect(whole).toEqual(['3', '4', '5']);
});

test('a slow follower costs no memory: it gets what has gathered in one piece', async () => {
  const run = new Run(1);
  const text = 'x'.repeat(20_000);
  const following = run.feed.follow(null, never, { endsAtWait: false });
  for (let i = 0; i < 2; i++) await following.next();
  for (const char of text) run.feed.sampled(1, Uint32Array.of(char.charCodeAt(0)));
  const { value } = (await following.next()) as { value: PlacedEvent };
  expect(value).toEqual({ id: '1.20000', event: { type: 'step.delta', text } });
});

test('a process that leaves the run says so; an aborted follower ends', async () => {
  const run = new Run(1);
  const gone = new AbortController();
  const aborted = run.feed.follow(positionOf('1'), gone.signal, { endsAtWait: false }).next();
  gone.abort();
  expect(await aborted).toEqual({ done: true, value: undefined });
  const left = collect(run.feed, '1');
  run.feed.leave();
  await expect(left).rejects.toMatchObject({ code: 'not_ready' });
});
