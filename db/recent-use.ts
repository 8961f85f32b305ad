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

  has(id: string): boolean {
    const at = this.used.get(id);
    return at !== undefined && this.clock.now() - at < LIMITS.recentUseMs;
  }
}
