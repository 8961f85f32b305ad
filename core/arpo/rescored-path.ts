/**
 * Logged conversations under the weights of now (arpo.md section 3.6): the log-probabilities of
 * their tokens, and their entropies measured anew, because the policy of now may be sure where the
 * one that wrote the log was not. Knows nothing of rewards and of branch rules, which read dH.
 */
import { must } from '../assert.ts';
import type { ScoreResult } from '../model/types.ts';
import type { StepRecord } from '../records.ts';
import { stepEntropy, type EntropySettings } from './entropy.ts';

/** ln p and entropy of every token of each row under the weights of now (0 at index 0). */
export type ScoreRows = (rows: readonly Uint32Array[]) => Promise<ScoreResult>;

export interface RescoredPath {
  /** The logged steps, but for entropies: of tokens, H and dH as the weights of now have them. */
  steps: StepRecord[];
  /** ln p of the tokens of its policy steps, by step id. */
  logprobs: ReadonlyMap<string, Float32Array>;
  /** Tool results that the policy went on from, in order. */
  points: ForkPoint[];
}

export interface ForkPoint {
  /** Index of the tool step. */
  at: number;
  /** dH of the step behind it. */
  deltaEntropy: number;
}

/** Scores paths, each from its root to its leaf. */
export async function rescorePaths(
  paths: readonly (readonly StepRecord[])[],
  options: { score: ScoreRows; vocabularySize: number; entropy: EntropySettings },
): Promise<RescoredPath[]> {
  if (paths.length === 0) return [];
  const { score, vocabularySize, entropy } = options;
  const scored = await score(paths.map(tokensOf));
  return paths.map((path, i) => {
    const allLogprobs = must(scored.logprobs[i], 'logprobs of each row');
    const allEntropies = must(scored.entropies[i], 'entropies of each row');
    const logprobs = new Map<string, Float32Array>();
    let initial: number | null = null;
    let start = 0;
    const steps = path.map((step) => {
      const end = start + step.tokens.length;
      const span = [start, end] as const;
      start = end;
      if (step.kind !== 'policy') return step;
      logprobs.set(step.id, allLogprobs.slice(...span));
      const entropies = allEntropies.slice(...span);
      const h = stepEntropy(entropies, vocabularySize, entropy);
      initial ??= h;
      const deltaEntropy = h === null || initial === null ? null : h - initial;
      return { ...step, entropies, stepEntropy: h, deltaEntropy };
    });
    return { steps, logprobs, points: pointsOf(steps) };
  });
}

function pointsOf(steps: readonly StepRecord[]): ForkPoint[] {
  return steps.flatMap(({ kind }, at) => {
    const deltaEntropy = steps[at + 1]?.deltaEntropy ?? null;
    return kind === 'tool' && deltaEntropy !== null ? [{ at, deltaEntropy }] : [];
  });
}

function tokensOf(path: readonly StepRecord[]): Uint32Array {
  const tokens = new Uint32Array(path.reduce((sum, step) => sum + step.tokens.length, 0));
  let at = 0;
  for (const step of path) {
    tokens.set(step.tokens, at);
    at += step.tokens.length;
  }
  return tokens;
}
