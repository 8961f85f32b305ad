/**
 * Files of what the log is about to forget: `DATE-TIME-RANDOM.jsonl.gz` in a folder, each a piece
 * of it in the form of an export, so that `ramify import` reads them back. Names are in the order
 * of time, and none comes back once its file was moved away. A file has its name only once
 * it is whole and on the disk; what a crash leaves half written has another name, is of
 * trajectories that are still in the log, and is deleted by the next process.
 */
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { constants, createGzip } from 'node:zlib';
import type { Clock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import type { TrajectoryRecord } from '../core/records.ts';
import { syncPath } from '../core/trainer/durable-files.ts';
import { makeFolder } from '../db/make-folder.ts';
import type { Stores } from '../db/stores.ts';
import { lineChunks } from './trajectory-export.ts';

export interface LogArchiveOptions {
  stores: Pick<Stores, 'logReader' | 'trajectories'>;
  folder: string;
  clock: Clock;
}

const PARTIAL = '.partial';

export class LogArchive {
  private readonly options: LogArchiveOptions;
  /** Of the newest name. */
  private lastMs = 0;

  constructor(options: LogArchiveOptions) {
    this.options = options;
  }

  /**
   * Writes trajectories to a file of their own; one that is not there any more is left out.
   * Resolves with its path when it is durable.
   * @throws AppError storage_failed; or what the signal says: then there is no file.
   */
  async write(ids: readonly string[], signal: AbortSignal): Promise<string> {
    const { folder } = this.options;
    try {
      await this.prepare();
      const path = join(folder, this.nextName());
      await this.writeWhole(path, ids, signal);
      return path;
    } catch (thrown) {
      signal.throwIfAborted();
      // Only what the system says is the disk's.
      if (!(thrown instanceof Error) || !('syscall' in thrown)) throw thrown;
      const { message } = thrown;
      throw new AppError('storage_failed', `cannot write to the archive ${folder}: ${message}`, {
        cause: thrown,
      });
    }
  }

  /** Before each file: the folder too may be moved away. */
  private async prepare(): Promise<void> {
    const { folder } = this.options;
    makeFolder(folder);
    for (const name of await readdir(folder)) {
      if (name.endsWith(PARTIAL)) await rm(join(folder, name), { force: true });
    }
    await syncPath(dirname(folder));
  }

  private nextName(): string {
    this.lastMs = Math.max(this.lastMs + 1, this.options.clock.now());
    const [date, time] = new Date(this.lastMs).toISOString().split('T') as [string, string];
    return `${date}-${time.replace(/\D/g, '')}-${randomBytes(4).toString('hex')}.jsonl.gz`;
  }

  private async writeWhole(
    path: string,
    ids: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const partial = path + PARTIAL;
    try {
      const gzip = createGzip({ level: constants.Z_BEST_SPEED });
      const out = createWriteStream(partial);
      await pipeline(Readable.from(this.lines(ids)), gzip, out, { signal });
      await syncPath(partial);
      await rename(partial, path);
      await syncPath(dirname(path));
    } catch (error) {
      // What failed is the news; a rest is deleted by the next process too.
      await rm(partial, { force: true }).catch(() => undefined);
      throw error;
    }
  }

  /** A turn of the event loop after each: others share this connection. */
  private async *lines(ids: readonly string[]): AsyncGenerator<Uint8Array> {
    for (const { bytes } of lineChunks(this.options.stores.logReader, this.records(ids), 1)) {
      yield bytes;
      await nextTurn();
    }
  }

  /** Each is read just before its line. */
  private *records(ids: readonly string[]): Generator<TrajectoryRecord> {
    for (const id of ids) {
      const found = this.options.stores.trajectories.find(id);
      if (found !== null) yield found;
    }
  }
}
