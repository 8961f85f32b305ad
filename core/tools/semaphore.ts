/**
 * A fixed number of slots and a bounded queue of waiters, in which callers take turns: who waits
 * with many calls keeps no other caller's call waiting for all of them. Knows nothing of what the
 * slots are for. A waiter whose signal aborts leaves the queue.
 */
import { assert, must } from '../assert.ts';
import { AppError } from '../errors.ts';

export interface SemaphoreOptions {
  slots: number;
  waitersMax: number;
  /** Of these one caller's, where calls say whose they are. */
  callerWaitersMax: number;
}

/** Whose a call is; null: nobody's, which may be all. */
export type Caller = string | null;

type Waiters = Set<() => void>;

export class Semaphore {
  private free: number;
  private readonly options: SemaphoreOptions;
  /** First come first served of one caller; the callers in the order of their turns. */
  private readonly waiters = new Map<Caller, Waiters>();
  private waiting = 0;

  constructor(options: SemaphoreOptions) {
    this.options = options;
    this.free = options.slots;
  }

  /** Does the work while it holds a slot. */
  async hold<T>(caller: Caller, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.acquire(caller, signal);
    try {
      return await work();
    } finally {
      this.release();
    }
  }

  /** Resolves with a slot held; rejects with queue_full at once, or with the signal's reason. */
  private async acquire(caller: Caller, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.free > 0) {
      this.free--;
      return;
    }
    const { waitersMax, callerWaitersMax } = this.options;
    if (this.waiting >= waitersMax) {
      throw new AppError('queue_full', `${this.waiting} calls wait already`);
    }
    const own = this.waiters.get(caller) ?? new Set();
    if (caller !== null && own.size >= callerWaitersMax) {
      const message = `${own.size} calls of this key wait already, of ${waitersMax} that may`;
      throw new AppError('queue_full', message);
    }
    this.waiters.set(caller, own);
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.remove(caller, own, enter);
        reject(signal.reason as Error);
      };
      const enter = (): void => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      own.add(enter);
      this.waiting++;
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  private remove(caller: Caller, own: Waiters, waiter: () => void): void {
    own.delete(waiter);
    this.waiting--;
    if (own.size === 0) this.waiters.delete(caller);
  }

  /** Hands the slot to the first waiter of the caller whose turn it is, or frees it. */
  private release(): void {
    const [turn] = this.waiters;
    if (turn === undefined) {
      this.free++;
      assert(this.free <= this.options.slots, 'a slot was released twice');
      return;
    }
    const [caller, own] = turn;
    const next = must(own.values().next().value, 'a caller without waiters is not kept');
    // Its next turn comes after those of the others.
    this.waiters.delete(caller);
    this.waiters.set(caller, own);
    this.remove(caller, own, next);
    next();
  }
}
