/**
 * Reading the small text files of a policy directory. Every failure is `policy_invalid` and names
 * the file, because the operator who pointed the server at the directory must find the fault.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseBoundedJson } from '../bounded-json.ts';
import { AppError } from '../errors.ts';
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

export function invalidFile(path: string, why: string, cause?: unknown): AppError {
  return new AppError('policy_invalid', `${path}: ${why}`, { cause });
}

/** The text of a file, or null when there is none. */
export function readOptionalText(directory: string, name: string): string | null {
  const path = join(directory, name);
  if (!existsSync(path)) return null;
  try {
    const { size } = statSync(path);
    const most = LIMITS.policyTextBytesMax;
    if (size > most) throw new Error(`${size} bytes are more than ${most}`);
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw invalidFile(path, `cannot be read: ${String(error)}`, error);
  }
}

/** The JSON object in a file, or null when there is no file. */
export function readOptionalJson(directory: string, name: string): JsonObject | null {
  const text = readOptionalText(directory, name);
  if (text === null) return null;
  const path = join(directory, name);
  let value: unknown;
  try {
    value = parseBoundedJson(text);
  } catch (error) {
    throw invalidFile(path, `is not valid JSON: ${String(error)}`, error);
  }
  if (!isObject(value)) throw invalidFile(path, 'holds no JSON object');
  return value;
}

/** The JSON object in a file that must be there. */
export function readJson(directory: string, name: string): JsonObject {
  const value = readOptionalJson(directory, name);
  if (value === null) throw invalidFile(join(directory, name), 'is missing');
  return value;
}
