/**
 * The held-out gate: a candidate may replace the policy that it was trained from only when, on the
 * same tasks with the same seeds, it is not worse (ARCHITECTURE.md, "Training flow"). The
 * test statistic is the mean paired difference of accuracy; its uncertainty comes from a seeded
 * bootstrap over tasks (Efron's percentile interval), because differences of 0/1 scores are far
 * from normal at 100 to 200 tasks. Of few tasks it says nothing, however often each is answered:
 * below LIMITS.gateTasksMin no candidate passes.
 *
 * Knows nothing of how the outcomes were sampled, nor of policies and their files.
 */
import type { EvaluatedTask } from '../arpo/evaluate.ts';
import { evalScores } from '../arpo/evaluate.ts';
import { mean } from '../arpo/number.ts';
import { assert, must } from '../assert.ts';
import { LIMITS } from '../limits.ts';
import { Prng } from '../prng.ts';
import type { EvalScore, GateReport } from '../records.ts';

/** What the gate looks at in the answer to one held-out task. */
export type GateOutcome = Pick<EvaluatedTask, 'task' | 'correct' | 'formatOk' | 'toolCalls'>;

/** One policy's answers to the held-out tasks, each list in the same order of tasks. */
export interface GateAnswers {
  /** One list a sample: at least one. */
  sampled: readonly (readonly GateOutcome[])[];
  /** Only reported: what is decided on are the samples, as traffic is sampled. */
  greedy: readonly GateOutcome[] | null;
}

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

/**
 * Judges answers that are aligned: sample k of task i of both sides has the same task and seed.
 */
export function judgeCandidate(
  base: GateAnswers,
  candidate: GateAnswers,
  settings: GateSettings,
): GateReport {
  const accuracy = pairedDifferences(base, candidate);
  const difference = bootstrapMean(accuracy, settings);
  const scores = { base: gateScores(base), candidate: gateScores(candidate) };
  const reason = tooFew(accuracy.length) ?? refusal(scores, difference, settings.tolerance);
  return {
    passed: reason === null,
    reason: reason ?? `not worse: difference ${interval(difference)}`,
    tasks: accuracy.length,
    ...scores,
    difference,
    tolerance: settings.tolerance,
    samples: base.sampled.length,
  };
}

/** Figures by family and over `all`. */
function gateScores({ sampled, greedy }: GateAnswers): Record<string, EvalScore> {
  const scores = evalScores(sampled.flat());
  const greedyScores = greedy === null ? {} : evalScores(greedy);
  for (const [family, score] of Object.entries(scores)) {
    score.tasks /= sampled.length;
    if (sampled.length > 1) score.passAtK = passShare(sampled, family);
    const { accuracy } = greedyScores[family] ?? {};
    if (accuracy !== undefined) score.greedyAccuracy = accuracy;
  }
  return scores;
}

/** Share of a family's tasks that any sample answered right. */
function passShare(sampled: GateAnswers['sampled'], family: string): number {
  const first = must(sampled[0], 'at least one sample');
  const passed = first.flatMap(({ task }, i) =>
    family === 'all' || task.family === family
      ? [Number(sampled.some((outcomes) => outcomes[i]?.correct === true))]
      : [],
  );
  return mean(passed);
}

/** Why nothing can be said; null when there are tasks enough. */
function tooFew(tasks: number): string | null {
  if (tasks >= LIMITS.gateTasksMin) return null;
  return `held-out tasks are too few to compare on: ${tasks}, at least ${LIMITS.gateTasksMin}`;
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

/** Accuracy, candidate minus base, task by task: the mean over the samples, in [-1, 1]. */
function pairedDifferences(base: GateAnswers, candidate: GateAnswers): number[] {
  const samples = base.sampled.length;
  assert(samples > 0 && samples === candidate.sampled.length, 'both sides have as many samples');
  const tasks = must(base.sampled[0], 'a sample').length;
  assert(tasks > 0, 'the gate has no outcome to compare');
  return Array.from({ length: tasks }, (_, i) => {
    const differences = base.sampled.map((outcomes, k) => {
      const before = must(outcomes[i], 'an outcome of the base');
      const after = must(candidate.sampled[k]?.[i], 'as many outcomes of the candidate');
      assert(
        before.task.id === after.task.id,
        `gate pair ${i}: ${before.task.id}, ${after.task.id}`,
      );
      return Number(after.correct) - Number(before.correct);
    });
    return mean(differences);
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
