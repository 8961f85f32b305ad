/**
 * Reads the text files of a policy directory, within a bound. Every failure is `policy_invalid` and
 * names the file, because the operator who pointed the server at the directory must find the fault.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { parseBoundedJson } from './bounded-json.ts';
import { AppError } from './errors.ts';
import { LIMITS } from './limits.ts';

/** The JSON value in a file. Throws when it cannot be read, is too long or is not JSON. */
export function readJsonFile(path: string, bytesMax: number = LIMITS.modelJsonBytesMax): unknown {
  const text = readTextFile(path, bytesMax);
  try {
    return parseBoundedJson(text);
  } catch (error) {
    throw invalidFile(path, `is not valid JSON: ${messageOf(error)}`, error);
  }
}

/** The text of a file. Throws when it cannot be read or is too long; then nothing is read. */
export function readTextFile(path: string, bytesMax: number): string {
  let descriptor: number | null = null;
  try {
    descriptor = openSync(path, 'r');
    const { size } = fstatSync(descriptor);
    if (size > bytesMax) throw new Error(`${size} bytes are more than ${bytesMax}`);
    return readFileSync(descriptor, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw invalidFile(path, missing ? 'is missing' : `cannot be read: ${messageOf(error)}`, error);
  } finally {
    if (descriptor !== null) closeSync(descriptor);
  }
}

export function invalidFile(path: string, why: string, cause?: unknown): AppError {
  return new AppError('policy_invalid', `${path}: ${why}`, { cause });
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
