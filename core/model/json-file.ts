/** Reads a JSON file of a policy directory, within a bound. Every failure names the file. */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { parseBoundedJson } from '../bounded-json.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';

/** Throws policy_invalid when it cannot be read, is too long or is not JSON. */
export function readJsonFile(path: string): unknown {
  const text = readText(path);
  try {
    return parseBoundedJson(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new AppError('policy_invalid', `${path}: not valid JSON: ${reason}`, { cause: error });
  }
}

function readText(path: string): string {
  let descriptor: number | null = null;
  try {
    descriptor = openSync(path, 'r');
    const { size } = fstatSync(descriptor);
    if (size > LIMITS.modelJsonBytesMax) {
      throw new Error(`${size} bytes are more than ${LIMITS.modelJsonBytesMax}`);
    }
    return readFileSync(descriptor, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new AppError('policy_invalid', `${path}: ${reason}`, { cause: error });
  } finally {
    if (descriptor !== null) closeSync(descriptor);
  }
}
