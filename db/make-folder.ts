/**
 * Makes a folder and the missing ones above it. Not by `mkdirSync(.., { recursive: true })`: Node's
 * loops forever where a folder exists but refuses new ones as if it did not (Linux /proc).
 */
import { mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Throws the system's error: a file in the way, no permission, read-only. */
export function makeFolder(folder: string): void {
  const path = resolve(folder);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent);
  mkdirSync(path);
}
