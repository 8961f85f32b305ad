/**
 * Which rows decode in one run. The runs of a row are as long whoever shares them: the first ones
 * of a live answer are short, so that its first piece comes early, and rows with shaped logits
 * sample few tokens a run; each of these kinds runs apart from the rest, which sample whole chunks.
 * Where a chunk ends decides how sums are rounded, so a row's tokens do not depend on its company.
 */
import { LIMITS } from '../limits.ts';
import type { SampledTokens } from '../ports.ts';
import type { LocalSequence } from './local-sequence.ts';
import type { RowOptions } from './row-options.ts';
import type { Waiting } from './scheduler.ts';

export type RunKind = 'begin' | 'shaped' | 'chunk';

/**
 * The runs of a turn. A row takes part in those of the kind that it has when the turn begins:
 * shaped ones, which mostly sample one token, in several, so that they are not that much slower.
 */
export const TURN_RUNS: readonly RunKind[] = [
  'begin',
  'chunk',
  ...Array.from({ length: LIMITS.shapedRunsMax }, () => 'shaped' as const),
];

interface DecodingJob extends Waiting {
  readonly sequence: LocalSequence;
  readonly options: RowOptions;
  /** What it has sampled so far. */
  readonly parts: readonly SampledTokens[];
}

export function kindOf({ options, parts, priority }: DecodingJob): RunKind {
  if (options.shapedSteps !== null) return 'shaped';
  return priority === 'live' && parts.length === 0 ? 'begin' : 'chunk';
}

/** Tokens of a run at most. */
export function chunkOf(kind: RunKind, chunkTokens: number): number {
  return kind === 'begin' ? Math.min(LIMITS.firstChunkTokens, chunkTokens) : chunkTokens;
}

/** Tokens that it may still sample. */
export function roomOf({ options, sequence }: DecodingJob, contextTokens: number): number {
  return Math.min(options.left, contextTokens - sequence.length);
}
