/**
 * The events of one run, numbered from 1, for followers that may come late or come back. Bounded:
 * of a long run only the newest events are kept, and a follower that asks for older ones starts at
 * the oldest kept. Knows nothing of HTTP.
 */
import { LIMITS } from '../core/limits.ts';

export interface NumberedEvent<T> {
  id: number;
  event: T;
}

export class EventLog<T> {
  private readonly kept: T[] = [];
  private readonly bound: number;
  /** Events dropped from the front. */
  private dropped = 0;
  private closed = false;
  private wakeups: (() => void)[] = [];

  constructor(bound: number = LIMITS.eventsPerRunMax) {
    this.bound = bound;
  }

  /** Id of the newest event; 0 before the first. */
  get lastId(): number {
    return this.dropped + this.kept.length;
  }

  append(event: T): void {
    this.kept.push(event);
    if (this.kept.length > this.bound) {
      // In batches, because shift() on a long array moves every element.
      const excess = Math.max(1, Math.floor(this.bound / 10));
      this.kept.splice(0, excess);
      this.dropped += excess;
    }
    this.wake();
  }

  /** No event comes any more; followers end after the newest. */
  close(): void {
    this.closed = true;
    this.wake();
  }

  /**
   * Events after the given id, then new ones as they come, until the log closes or the signal
   * aborts.
   */
  async *follow(afterId: number, signal: AbortSignal): AsyncGenerator<NumberedEvent<T>> {
    let next = afterId + 1;
    while (!signal.aborted) {
      next = Math.max(next, this.dropped + 1);
      const event = this.kept[next - 1 - this.dropped];
      if (event !== undefined) yield { id: next++, event };
      else if (this.closed) return;
      else await this.change(signal);
    }
  }

  private change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        resolve();
      };
      signal.addEventListener('abort', done, { once: true });
      this.wakeups.push(done);
    });
  }

  private wake(): void {
    for (const wakeup of this.wakeups.splice(0)) wakeup();
  }
}
