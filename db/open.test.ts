/**
 * Opening: the settings in force, and one clear line for each way in which a data folder is wrong.
 */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AppError } from '../core/errors.ts';
import { openDatabase, openForReading } from './open.ts';

const NOBODY = 65_534;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-open-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function failureOf(action: () => unknown): AppError {
  try {
    action();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error('expected an AppError');
}

/** The superuser may write anywhere, so file permissions are tried as an ordinary user. */
function asOrdinaryUser<T>(action: () => T): T {
  if (process.geteuid?.() !== 0) return action();
  process.seteuid?.(NOBODY);
  try {
    return action();
  } finally {
    process.seteuid?.(0);
  }
}

describe('openDatabase', () => {
  test('makes the folder, states durable settings and keeps them at the next opening', () => {
    const file = join(folder, 'new', 'data', 'ramify.db');
    openDatabase(file).close();
    const db = openDatabase(file);
    const pragma = (name: string): unknown => db.sqlite.pragma(name, { simple: true });
    expect(pragma('journal_mode')).toBe('wal');
    expect(pragma('synchronous')).toBe(2);
    expect(pragma('foreign_keys')).toBe(1);
    expect(pragma('busy_timeout')).toBe(5_000);
    expect(pragma('auto_vacuum')).toBe(2);
    expect(pragma('trusted_schema')).toBe(0);
    db.close();
  });

  test('closing moves the log into the file, and may be repeated', () => {
    const file = join(folder, 'closed.db');
    const db = openDatabase(file);
    db.sqlite.exec(
      `INSERT INTO tasks VALUES ('task_1', 'f', 'test', 'q', '[]', 'exact', '[]', '{}')`,
    );
    expect(statSync(`${file}-wal`).size).toBeGreaterThan(0);
    db.close();
    db.close();
    expect(existsSync(`${file}-wal`)).toBe(false);
    const again = openDatabase(file);
    expect(again.sqlite.prepare('SELECT count(*) FROM tasks').pluck().get()).toBe(1);
    again.close();
  });

  test('a folder that may not be written is named', () => {
    const locked = join(folder, 'locked');
    mkdirSync(locked);
    chmodSync(folder, 0o755);
    chmodSync(locked, 0o555);
    const file = join(locked, 'ramify.db');
    const error = failureOf(() => asOrdinaryUser(() => openDatabase(file)));
    expect(error.code).toBe('storage_failed');
    expect(error.message).toBe(
      `cannot open the database ${file}: unable to open database file (SQLITE_CANTOPEN)`,
    );
    const below = join(locked, 'deeper', 'ramify.db');
    expect(failureOf(() => asOrdinaryUser(() => openDatabase(below))).message).toMatch(
      new RegExp(`^cannot open the database ${below}: EACCES.*\\(EACCES\\)$`),
    );
  });

  test('a database file that may only be read is refused at opening', () => {
    const home = join(folder, 'read-only');
    const file = join(home, 'ramify.db');
    openDatabase(file).close();
    chmodSync(file, 0o444);
    if (process.geteuid?.() === 0) chownSync(home, NOBODY, NOBODY);
    const error = failureOf(() => asOrdinaryUser(() => openDatabase(file)));
    expect(error.code).toBe('storage_failed');
    expect(error.message).toBe(
      `cannot open the database ${file}: attempt to write a readonly database (SQLITE_READONLY)`,
    );
  });

  test('a folder in the place of the file, and a file in the place of the folder, are named', () => {
    expect(failureOf(() => openDatabase(folder)).message).toContain(
      `cannot open the database ${folder}:`,
    );
    const file = join(folder, 'plain');
    writeFileSync(file, 'not a folder');
    const below = join(file, 'ramify.db');
    expect(failureOf(() => openDatabase(below)).message).toContain(
      `cannot open the database ${below}:`,
    );
  });

  test('a file that is no database is refused and left as it was', () => {
    const file = join(folder, 'letter.db');
    const text = 'Dear reader, '.repeat(200);
    writeFileSync(file, text);
    const error = failureOf(() => openDatabase(file));
    expect(error.code).toBe('storage_failed');
    expect(error.message).toContain(`${file}: file is not a database`);
    expect(statSync(file).size).toBe(text.length);
  });

  test('a database of a newer version is refused', () => {
    const file = join(folder, 'newer.db');
    const db = openDatabase(file);
    db.sqlite
      .prepare('INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?, ?)')
      .run('f00dfacef00dface', 4_102_444_800_000);
    db.close();
    const error = failureOf(() => openDatabase(file));
    expect(error.code).toBe('storage_failed');
    expect(error.message).toBe(
      `cannot open the database ${file}: it was written by a newer version of ramify ` +
        '(unknown migration f00dfacef00d); update ramify or use another data folder',
    );
  });
});

describe('openForReading', () => {
  test('reads beside the writer, sees what it commits, and cannot write', () => {
    const file = join(folder, 'read', 'ramify.db');
    const writer = openDatabase(file);
    const reader = openForReading(file);
    const insert = 'INSERT INTO conversations (id, created_at, updated_at) VALUES (?, 1, 1)';
    writer.sqlite.prepare(insert).run('conv_1');
    expect(reader.sqlite.prepare('SELECT id FROM conversations').all()).toEqual([{ id: 'conv_1' }]);
    expect(() => reader.sqlite.prepare(insert).run('conv_2')).toThrow('readonly');
    writer.close();
    reader.close();
    const alone = openForReading(file);
    expect(alone.sqlite.prepare('SELECT count(*) AS n FROM conversations').get()).toEqual({ n: 1 });
    alone.close();
  });

  test('nothing is made, and a database of an older version is said to be one', () => {
    const missing = join(folder, 'none', 'ramify.db');
    const { code, message } = failureOf(() => openForReading(missing));
    expect(code).toBe('storage_failed');
    expect(message).toBe(`there is no database ${missing}`);
    expect(existsSync(join(folder, 'none'))).toBe(false);
    const file = join(folder, 'old', 'ramify.db');
    const db = openDatabase(file);
    db.sqlite.exec('DELETE FROM __drizzle_migrations WHERE rowid = 1');
    db.close();
    expect(failureOf(() => openForReading(file)).message).toContain('older version of ramify');
  });
});
