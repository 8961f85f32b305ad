/**
 * Where a checkpoint's tensors are: in model.safetensors, or in several files that
 * model.safetensors.index.json lists by tensor (Hugging Face shards). Headers are read, tensors are
 * not.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { readJsonFile } from '../json-file.ts';
import { openSafetensors } from './safetensors.ts';
import type { StoredWeights } from './types.ts';

export const WEIGHTS_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

/** A file of the directory itself: no separators of any system, nothing hidden. */
const SHARD_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$/;

/**
 * Every tensor of a checkpoint directory. The single file goes first when both are there, as in
 * transformers. Throws policy_invalid naming the file at fault.
 */
export function openCheckpoint(directory: string): StoredWeights {
  const single = join(directory, WEIGHTS_FILE);
  const index = join(directory, INDEX_FILE);
  if (existsSync(single) || !existsSync(index)) return openSafetensors(single);
  const shards = readIndex(index);
  const weights: StoredWeights = new Map();
  for (const [file, names] of shards) {
    const path = join(directory, file);
    const found = openSafetensors(path);
    for (const name of names) {
      const tensor = found.get(name);
      if (tensor === undefined) throw invalid(index, `${name} is not in ${file}`);
      weights.set(name, tensor);
    }
    if (found.size !== names.length) {
      const listed = new Set(names);
      const extra = [...found.keys()].find((name) => !listed.has(name));
      throw invalid(path, `${extra} is not listed in ${INDEX_FILE}`);
    }
  }
  return weights;
}

/** Tensor names by file. */
function readIndex(path: string): Map<string, string[]> {
  const map = (readJsonFile(path) as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw invalid(path, 'weight_map is no JSON object');
  }
  const shards = new Map<string, string[]>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || !SHARD_NAME.test(file)) {
      throw invalid(path, `${name}: ${JSON.stringify(file)} is no file of the directory`);
    }
    const names = shards.get(file);
    if (names === undefined) shards.set(file, [name]);
    else names.push(name);
  }
  if (shards.size > LIMITS.checkpointShardsMax) {
    throw invalid(path, `${shards.size} files are more than ${LIMITS.checkpointShardsMax}`);
  }
  return shards;
}

function invalid(where: string, what: string): AppError {
  return new AppError('policy_invalid', `${where}: ${what}`);
}
