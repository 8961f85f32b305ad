/** Group commit: who shares a commit, when it happens, and who hears of which failure. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';

let folder: string;
let db: Database;
let commits: GroupCommit;
let reader: BetterSqlite3.Database;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-group-commit-'));
  db = openDatabase(join(folder, 'ramify.db'));
  commits = new GroupCommit(db);
  reader = new BetterSqlite3(db.path, { readonly: true });
});
afterEach(() => {
  reader.close();
  commits.close();
  db.close();
  rmSync(folder, { recursive: true });
});

function insert(id: string): () => string {
  return () => {
    db.sqlite
      .prepare(`INSERT INTO tasks VALUES (?, 'f', 'test', 'q', '[]', 'exact', '[]', '{}')`)
      .run(id);
    return id;
  };
}

/** What another connection sees: committed rows only. */
function committed(): unknown[] {
  return reader.prepare('SELECT id FROM tasks ORDER BY id').pluck().all();
}

describe('GroupCommit', () => {
  test('writes of one moment are committed together, in order, and resolve with their values', async () => {
    const first = commits.run(1, insert('a'));
    const second = commits.run(1, insert('b'));
    expect(committed()).toEqual([]);
    expect(await first).toBe('a');
    expect(committed()).toEqual(['a', 'b']);
    expect(await second).toBe('b');
  });

  test('a full commit does not wait for the timer, and is never over its bound', async () => {
    const half = LIMITS.groupCommitRowsMax / 2;
    const a = commits.run(half, insert('a'));
    expect(committed()).toEqual([]);
    const b = commits.run(half + 1, insert('b'));
    expect(committed()).toEqual(['a']);
    const c = commits.run(LIMITS.groupCommitRowsMax, insert('c'));
    expect(committed()).toEqual(['a', 'b', 'c']);
    await Promise.all([a, b, c]);
  });

  test('a write that breaks the schema, or throws, fails alone and whole', async () => {
    const good = commits.run(1, insert('a'));
    const twice = commits.run(2, () => {
      insert('b')();
      return insert('a')();
    });
    const refused = commits.run(1, () => {
      insert('c')();
      throw new AppError('step_not_found', 'no such step');
    });
    const last = commits.run(1, insert('d'));
    await expect(good).resolves.toBe('a');
    await expect(twice).rejects.toMatchObject({
      code: 'internal',
      message: expect.stringContaining('UNIQUE constraint failed: tasks.id'),
    });
    await expect(refused).rejects.toMatchObject({ code: 'step_not_found' });
    await expect(last).resolves.toBe('d');
    expect(committed()).toEqual(['a', 'd']);
  });

  test('when the disk fails everyone is told, nothing is kept, and later writes work again', async () => {
    // The smallest real full disk: no page may be added to the file.
    const pages = db.sqlite.pragma('page_count', { simple: true }) as number;
    db.sqlite.pragma(`max_page_count = ${pages}`);
    const big = (id: string) => () =>
      db.sqlite
        .prepare(`INSERT INTO tasks VALUES (?, 'f', 'test', ?, '[]', 'exact', '[]', '{}')`)
        .run(id, 'q'.repeat(100_000));
    const failures = await Promise.allSettled([
      commits.run(1, insert('a')),
      commits.run(1, big('b')),
      commits.run(1, insert('c')),
    ]);
    for (const failure of failures) {
      const message = `cannot write ${db.path}: database or disk is full (SQLITE_FULL)`;
      const reason = { code: 'storage_failed', message };
      expect(failure).toMatchObject({ status: 'rejected', reason });
    }
    expect(committed()).toEqual([]);
    db.sqlite.pragma('max_page_count = 1000000');
    await commits.run(1, insert('e'));
    expect(committed()).toEqual(['e']);
  });

  test('another writer that does not let go is a storage failure, not a wait for ever', async () => {
    db.sqlite.pragma('busy_timeout = 50');
    const other = new BetterSqlite3(db.path);
    other.exec('BEGIN IMMEDIATE');
    await expect(commits.run(1, insert('a'))).rejects.toMatchObject({
      code: 'storage_failed',
      message: `cannot write ${db.path}: database is locked (SQLITE_BUSY)`,
    });
    other.exec('ROLLBACK');
    other.close();
    await commits.run(1, insert('b'));
    expect(committed()).toEqual(['b']);
  });

  test('flush commits now; close commits what waits and refuses the rest', async () => {
    const a = commits.run(1, insert('a'));
    commits.flush();
    expect(committed()).toEqual(['a']);
    const b = commits.run(1, insert('b'));
    commits.close();
    expect(committed()).toEqual(['a', 'b']);
    await expect(commits.run(1, insert('c'))).rejects.toMatchObject({ code: 'storage_failed' });
    await Promise.all([a, b]);
  });
});
