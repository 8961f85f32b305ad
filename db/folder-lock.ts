/**
 * One server a data folder. The lock is an exclusive SQLite transaction on a file of its own, held
 * as long as the process lives: the operating system lets go of it at any kind of death, where a
 * file with a process id would lie after a kill or a reboot.
 */
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { AppError } from '../core/errors.ts';
import { makeFolder } from './make-folder.ts';
import { storageError } from './open.ts';

/**
 * Takes the folder (made when it is missing) and returns what lets go of it.
 * @throws AppError storage_failed: in use by another server, or not writable.
 */
export function lockFolder(folder: string): () => void {
  const path = join(folder, 'server.lock');
  let lock: BetterSqlite3.Database | undefined;
  try {
    makeFolder(folder);
    lock = new BetterSqlite3(path, { timeout: 0 });
    lock.exec('BEGIN EXCLUSIVE');
  } catch (thrown) {
    lock?.close();
    if (thrown instanceof BetterSqlite3.SqliteError && thrown.code === 'SQLITE_BUSY') {
      const message = `the data folder ${folder} is in use by another server`;
      throw new AppError('storage_failed', message, { cause: thrown });
    }
    throw storageError('use the data folder', folder, thrown);
  }
  const held = lock;
  return () => held.close();
}
