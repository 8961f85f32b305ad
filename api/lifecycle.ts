/**
 * Whether the server takes requests, and which it still owes an answer. At shutdown new requests
 * are refused with `not_ready`, activities (requests, streams to their last byte, background runs)
 * are waited for, and what remains after the time limit is aborted.
 */
import { AppError } from '../core/errors.ts';

/** Something that shutdown waits for. It ends when it has been released as often as held. */
export class Activity {
  private readonly controller = new AbortController();
  private readonly parent: AbortSignal | undefined;
  private readonly onEnd: (activity: Activity) => void;
  private readonly ends: (() => void)[] = [];
  private holds = 1;

  /** Held once by its maker; aborted when `parent` is. */
  constructor(parent: AbortSignal | undefined, onEnd: (activity: Activity) => void) {
    this.parent = parent;
    this.onEnd = onEnd;
    if (parent?.aborted) this.abort();
    // Not AbortSignal.any: a listener that is removed at the end keeps nothing alive.
    parent?.addEventListener('abort', this.abort, { once: true });
  }

  /** Aborted when the client went away or the server gives up waiting. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  readonly abort = (): void => this.controller.abort();

  /** Calls back once it has ended. */
  whenEnded(callback: () => void): void {
    this.ends.push(callback);
  }

  hold(): void {
    this.holds++;
  }

  release(): void {
    if (--this.holds > 0) return;
    this.parent?.removeEventListener('abort', this.abort);
    for (const callback of this.ends.splice(0)) callback();
    this.onEnd(this);
  }
}

export class Lifecycle {
  private readonly activities = new Set<Activity>();
  private idle: (() => void)[] = [];
  private stopped = false;
  private aborting = false;

  get stopping(): boolean {
    return this.stopped;
  }

  /** True when activities are being cut short. */
  get aborted(): boolean {
    return this.aborting;
  }

  get active(): number {
    return this.activities.size;
  }

  /** @throws AppError not_ready while stopping. */
  admit(): void {
    if (this.stopped) throw new AppError('not_ready', 'the server is stopping');
  }

  begin(parent?: AbortSignal): Activity {
    const activity = new Activity(parent, (ended) => {
      this.activities.delete(ended);
      if (this.activities.size === 0) for (const wake of this.idle.splice(0)) wake();
    });
    this.activities.add(activity);
    if (this.aborting) activity.abort();
    return activity;
  }

  /** Refuses new requests; resolves when nothing is active, after at most twice `timeoutMs`. */
  async stop(timeoutMs: number): Promise<void> {
    this.stopped = true;
    if (await this.idleWithin(timeoutMs)) return;
    this.aborting = true;
    for (const activity of this.activities) activity.abort();
    // An aborted answer still writes its rows and its error frame.
    await this.idleWithin(timeoutMs);
  }

  private async idleWithin(timeoutMs: number): Promise<boolean> {
    if (this.activities.size === 0) return true;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), timeoutMs);
    });
    const idle = new Promise<boolean>((resolve) => this.idle.push(() => resolve(true)));
    const done = await Promise.race([idle, timeout]);
    clearTimeout(timer);
    return done;
  }
}
