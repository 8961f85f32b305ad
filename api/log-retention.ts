/**
 * A log that forgets: trajectories that are too old, and the oldest while the database is too
 * large, go in small pieces, with all that belongs to them alone (db/log-removal.ts). Each piece is
 * a file of the archive (log-archive.ts), whole and durable, before the first of it is deleted, so
 * a crash in between leaves some of it in both places, never in neither. What cannot be archived
 * stays. Works beside everything else, with a turn for others after each trajectory.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from '../core/clock.ts';
import { toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import { LEFT_OVER_KINDS } from '../db/log-removal.ts';
import type { OldTrajectory, Place } from '../db/log-removal.ts';
import type { Stores } from '../db/stores.ts';
import { LogArchive } from './log-archive.ts';

/** What of the log stays; null: no bound. */
export interface KeepSettings {
  days: number | null;
  /** Of the database, as far as it is used. */
  bytes: number | null;
}

export interface LogRetentionOptions {
  stores: Stores;
  keep: KeepSettings;
  /** <data>/archive */
  folder: string;
  clock: Clock;
  logger: Logger;
}

/** What goes into one file. */
interface Piece {
  /** Those of one transaction each. */
  groups: OldTrajectory[][];
  /** Where the next one begins; null: there is none. */
  last: Place | null;
}

/** Of what kind the last warning was: said once, and again after a look without it. */
type Trouble = 'failed' | 'too large' | 'held';

const DAY_MS = 24 * 3_600_000;
/** Later than every trajectory. */
const EVER = Number.MAX_SAFE_INTEGER;

export class LogRetention {
  private readonly options: LogRetentionOptions;
  private readonly archive: LogArchive;
  private readonly stopped = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  private looking: Promise<void> | null = null;
  private trouble: Trouble | null = null;

  constructor(options: LogRetentionOptions) {
    this.options = options;
    this.archive = new LogArchive(options);
  }

  /** Begins to look, if anything is to be forgotten at all. */
  start(): void {
    const { days, bytes } = this.options.keep;
    if (days !== null || bytes !== null) this.lookAfter(LIMITS.logFirstLookMs);
  }

  /** Waits for the piece in its hands. */
  async stop(): Promise<void> {
    clearTimeout(this.timer);
    this.stopped.abort();
    await this.looking;
  }

  /** Looks once; what goes is gone when it resolves. Never rejects. */
  look(): Promise<void> {
    this.looking ??= this.lookOnce()
      .catch((thrown: unknown) => this.failed(thrown))
      .finally(() => (this.looking = null));
    return this.looking;
  }

  private lookAfter(ms: number): void {
    this.timer = setTimeout(() => {
      void this.look().then(() => {
        if (this.stopped.signal.aborted) return;
        const waits = this.options.stores.logRemoval.isRead;
        this.lookAfter(waits ? LIMITS.logWaitMs : LIMITS.logLookMs);
      });
    }, ms);
    this.timer.unref();
  }

  private async lookOnce(): Promise<void> {
    const { keep, stores, clock, logger } = this.options;
    const { logRemoval } = stores;
    const now = clock.now();
    for (let after: string | null = ''; after !== null && this.works; await nextTurn()) {
      after = await stores.answers.forgetExpired(after, now);
    }
    let removed = 0;
    if (keep.days !== null) {
      const before = now - keep.days * DAY_MS;
      removed += await this.removeOldest(before, () => LIMITS.logPieceBytes);
      await this.removeLeftOver(before);
    }
    const { bytes } = keep;
    const excess = (): number => (bytes === null ? 0 : logRemoval.usedBytes - bytes);
    if (bytes !== null && excess() > 0) removed += await this.removeExcess(excess, bytes);
    if (removed > 0) await this.shrink();
    if (logRemoval.isRead && excess() > 0) {
      this.warn('held', { bytes }, 'the log is too large, but a training run needs it as it is');
    }
    if (!this.works) return;
    const { usedBytes } = logRemoval;
    if (removed > 0) logger.info({ trajectories: removed, usedBytes }, 'old trajectories removed');
    if (excess() <= 0) this.trouble = null;
    else this.warn('too large', { usedBytes, bytes }, 'nothing more of the log may be removed');
  }

  /** False when the server stops, or a training run needs the log as it is. */
  private get works(): boolean {
    return !this.stopped.signal.aborted && !this.options.stores.logRemoval.isRead;
  }

  /** The oldest of all rows: left-over ones too, as far as trajectories go back. */
  private async removeExcess(excess: () => number, bytes: number): Promise<number> {
    const { stores, clock } = this.options;
    const leftOver = (): Promise<void> =>
      this.removeLeftOver(stores.logRemoval.oldestAt ?? clock.now());
    await leftOver();
    const slack = bytes * LIMITS.logSlackShare;
    const removed = await this.removeOldest(EVER, () => (excess() > 0 ? excess() + slack : 0));
    await leftOver();
    return removed;
  }

  /** Those created before a time, while there are too many bytes; returns how many went. */
  private async removeOldest(before: number, excess: () => number): Promise<number> {
    const { logRemoval } = this.options.stores;
    let removed = 0;
    // Ends: each round begins behind the one before.
    for (let after: Place | null = { createdAt: 0, id: '' }; after !== null;) {
      const most = excess();
      if (most <= 0) break;
      const piece = await this.choose(after, before, Math.min(most, LIMITS.logPieceBytes));
      after = piece.last;
      if (piece.groups.length === 0) continue;
      if (!this.works) break;
      const ids = piece.groups.flat().map(({ id }) => id);
      await this.archive.write(ids, this.stopped.signal);
      for (const group of piece.groups) {
        if (!this.works) break;
        removed += await logRemoval.remove(group, this.options.clock.now());
        await nextTurn();
      }
    }
    return removed;
  }

  /** The oldest behind a place, as many as have so many bytes of rows. */
  private async choose(after: Place, before: number, bytes: number): Promise<Piece> {
    const { logRemoval } = this.options.stores;
    const groups: OldTrajectory[][] = [];
    const counted = new Set<string>();
    let [found, trajectories, groupFrom] = [0, 0, 0];
    for (let last: Place | null = after; last !== null && this.works; await nextTurn()) {
      const next = logRemoval.oldest(last, before, LIMITS.logRowsPerRead);
      for (const one of next.old) {
        const group = groups.at(-1);
        const full = counted.size - groupFrom >= LIMITS.removedStepsPerWrite;
        if (group !== undefined && !full && group.length < LIMITS.rolloutRowsPerWrite) {
          group.push(one);
        } else {
          groups.push([one]);
          groupFrom = counted.size;
        }
        found += logRemoval.bytesOf(one, counted);
        trajectories++;
        if (found >= bytes || trajectories >= LIMITS.logPieceTrajectories) {
          return { groups, last: one };
        }
      }
      last = next.last;
    }
    return { groups, last: null };
  }

  private async removeLeftOver(before: number): Promise<void> {
    const { stores, clock } = this.options;
    const limit: number = LIMITS.leftOverRowsPerWrite;
    for (const kind of LEFT_OVER_KINDS) {
      for (let after: string | null = ''; after !== null && this.works; await nextTurn()) {
        const piece = { after, before, limit };
        after = await stores.logRemoval.removeLeftOver(kind, piece, clock.now());
      }
    }
  }

  private async shrink(): Promise<void> {
    const { logRemoval } = this.options.stores;
    while (this.works && (await logRemoval.shrink())) await nextTurn();
  }

  private failed(thrown: unknown): void {
    if (this.stopped.signal.aborted) return;
    const { code, message, stack } = toAppError(thrown);
    if (code === 'internal') this.options.logger.error({ stack }, message);
    else this.warn('failed', { error: message }, 'the log could not be made smaller');
  }

  private warn(trouble: Trouble, fields: Record<string, unknown>, message: string): void {
    if (this.trouble !== trouble) this.options.logger.warn(fields, message);
    this.trouble = trouble;
  }
}
