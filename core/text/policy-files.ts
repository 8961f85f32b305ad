/** The small text files of a policy directory: which are JSON objects, and which may be missing. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { invalidFile, readJsonFile, readTextFile } from '../json-file.ts';
import { LIMITS } from '../limits.ts';

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The JSON object written in a text; null when it is not valid JSON or no object. */
export function parseObject(json: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(json);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

/** The text of a file, or null when there is none. */
export function readOptionalText(directory: string, name: string): string | null {
  const path = join(directory, name);
  return existsSync(path) ? readTextFile(path, LIMITS.policyTextBytesMax) : null;
}

/** The JSON object in a file, or null when there is no file. */
export function readOptionalJson(directory: string, name: string): JsonObject | null {
  return existsSync(join(directory, name)) ? readJson(directory, name) : null;
}

/** The JSON object in a file that must be there. */
export function readJson(directory: string, name: string): JsonObject {
  const path = join(directory, name);
  const value = readJsonFile(path, LIMITS.policyTextBytesMax);
  if (!isObject(value)) throw invalidFile(path, 'holds no JSON object');
  return value;
}
