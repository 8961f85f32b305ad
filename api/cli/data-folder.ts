/**
 * A data folder as a command opens it: to read, beside a server that may run on it, or to write,
 * alone. Reading takes no lock and makes nothing; writing takes the server's lock, and is refused
 * while a server (or another command that writes) has it.
 */
import { join } from 'node:path';
import { systemClock } from '../../core/clock.ts';
import { AppError } from '../../core/errors.ts';
import { lockFolder } from '../../db/folder-lock.ts';
import { openDatabase, openForReading } from '../../db/open.ts';
import { openStores } from '../../db/stores.ts';
import type { Stores } from '../../db/stores.ts';
import type { Config } from '../config.ts';

type Folder = Pick<Config, 'dataFolder'>;

/** @throws AppError storage_failed, also when the folder has no database yet. */
export async function reading<T>(
  { dataFolder }: Folder,
  work: (stores: Stores) => Promise<T>,
): Promise<T> {
  const stores = openStores(openForReading(join(dataFolder, 'ramify.db')), systemClock);
  try {
    return await work(stores);
  } finally {
    stores.close();
  }
}

/** The folder and its database are made when they are missing. @throws AppError storage_failed */
export async function writing<T>(
  { dataFolder }: Folder,
  work: (stores: Stores) => Promise<T>,
): Promise<T> {
  const unlock = lockFolder(dataFolder);
  try {
    const stores = openStores(openDatabase(join(dataFolder, 'ramify.db')), systemClock);
    try {
      return await work(stores);
    } finally {
      stores.close();
    }
  } finally {
    unlock();
  }
}

/** Adds to the refusal of a locked folder what can be done about it. */
export function explained(error: AppError): AppError {
  if (error.code !== 'storage_failed' || !error.message.endsWith('in use by another server')) {
    return error;
  }
  const message =
    `${error.message.replace('another server', 'a server, or by another command that writes')}: ` +
    'stop it first, or use its HTTP API; eval, replay and export also run beside it';
  return new AppError('storage_failed', message, { cause: error });
}
