/**
 * An abort signal that fires when its parent does or when time is up, and remembers which. Unlike
 * AbortSignal.any with AbortSignal.timeout it holds no timer and no listener after `close`.
 */
import { setMaxListeners } from 'node:events';

export class Deadline {
  readonly signal: AbortSignal;
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly parent: AbortSignal | undefined;
  private timedOut = false;
  private firstFailure: { thrown: unknown } | null = null;

  /** Starts the clock: `ms` from now, or when `parent` aborts. */
  constructor(parent: AbortSignal | undefined, ms: number) {
    this.signal = this.controller.signal;
    // One listener a call in flight, removed when it ends: many at once are no leak.
    setMaxListeners(0, this.signal);
    this.parent = parent;
    this.timer = setTimeout(() => {
      this.timedOut = true;
      this.controller.abort();
    }, ms);
    if (parent?.aborted) this.controller.abort();
    parent?.addEventListener('abort', this.abort, { once: true });
  }

  /** True when the time ran out before the parent aborted. */
  get expired(): boolean {
    return this.timedOut;
  }

  /** What `fail` was first called with; null when nothing failed. */
  get failure(): { thrown: unknown } | null {
    return this.firstFailure;
  }

  /** Aborts all work under this deadline because a part of it failed; the first cause is kept. */
  readonly fail = (thrown: unknown): void => {
    this.firstFailure ??= { thrown };
    this.controller.abort();
  };

  private readonly abort = (): void => this.controller.abort();

  /** Lets go of the timer and the parent. Call it in a `finally`. */
  close(): void {
    clearTimeout(this.timer);
    this.parent?.removeEventListener('abort', this.abort);
  }
}
