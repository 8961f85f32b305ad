/**
 * Group commit: writes of many callers gather for a few milliseconds and share one transaction and
 * one fsync (ARCHITECTURE.md, "Data"). How long depends on what the last commit took: nobody waits
 * eight milliseconds for a disk that needs half of one, and a slow disk gets few commits. Each
 * write runs in its own savepoint, so that a write which breaks a rule of the schema fails alone;
 * when the disk fails, everyone is told. A promise settles only after the commit. Knows nothing of
 * tables.
 */
import BetterSqlite3 from 'better-sqlite3';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Database } from './open.ts';
import { storageError } from './open.ts';

interface Pending {
  rows: number;
  write: () => unknown;
  resolve: (value: unknown) => void;
  reject: (error: AppError) => void;
}

/** To one commit: they take a quarter of the thread at most, until LIMITS ends the wait. */
const WAIT_PER_COMMIT = 3;

type Outcome = { value: unknown } | { failure: AppError };

export class GroupCommit {
  private readonly db: Database;
  private readonly statements: Record<
    'begin' | 'commit' | 'rollback' | 'savepoint' | 'release' | 'rollbackTo',
    BetterSqlite3.Statement
  >;
  private pending: Pending[] = [];
  private pendingRows = 0;
  private timer: NodeJS.Timeout | undefined;
  /** Milliseconds that the last commit took, with its writes. */
  private lastMs = 0;
  private closed = false;

  constructor(db: Database) {
    this.db = db;
    const prepare = (sql: string): BetterSqlite3.Statement => db.sqlite.prepare(sql);
    this.statements = {
      begin: prepare('BEGIN IMMEDIATE'),
      commit: prepare('COMMIT'),
      rollback: prepare('ROLLBACK'),
      savepoint: prepare('SAVEPOINT one_write'),
      release: prepare('RELEASE one_write'),
      rollbackTo: prepare('ROLLBACK TO one_write'),
    };
  }

  /**
   * Runs a synchronous write within LIMITS.groupCommitMs, in the order of the calls, and resolves
   * with its value once that is durable. `rows` is its size in table rows, for the bound of a
   * commit. Rejects with what the write threw when that was an AppError, `storage_failed` when the
   * disk or another writer is in the way or the log is closed, `internal` when the rows do not fit
   * the schema.
   */
  run<T>(rows: number, write: () => T): Promise<T> {
    if (this.closed) {
      return Promise.reject(
        new AppError('storage_failed', `cannot write ${this.db.path}: it is closed`),
      );
    }
    if (this.pendingRows > 0 && this.pendingRows + rows > LIMITS.groupCommitRowsMax) this.commit();
    const done = new Promise<T>((resolve, reject) => {
      this.pending.push({ rows, write, resolve: resolve as (value: unknown) => void, reject });
    });
    this.pendingRows += rows;
    if (this.pendingRows >= LIMITS.groupCommitRowsMax) this.commit();
    else this.timer ??= setTimeout(() => this.commit(), this.waitMs());
    return done;
  }

  /** Commits what waits, now. Failures go to those who wait for them. */
  flush(): void {
    this.commit();
  }

  /** Commits what waits and refuses everything after. Does not close the database. */
  close(): void {
    this.commit();
    this.closed = true;
  }

  private waitMs(): number {
    return Math.min(LIMITS.groupCommitMs, WAIT_PER_COMMIT * this.lastMs);
  }

  private commit(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const group = this.pending;
    if (group.length === 0) return;
    this.pending = [];
    this.pendingRows = 0;
    const startedAt = performance.now();
    let outcomes: Outcome[];
    try {
      this.statements.begin.run();
      outcomes = group.map(({ write }) => this.writeOne(write));
      this.statements.commit.run();
    } catch (thrown) {
      const error = this.abandon(thrown);
      for (const { reject } of group) reject(error);
      return;
    } finally {
      this.lastMs = performance.now() - startedAt;
    }
    group.forEach(({ resolve, reject }, index) => {
      const outcome = outcomes[index] as Outcome;
      if ('failure' in outcome) reject(outcome.failure);
      else resolve(outcome.value);
    });
  }

  /** Throws only what concerns the whole group. */
  private writeOne(write: () => unknown): Outcome {
    this.statements.savepoint.run();
    try {
      const value = write();
      this.statements.release.run();
      return { value };
    } catch (thrown) {
      if (isStorageFailure(thrown)) throw thrown;
      this.statements.rollbackTo.run();
      this.statements.release.run();
      return { failure: ownFailure(thrown) };
    }
  }

  private abandon(thrown: unknown): AppError {
    // SQLite has already rolled back by itself after some failures, a full disk for one.
    if (this.db.sqlite.open && this.db.sqlite.inTransaction) this.statements.rollback.run();
    return storageError('write', this.db.path, thrown);
  }
}

/** Everything that SQLite reports except a row that breaks a constraint is the world's failure. */
function isStorageFailure(thrown: unknown): boolean {
  return (
    thrown instanceof BetterSqlite3.SqliteError && !thrown.code.startsWith('SQLITE_CONSTRAINT')
  );
}

function ownFailure(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return new AppError('internal', `internal: a write does not fit the schema: ${text}`, {
    cause: thrown,
  });
}
