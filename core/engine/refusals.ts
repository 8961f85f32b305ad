/** What both sides of the policy worker refuse with the same words: bounds of the engine. */
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { BLOCK_TOKENS, type KvMemory, type KvShape } from './kv-memory.ts';

/** @throws AppError context_length_exceeded when `length` tokens leave no room in the window. */
export function requireRoom(length: number, window: number): void {
  if (length < window) return;
  throw new AppError(
    'context_length_exceeded',
    `${length} tokens do not fit the context window of ${window} with room for an answer`,
  );
}

/** @throws AppError queue_full when as many sequences as allowed are open. */
export function requireSequenceSlot(open: number, max: number): void {
  if (open < max) return;
  throw new AppError('queue_full', `${open} conversations are open already`, {
    retryAfterS: LIMITS.retryAfterS,
  });
}

/** @throws AppError queue_full when as many samples as allowed wait for a batch row. */
export function requireQueueSlot(waiting: number, max: number): void {
  if (waiting < max) return;
  throw new AppError('queue_full', `${waiting} requests wait already`, {
    retryAfterS: LIMITS.retryAfterS,
  });
}

export function notLoaded(policyVersion: number): AppError {
  return new AppError('model_not_found', `policy version ${policyVersion} is not loaded`);
}

/**
 * The window of a policy in tokens: its model's, or what memory can hold of it.
 *
 * @throws AppError config_invalid when that is less than a block and than the model's.
 */
export function windowWithin(
  memory: KvMemory,
  config: KvShape & { contextTokens: number },
): number {
  const { bytesMax } = memory;
  const tokens = Math.min(config.contextTokens, memory.tokensMax(config));
  if (tokens >= Math.min(config.contextTokens, BLOCK_TOKENS)) return tokens;
  throw new AppError(
    'config_invalid',
    `${bytesMax} bytes for keys and values hold ${tokens} tokens of this policy, too few to serve`,
  );
}
