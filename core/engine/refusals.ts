/** What both sides of the policy worker refuse with the same words: bounds of the engine. */
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { BLOCK_TOKENS, type KvMemory } from './kv-memory.ts';

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

/** @throws AppError config_invalid when memory cannot hold a block, or the whole window if less. */
export function requireBlock(tokens: number, window: number, { bytesMax }: KvMemory): void {
  if (tokens >= Math.min(window, BLOCK_TOKENS)) return;
  throw new AppError(
    'config_invalid',
    `${bytesMax} bytes for keys and values hold ${tokens} tokens of this policy, too few to serve`,
  );
}
