/**
 * Opens the one SQLite file of a data folder: durable settings stated one by one, migrations
 * applied in order, a file of a newer ramify refused. One process writes; others may read beside it
 * (WAL). Knows the folder of the migrations, not what is in the tables.
 */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import type { BetterSQLite3Database } from 'drizzle-orm/better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { migrate } from 'drizzle-orm/better-sqlite3/migrator';
import { readMigrationFiles } from 'drizzle-orm/migrator';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { packageRoot } from '../core/paths.ts';
import { makeFolder } from './make-folder.ts';
import * as schema from './schema.ts';

export const migrationsFolder: string = join(packageRoot, 'migrations');

/** An open database. Everything on it is synchronous and belongs to one thread. */
export interface Database {
  /** As opened: an absolute path, or `:memory:`. */
  readonly path: string;
  /** For prepared statements on the hot path. */
  readonly sqlite: BetterSqlite3.Database;
  /** For everything else. */
  readonly orm: BetterSQLite3Database<typeof schema>;
  /** Moves the write-ahead log into the file and closes it. Safe to call twice. */
  close(): void;
}

/**
 * Opens or creates the database at a file path (folders above it are made) or in memory.
 * @throws AppError storage_failed, one line that names the path: no permission, read-only, not a
 *   database, in use by another writer, or written by a newer version of ramify.
 */
export function openDatabase(path: string): Database {
  const file = path === ':memory:' ? path : resolve(path);
  let sqlite: BetterSqlite3.Database | undefined;
  try {
    if (file !== ':memory:') makeFolder(dirname(file));
    sqlite = new BetterSqlite3(file, { timeout: LIMITS.databaseBusyTimeoutMs });
    configure(sqlite, file);
    migrationsLeft(sqlite, file);
    const orm = drizzle(sqlite, { schema });
    migrate(orm, { migrationsFolder });
    const opened = sqlite;
    return { path: file, sqlite, orm, close: () => closeDatabase(opened) };
  } catch (thrown) {
    sqlite?.close();
    if (thrown instanceof AppError) throw thrown;
    throw storageError('open the database', file, thrown);
  }
}

/**
 * Opens an existing database beside whoever writes it; writing to it fails.
 * @throws AppError storage_failed: there is none, or one of a newer or older version of ramify.
 */
export function openForReading(path: string): Database {
  const file = resolve(path);
  if (!existsSync(file)) throw new AppError('storage_failed', `there is no database ${file}`);
  let sqlite: BetterSqlite3.Database | undefined;
  try {
    sqlite = new BetterSqlite3(file, {
      readonly: true,
      fileMustExist: true,
      timeout: LIMITS.databaseBusyTimeoutMs,
    });
    const missing = migrationsLeft(sqlite, file);
    if (missing > 0) {
      const update = 'a server, or a command that writes, brings it up to date when it starts';
      throw new AppError(
        'storage_failed',
        `cannot read the database ${file}: it was written by an older version of ramify; ${update}`,
      );
    }
    const opened = sqlite;
    const orm = drizzle(sqlite, { schema });
    return { path: file, sqlite, orm, close: () => closeDatabase(opened) };
  } catch (thrown) {
    sqlite?.close();
    if (thrown instanceof AppError) throw thrown;
    throw storageError('read the database', file, thrown);
  }
}

/** What the operator reads when the disk, not a request, is at fault. */
export function storageError(action: string, path: string, thrown: unknown): AppError {
  const error = rootCause(thrown);
  const code = error instanceof Error && 'code' in error ? ` (${String(error.code)})` : '';
  const text = error instanceof Error ? error.message : String(error);
  return new AppError('storage_failed', `cannot ${action} ${path}: ${text}${code}`, {
    cause: thrown,
  });
}

/** drizzle wraps SQLite's error in one whose text is the SQL; the reason is underneath. */
function rootCause(thrown: unknown): unknown {
  let error = thrown;
  while (error instanceof Error && error.cause instanceof Error) error = error.cause;
  return error;
}

function configure(sqlite: BetterSqlite3.Database, file: string): void {
  // Must come before the first table: lets retention give pages back in small pieces.
  sqlite.pragma('auto_vacuum = INCREMENTAL');
  const mode = sqlite.pragma('journal_mode = WAL', { simple: true });
  if (mode !== 'wal' && mode !== 'memory') {
    throw new AppError(
      'storage_failed',
      `cannot open the database ${file}: its file system does not offer WAL (got ${String(mode)})`,
    );
  }
  // FULL syncs the log at every commit: a committed answer survives a power cut, not only a crash.
  sqlite.pragma('synchronous = FULL');
  // On macOS a plain fsync may stop at the drive's cache; elsewhere these two change nothing.
  sqlite.pragma('fullfsync = ON');
  sqlite.pragma('checkpoint_fullfsync = ON');
  sqlite.pragma('foreign_keys = ON');
  sqlite.pragma(`busy_timeout = ${LIMITS.databaseBusyTimeoutMs}`);
  sqlite.pragma('wal_autocheckpoint = 1000');
  sqlite.pragma('cache_size = -16384');
  sqlite.pragma('temp_store = MEMORY');
  sqlite.pragma('trusted_schema = OFF');
}

/**
 * How many of our migrations the file has not had yet. drizzle looks only at the newest applied
 * time, so one that we lack would go unnoticed: a newer file is refused.
 */
function migrationsLeft(sqlite: BetterSqlite3.Database, file: string): number {
  const known = new Set(readMigrationFiles({ migrationsFolder }).map(({ hash }) => hash));
  const hasJournal = sqlite
    .prepare(`SELECT 1 FROM sqlite_master WHERE name = '__drizzle_migrations'`)
    .get();
  if (hasJournal === undefined) return known.size;
  const applied = sqlite
    .prepare<[], { hash: string }>('SELECT hash FROM __drizzle_migrations')
    .all();
  const unknown = applied.find(({ hash }) => !known.has(hash));
  if (unknown === undefined) return known.size - applied.length;
  throw new AppError(
    'storage_failed',
    `cannot open the database ${file}: it was written by a newer version of ramify ` +
      `(unknown migration ${unknown.hash.slice(0, 12)}); update ramify or use another data folder`,
  );
}

function closeDatabase(sqlite: BetterSqlite3.Database): void {
  if (!sqlite.open) return;
  if (!sqlite.memory && !sqlite.readonly) sqlite.pragma('wal_checkpoint(TRUNCATE)');
  sqlite.close();
}
