/**
 * What crosses the border between the server and the trainer process: the child's IPC channel, with
 * `serialization: 'advanced'`, so that typed arrays arrive as typed arrays.
 *
 * Rules of the wire:
 * - The trainer speaks first: `ready`. The server answers with exactly one `job`; a process runs
 *   one.
 * - Events are numbered from 0 without gaps and arrive in the order in which they were made. The
 *   last is `candidate`, `failed` or `cancelled`; the process ends by itself after it.
 * - The server acknowledges each event once it is done with it (written, not merely received). At
 *   most LIMITS.trainerEventsMax are unacknowledged: a slow disk slows the trainer down instead of
 *   filling memory. The last event may go beyond the bound, so that it always gets out.
 * - From `ready` on the trainer says `alive` every LIMITS.trainerBeatMs, as far as a computation,
 *   which holds its thread, lets it. One that says nothing for LIMITS.trainerSilenceMs hangs.
 * - `cancel` may come at any time, any number of times, and before the job. It is answered by
 *   `cancelled`, or by another last event when that was already on its way.
 * - A closed channel means that the other side is gone: the trainer exits at once, the server
 *   counts the run as died.
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { TrainerEvent, TrainingJob } from './types.ts';

export type ToTrainer =
  { type: 'job'; job: TrainingJob } | { type: 'cancel' } | { type: 'ack'; sequence: number };

export type FromTrainer =
  { type: 'ready' } | { type: 'alive' } | { type: 'event'; sequence: number; event: TrainerEvent };

/** Whether an event is the last of its run. */
export function isLast(event: TrainerEvent): boolean {
  return event.type === 'candidate' || event.type === 'failed' || event.type === 'cancelled';
}

/**
 * The trainer's end of the event stream: numbers events, keeps at most `bound` of them
 * unacknowledged and lets the rest wait in order.
 */
export class EventStream {
  private sent = 0;
  private acknowledged = 0;
  /** Wakes one waiting `send`, or `drained`, at each acknowledgement. */
  private waiting: (() => void)[] = [];
  private readonly post: (message: FromTrainer) => void;
  private readonly bound: number;

  constructor(post: (message: FromTrainer) => void, bound: number = LIMITS.trainerEventsMax) {
    this.post = post;
    this.bound = bound;
  }

  get outstanding(): number {
    return this.sent - this.acknowledged;
  }

  /** Resolves once the event is on the wire. Calls must not overlap. Rejects when aborted first. */
  async send(event: TrainerEvent, signal?: AbortSignal): Promise<void> {
    if (!isLast(event)) {
      signal?.throwIfAborted();
      while (this.outstanding >= this.bound) await this.nextAck(signal);
    }
    this.post({ type: 'event', sequence: this.sent++, event });
  }

  /** Resolves when the server is done with every event. */
  async drained(signal: AbortSignal): Promise<void> {
    while (this.outstanding > 0) await this.nextAck(signal);
  }

  acknowledge(sequence: number): void {
    if (sequence !== this.acknowledged || this.outstanding === 0) {
      throw new AppError('internal', `internal: event ${sequence} acknowledged out of order`);
    }
    this.acknowledged++;
    for (const wake of this.waiting.splice(0)) wake();
  }

  private nextAck(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.waiting = this.waiting.filter((other) => other !== wake);
        reject(must(signal, 'an abort has a signal').reason as Error);
      };
      const wake = (): void => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal?.aborted === true) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      this.waiting.push(wake);
    });
  }
}
