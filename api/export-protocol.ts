/**
 * Messages between an export's thread and the server. Rules of the wire:
 * - the thread gets its task with its start and needs no message to begin;
 * - it sends at most `LIMITS.exportChunksAhead` chunks more than it got `next` messages, so a
 *   client that reads slowly slows it down, and memory holds no more than those;
 * - after the last chunk comes one `end`; or, at any time, one `failed`; then it exits by itself;
 * - after `stop` nothing more is sent, and it exits when the piece in its hands is done. It is
 *   never terminated: it may be inside SQLite, whose snapshot it must give back.
 */
import type { ErrorCode } from '../core/errors.ts';
import type { TrajectoryFilter } from '../db/trajectory-filter.ts';

export interface ExportTask {
  /** Of the database. */
  path: string;
  filter: TrajectoryFilter;
  compressed: boolean;
}

export type ToExport = { type: 'next' } | { type: 'stop' };

export type FromExport =
  /** The memory of `bytes` is moved, not copied. */
  | { type: 'chunk'; bytes: Uint8Array<ArrayBuffer> }
  | { type: 'end'; trajectories: number }
  | { type: 'failed'; code: ErrorCode; message: string };
