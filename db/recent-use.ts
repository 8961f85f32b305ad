/**
 * What requests at work have read of the log and go on from: they will store steps below it. The
 * database does not know of them yet, so what they use is remembered for as long as a request may
 * take, and is not removed meanwhile.
 */
import type { Clock } from '../core/clock.ts';
import { LIMITS } from '../core/limits.ts';

export class RecentUse {
  private readonly clock: Clock;
  /** Ids with the time of their last use, the longest unused first. */
  private readonly used = new Map<string, number>();
  /** How many are at work on an id. */
  private readonly held = new Map<string, number>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** A trajectory or a conversation. */
  note(id: string): void {
    const now = this.clock.now();
    this.used.delete(id);
    this.used.set(id, now);
    for (const [oldest, at] of this.used) {
      if (this.used.size <= LIMITS.recentUsesMax && now - at < LIMITS.recentUseMs) break;
      this.used.delete(oldest);
    }
  }

  /** Keeps trajectories until `work` has ended, however many others are noted meanwhile. */
  async during(ids: readonly string[], work: () => Promise<void>): Promise<void> {
    for (const id of ids) this.held.set(id, (this.held.get(id) ?? 0) + 1);
    try {
      await work();
    } finally {
      for (const id of ids) {
        const left = (this.held.get(id) ?? 1) - 1;
        if (left > 0) this.held.set(id, left);
        else this.held.delete(id);
      }
    }
  }

  has(id: string): boolean {
    if (this.held.has(id)) return true;
    const at = this.used.get(id);
    return at !== undefined && this.clock.now() - at < LIMITS.recentUseMs;
  }
}
