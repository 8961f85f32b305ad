/**
 * How many tokens fit one forward and backward run, and whether a job fits the memory at all, told
 * before it starts instead of by the system's killer in the middle.
 */
import { LIMITS } from '../limits.ts';
import type { ModelConfig } from '../model/types.ts';

/** Tokens of one micro-batch, so that time, padding and the memory of its logits stay bounded. */
export function tokensPerRun({ vocabulary }: Pick<ModelConfig, 'vocabulary'>): number {
  const fitting = Math.floor(LIMITS.trainLogitBytesMax / (4 * vocabulary));
  return Math.max(1, Math.min(LIMITS.trainTokensPerRunMax, fitting));
}
