/**
 * A fixed number of slots and a bounded, first-come queue of waiters. Knows nothing of what the
 * slots are for. A waiter whose signal aborts leaves the queue.
 */
import { assert } from '../assert.ts';
import { AppError } from '../errors.ts';

export class Semaphore {
  private free: number;
  private readonly slots: number;
  private readonly waitersMax: number;
  private readonly waiters = new Set<() => void>();

  constructor(options: { slots: number; waitersMax: number }) {
    this.slots = options.slots;
    this.free = options.slots;
    this.waitersMax = options.waitersMax;
  }

  /** Does the work while it holds a slot. */
  async hold<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.acquire(signal);
    try {
      return await work();
    } finally {
      this.release();
    }
  }

  /** Resolves with a slot held; rejects with queue_full at once, or with the signal's reason. */
  private async acquire(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.free > 0) {
      this.free--;
      return;
    }
    if (this.waiters.size >= this.waitersMax) {
      throw new AppError('queue_full', `${this.waiters.size} calls wait already`);
    }
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.waiters.delete(enter);
        reject(signal.reason as Error);
      };
      const enter = (): void => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      this.waiters.add(enter);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  /** Hands the slot to the first waiter, or frees it. */
  private release(): void {
    const [next] = this.waiters;
    if (next === undefined) {
      this.free++;
      assert(this.free <= this.slots, 'a slot was released twice');
      return;
    }
    this.waiters.delete(next);
    next();
  }
}
