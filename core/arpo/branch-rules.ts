/**
 * Rules that toss a coin at every tool result (arpo.md section 3.2): what each looks at there, and
 * how likely a branch is. Slots, order and siblings are the growth's. `random` and `surprisal` are
 * controls: does entropy matter, and does it say more than the tokens that were drawn?
 */
import { stepEntropy, type EntropySettings } from './entropy.ts';
import {
  aepoProbability,
  paperDecision,
  paperProbability,
  releasedCodeProbability,
} from './branching.ts';
import type { BranchSettings, CoinBranch } from './rollout-settings.ts';
import type { StepRecord } from '../records.ts';

export interface BranchRule {
  readonly name: CoinBranch;
  /** What it looks at, at the tool step `at` of a path; null: at nothing. */
  signal(steps: readonly StepRecord[], at: number): number | null;
  /** Of a branch; `consecutive` counts the rounds in a row in which the group branched. */
  probability(signal: number | null, consecutive: number): number;
  /** Whether a draw from (0, 1) opens a branch. */
  opens(probability: number, draw: number): boolean;
}

/** What a rule may need to know of the measure and the model. */
export interface Measure {
  entropy: EntropySettings;
  vocabularySize: number;
  /** ln p of tokens that other weights sampled, under those of now, by step id. */
  rescored?: ReadonlyMap<string, Float32Array>;
}

export function branchRule(
  settings: Extract<BranchSettings, { branch: CoinBranch }>,
  measure: Measure,
): BranchRule {
  const coin = { opens: (probability: number, draw: number) => draw < probability };
  switch (settings.branch) {
    case 'paper':
    case 'surprisal':
      return {
        name: settings.branch,
        signal:
          settings.branch === 'paper'
            ? deltaAfter
            : (steps, at) => surprisalChange(steps, at, measure),
        probability: (signal) => paperProbability(signal ?? 0, settings),
        opens: (probability, draw) => paperDecision(probability, settings.branchThreshold, draw),
      };
    case 'random':
      return { name: 'random', signal: () => null, probability: () => settings.alpha, ...coin };
    case 'released-code':
      return {
        name: 'released-code',
        signal: deltaBefore,
        probability: (signal) => releasedCodeProbability(signal ?? 0, settings),
        ...coin,
      };
    case 'aepo':
      return {
        name: 'aepo',
        signal: deltaAfter,
        probability: (signal, consecutive) => aepoProbability(signal ?? 0, consecutive, settings),
        ...coin,
      };
  }
}

/** dH of the step that follows the result. */
export function deltaAfter(steps: readonly StepRecord[], at: number): number {
  return steps[at + 1]?.deltaEntropy ?? 0;
}

/** dH of the step that made the call: 0 at the first call, whatever the result does. */
function deltaBefore(steps: readonly StepRecord[], at: number): number {
  return steps.slice(0, at).findLast(({ kind }) => kind === 'policy')?.deltaEntropy ?? 0;
}

/**
 * Change of the mean (or largest, or summed) -ln p of a step's first sampled tokens against the
 * first step, in the units of H: its expectation is that of dH over the whole vocabulary.
 */
function surprisalChange(steps: readonly StepRecord[], at: number, measure: Measure): number {
  const first = steps.find(({ kind }) => kind === 'policy');
  return surprisal(steps[at + 1], measure) - surprisal(first, measure);
}

function surprisal(step: StepRecord | undefined, measure: Measure): number {
  if (step === undefined) return 0;
  const logprobs = measure.rescored?.get(step.id) ?? step.logprobs ?? [];
  const minus = Float32Array.from(logprobs, (logprob) => -logprob);
  return stepEntropy(minus, measure.vocabularySize, measure.entropy) ?? 0;
}
