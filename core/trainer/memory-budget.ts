/**
 * How many tokens fit one forward and backward run, and whether a job fits the memory at all, told
 * before it starts instead of by the system's killer in the middle.
 */
import { LIMITS } from '../limits.ts';
import type { ModelConfig } from '../model/types.ts';

/** Numbers that a layer keeps of a token, in its widths: about so many of each. */
const KEPT_HIDDEN = 12;
const KEPT_INTERMEDIATE = 5;

/** Tokens of one micro-batch, padding included: a bound on time and on what its layers keep. */
export function tokensPerRun({
  layers,
  hidden,
  intermediate,
}: Pick<ModelConfig, 'layers' | 'hidden' | 'intermediate'>): number {
  const kept = 4 * layers * (KEPT_HIDDEN * hidden + KEPT_INTERMEDIATE * intermediate);
  const fitting = Math.floor(LIMITS.trainActivationBytesMax / kept);
  return Math.max(1, Math.min(LIMITS.trainTokensPerRunMax, fitting));
}

/** Predictions of one micro-batch that pass through the head: a bound on its logits. */
export function predictionsPerRun({ vocabulary }: Pick<ModelConfig, 'vocabulary'>): number {
  return Math.max(1, Math.floor(LIMITS.trainLogitBytesMax / (4 * vocabulary)));
}
