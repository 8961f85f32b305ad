/**
 * Writes a trained policy as a directory, all of it or nothing: first under a temporary name beside
 * the final one, every file and the folder synced to disk, then one rename. A crash at any moment
 * leaves either no candidate or a whole one; leftovers carry `.partial` in their name and are
 * removed by the next write of the same candidate.
 *
 * Everything but the weights is copied from the base policy (tokenizer, template, config,
 * ramify.json). Does not know the format of weights: the caller writes those into the directory,
 * and an adapter's config, which says where its base is seen from there.
 */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AppError } from '../errors.ts';
import { hashFile, syncPath } from './durable-files.ts';

const WRITTEN_ANEW = /\.safetensors(\.index\.json)?$|^adapter_config\.json$/;

/**
 * Makes `directory` from the files of `base` (null: none) and what `writeWeights` puts into the
 * directory that it gets. Returns the sha256 of the whole (directorySha256). Throws storage_failed.
 */
export async function writeCandidate(options: {
  base: string | null;
  directory: string;
  writeWeights: (directory: string) => Promise<void>;
}): Promise<{ sha256: string }> {
  const { base, directory, writeWeights } = options;
  const partial = join(dirname(directory), `.${basename(directory)}.partial`);
  try {
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    await writeWeights(partial);
    // After the weights: a config.json that came with them yields to the base's own, so that fields
    // that we do not read are kept.
    if (base !== null) await copyOthers(base, partial);
    for (const name of await fileNames(partial)) await syncPath(join(partial, name));
    await syncPath(partial);
    const sha256 = await directorySha256(partial);
    await rename(partial, directory);
    await syncPath(dirname(directory));
    return { sha256 };
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    const why = error instanceof Error ? error.message : String(error);
    throw new AppError('storage_failed', `cannot write the policy to ${directory}: ${why}`, {
      cause: error,
    });
  }
}

/**
 * One hash over the regular files of a policy directory, in order of their names: for each its
 * name, a NUL, its length in decimal, a NUL, its bytes. Sub-folders do not count.
 */
export async function directorySha256(directory: string): Promise<string> {
  const hash = createHash('sha256');
  for (const name of await fileNames(directory)) {
    const path = join(directory, name);
    hash.update(`${name}\0${(await stat(path)).size}\0`);
    await hashFile(hash, path);
  }
  return hash.digest('hex');
}

async function copyOthers(from: string, to: string): Promise<void> {
  for (const name of await fileNames(from)) {
    if (!WRITTEN_ANEW.test(name)) await copyFile(join(from, name), join(to, name));
  }
}

async function fileNames(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name)
    .sort();
}
