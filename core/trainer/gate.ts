/**
 * The held-out gate: a candidate may replace the policy that it was trained from only when, on the
 * same tasks with the same seeds, it is not worse (ARCHITECTURE.md, "Training flow"). The
 * test statistic is the mean paired difference of accuracy; its uncertainty comes from a seeded
 * bootstrap over tasks (Efron's percentile interval), because differences of 0/1 scores are far
 * from normal at 100 to 200 tasks.
 *
 * Knows nothing of how the outcomes were sampled, nor of policies and their files.
 */
import type { EvaluatedTask } from '../arpo/evaluate.ts';
import { evalScores } from '../arpo/evaluate.ts';
import { mean } from '../arpo/number.ts';
import { assert, must } from '../assert.ts';
import { Prng } from '../prng.ts';
import type { EvalScore, GateReport } from '../records.ts';

/** What the gate looks at in the answer to one held-out task. */
export type GateOutcome = Pick<EvaluatedTask, 'task' | 'correct' | 'formatOk' | 'toolCalls'>;

export interface GateSettings {
  /** How far the lower bound of the difference may lie below zero; also for format errors. */
  tolerance: number;
  seed: number;
  /** Bootstrap resamples; 2,000 by default. */
  resamples?: number;
}

/** Share of resamples left out on each side: a 95 % interval. */
const TAIL = 0.025;
const RESAMPLES = 2_000;

/** Judges outcomes that are aligned: index i of both is the same task and seed. */
export function judgeCandidate(
  base: readonly GateOutcome[],
  candidate: readonly GateOutcome[],
  settings: GateSettings,
): GateReport {
  const differences = pairedDifferences(base, candidate);
  const difference = bootstrapMean(differences, settings);
  const scores = { base: evalScores(base), candidate: evalScores(candidate) };
  const reason = refusal(scores, difference, settings.tolerance);
  return {
    passed: reason === null,
    reason: reason ?? `not worse: difference ${interval(difference)}`,
    tasks: differences.length,
    ...scores,
    difference,
    tolerance: settings.tolerance,
  };
}

/** Why the candidate may not serve; null when it may. */
function refusal(
  scores: { base: Record<string, EvalScore>; candidate: Record<string, EvalScore> },
  difference: GateReport['difference'],
  tolerance: number,
): string | null {
  if (!(difference.low > -tolerance)) {
    return `accuracy may be worse: difference ${interval(difference)}, tolerance ${tolerance}`;
  }
  const before = must(scores.base['all'], 'scores of all tasks').formatErrors;
  const after = must(scores.candidate['all'], 'scores of all tasks').formatErrors;
  if (after - before > tolerance) {
    const rise = `from ${before.toFixed(3)} to ${after.toFixed(3)}`;
    return `format errors rose ${rise}, tolerance ${tolerance}`;
  }
  return null;
}

const interval = ({ mean, low, high }: GateReport['difference']): string =>
  `${mean.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;

/** Candidate minus base, task by task: -1, 0 or 1. */
function pairedDifferences(
  base: readonly GateOutcome[],
  candidate: readonly GateOutcome[],
): number[] {
  assert(base.length > 0, 'the gate has no outcome to compare');
  assert(base.length === candidate.length, 'the gate compares the same tasks and seeds');
  return base.map((before, i) => {
    const after = must(candidate[i], 'as many outcomes of the candidate');
    assert(before.task.id === after.task.id, `gate pair ${i}: ${before.task.id}, ${after.task.id}`);
    return Number(after.correct) - Number(before.correct);
  });
}

/** Mean and percentile interval: order statistics floor(R * tail) from either end of R means. */
export function bootstrapMean(
  values: readonly number[],
  settings: { seed: number; resamples?: number },
): { mean: number; low: number; high: number } {
  const resamples = settings.resamples ?? RESAMPLES;
  const random = new Prng(settings.seed);
  const means = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[random.below(values.length)] as number;
    means[r] = sum / values.length;
  }
  means.sort();
  const cut = Math.floor(resamples * TAIL);
  return {
    mean: mean(values),
    low: means[cut] as number,
    high: means[resamples - 1 - cut] as number,
  };
}
