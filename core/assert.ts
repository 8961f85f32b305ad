/**
 * Assertions for our own bugs. A failed assertion is never the caller's fault: its text starts with
 * `internal:` and clients see only the code `internal` and a request id.
 */
import { AppError } from './errors.ts';

export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new AppError('internal', `internal: ${what}`);
}

/** Narrows away undefined where an index is known to be valid. */
export function must<T>(value: T | undefined | null, what: string): T {
  assert(value !== undefined && value !== null, what);
  return value;
}

export function unreachable(value: never, what: string): never {
  throw new AppError('internal', `internal: unexpected ${what}: ${String(value)}`);
}
