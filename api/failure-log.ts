/** What of a failed request goes to the log, wherever in the answer it failed. */
import type { AppError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';

/** Our bugs and the world's failures go to the log with their stack; callers' mistakes do not. */
export function logFailure(
  logger: Logger,
  requestId: string,
  error: AppError,
  thrown: unknown,
): void {
  if (error.code !== 'internal' && error.code !== 'storage_failed') return;
  const stack = thrown instanceof Error ? thrown.stack : String(thrown);
  const { cause } = error;
  const causeStack = cause instanceof Error ? cause.stack : undefined;
  logger.error({ requestId, code: error.code, stack, causeStack }, error.message);
}
