/**
 * Questions that keep coming while a training run goes on: one at a time with pauses, and from the
 * last training step on several at once without pause, so that many are under way when the swap
 * happens.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { mix } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import { WAYS, type Answer } from './answer.ts';
import type { Asker } from './asker.ts';
import { attempt, type Failure } from './examination.ts';

/** Low enough that training keeps nearly all of a small machine. */
const PAUSE_MS = 3_000;
const DENSE_PAUSE_MS = 50;
const LANES = 4;
/** A bound for training runs of hours. */
const QUESTIONS_MAX = 20_000;

export class LiveTraffic {
  readonly answers: Answer[] = [];
  readonly failures: Failure[] = [];
  private readonly asker: Asker;
  private readonly tasks: readonly Task[];
  private readonly seed: number;
  private readonly signal: AbortSignal;
  private readonly stopping = new AbortController();
  private readonly lanes: Promise<void>[] = [];
  private asked = 0;
  private dense = false;

  constructor(
    asker: Asker,
    tasks: readonly Task[],
    options: { seed: number; signal: AbortSignal },
  ) {
    this.asker = asker;
    this.tasks = tasks;
    this.seed = options.seed;
    this.signal = options.signal;
  }

  start(): void {
    const lane = this.lane();
    this.lanes.push(lane);
    // An abort is told by stop(), which may come later.
    lane.catch(() => undefined);
  }

  /** More at once, from now on. */
  thicken(): void {
    if (this.dense) return;
    this.dense = true;
    for (let i = 1; i < LANES; i++) this.start();
  }

  /**
   * Begins no more questions and waits for those under way. Throws what the demo was aborted with.
   */
  async stop(): Promise<void> {
    this.stopping.abort();
    for (const lane of await Promise.allSettled(this.lanes)) {
      if (lane.status === 'rejected') throw lane.reason as Error;
    }
  }

  private async lane(): Promise<void> {
    while (!this.stopping.signal.aborted && this.asked < QUESTIONS_MAX) {
      const n = this.asked++;
      const way = WAYS[n % WAYS.length] ?? 'agent';
      const task = this.tasks[Math.floor(n / WAYS.length) % this.tasks.length];
      if (task === undefined) return;
      const { signal } = this;
      const answer = await attempt(this.failures, { way, task, signal }, () =>
        this.asker.ask(way, task, mix(this.seed, n)),
      );
      if (answer !== null) this.answers.push(answer);
      await this.pause(this.dense ? DENSE_PAUSE_MS : PAUSE_MS);
    }
  }

  private async pause(ms: number): Promise<void> {
    const signal = AbortSignal.any([this.stopping.signal, this.signal]);
    // An abort ends the pause early; the loop sees why.
    await delay(ms, undefined, { signal }).catch(() => undefined);
    this.signal.throwIfAborted();
  }
}
