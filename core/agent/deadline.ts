/**
 * An abort signal that fires when its parent does or when time is up, and remembers which. Unlike
 * AbortSignal.any with AbortSignal.timeout it holds no timer and no listener after `close`.
 */

export class Deadline {
  readonly signal: AbortSignal;
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly parent: AbortSignal | undefined;
  private timedOut = false;

  /** Starts the clock: `ms` from now, or when `parent` aborts. */
  constructor(parent: AbortSignal | undefined, ms: number) {
    this.signal = this.controller.signal;
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

  /** Aborts the work below, without blaming the clock. */
  readonly abort = (): void => this.controller.abort();

  /** Lets go of the timer and the parent. Call it in a `finally`. */
  close(): void {
    clearTimeout(this.timer);
    this.parent?.removeEventListener('abort', this.abort);
  }
}
