/**
 * Token and step entropy (arpo.md section 2). A step's entropy H is measured on its first k policy
 * tokens and divided by ln V, so that it lies in [0, 1] whatever the vocabulary and the step's
 * length; that of the released code is a sum, and lies in [0, k]. It knows nothing of models: it
 * takes probabilities, or token entropies that the engine measured.
 */
import { assert, must } from '../assert.ts';
import type { SampledTokens } from '../ports.ts';

export interface EntropySettings {
  /**
   * full: the mean of the first k token entropies. max: the largest of them. released-code: the sum
   * of the first k entropies over the ten likeliest candidates.
   */
  mode: 'full' | 'max' | 'released-code';
  /** k: how many of a step's first tokens count. */
  tokens: number;
}

export const DEFAULT_ENTROPY: EntropySettings = { mode: 'full', tokens: 20 };

/** h = -sum p ln p over one distribution (V), in nats. */
export function tokenEntropy(probabilities: ArrayLike<number>): number {
  let h = 0;
  for (let v = 0; v < probabilities.length; v++) {
    const p = probabilities[v] as number;
    if (p > 0) h -= p * Math.log(p);
  }
  return h;
}

/** Candidates of the released code's token entropy. */
const RELEASED_CANDIDATES = 10;

/** Over how many candidates the engine must measure a second token entropy; 0: over none. */
export function entropyCandidates(mode: EntropySettings['mode']): number {
  return mode === 'released-code' ? RELEASED_CANDIDATES : 0;
}

/** The token entropies that H is made of. */
export function measuredEntropies(
  { entropies, candidateEntropies }: Pick<SampledTokens, 'entropies' | 'candidateEntropies'>,
  mode: EntropySettings['mode'],
): Float32Array {
  if (entropyCandidates(mode) === 0) return entropies;
  return must(candidateEntropies, `entropy '${mode}' of an engine that measures it`);
}

/**
 * H of a step from the entropies of its tokens (T, in nats): the mean, the maximum or the sum of
 * the first `tokens` of them, divided by ln V. Null when nothing was sampled.
 */
export function stepEntropy(
  entropies: ArrayLike<number>,
  vocabularySize: number,
  settings: EntropySettings,
): number | null {
  assert(vocabularySize >= 2, `entropy needs a vocabulary of two or more, not ${vocabularySize}`);
  const count = Math.min(entropies.length, settings.tokens);
  if (count === 0) return null;
  let sum = 0;
  let max = 0;
  for (let t = 0; t < count; t++) {
    const h = entropies[t] as number;
    sum += h;
    max = Math.max(max, h);
  }
  const h = { full: sum / count, max, 'released-code': sum }[settings.mode];
  return h / Math.log(vocabularySize);
}

/** Tokens that the released code sums over. */
const RELEASED_TOKENS = 20;

/**
 * H as the authors' released code has it, from whole distributions (T, V): the SUM over the first
 * 20 tokens of -p ln p over the ten likeliest candidates only, not renormalised, divided by ln V.
 * The definition, and slow twin of what the engine measures.
 */
export function releasedCodeStepEntropy(
  probabilities: readonly (readonly number[])[],
  vocabularySize: number,
): number {
  let sum = 0;
  for (const row of probabilities.slice(0, RELEASED_TOKENS)) {
    sum += tokenEntropy([...row].sort((a, b) => b - a).slice(0, RELEASED_CANDIDATES));
  }
  return sum / Math.log(vocabularySize);
}
