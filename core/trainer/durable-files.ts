/** Files that must be whole after a crash: forced to disk, and hashed without being held. */
import type { Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';

/** Forces a file, or the names in a folder, to disk. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Adds a file's bytes to a hash, piece by piece: weights may have some gigabytes. */
export async function hashFile(hash: Hash, path: string): Promise<void> {
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
}
