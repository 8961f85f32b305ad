/**
 * What the demo found, as plain data: the JSON file, and the source of the table and the charts.
 * Also the verdict, which decides the exit code.
 */
import { evalScores } from '../../core/arpo/evaluate.ts';
import type { EvalScore } from '../../core/records.ts';
import { WAYS, type Answer, type Way } from './answer.ts';
import type { Examination, Failure } from './examination.ts';
import type { Schemas } from './http-client.ts';
import type { Training } from './training.ts';

/** By family, and over `all`. */
export type Scores = Record<string, EvalScore>;

export interface Phase {
  scores: Record<Way, Scores>;
  /** Answers by policy version. */
  versions: Record<string, number>;
}

export interface CurvePoint {
  step: number;
  /** Over the rollouts of the step. */
  rewardMean: number;
  accuracy: number;
}

export interface Summary {
  seed: number;
  questions: number;
  before: Phase;
  after: Phase;
  live: {
    answered: number;
    /** Answers by policy version; each came from exactly one. */
    versions: Record<string, number>;
  };
  training: Schemas['TrainingRun'];
  /** From start to end, the gate included. */
  trainingSeconds: number;
  curve: CurvePoint[];
  requests: {
    answers: number;
    failed: number;
    /** The first ones. */
    failures: Failure[];
  };
  /** Why the demo counts as failed; empty when it went well. */
  problems: string[];
}

export interface Findings {
  seed: number;
  questions: number;
  before: Examination;
  after: Examination;
  live: Examination;
  training: Training;
}

const FAILURES_SHOWN = 10;

export function summarise(findings: Findings): Summary {
  const { seed, questions, before, after, live, training } = findings;
  const { run, steps } = training;
  const failures = [before, after, live].flatMap((part) => part.failures);
  const answers = [before, after, live].flatMap((part) => part.answers);
  const seconds = (Date.parse(run.ended_at ?? '') - Date.parse(run.started_at ?? '')) / 1_000;
  const summary: Summary = {
    seed,
    questions,
    before: phase(before.answers),
    after: phase(after.answers),
    live: { answered: live.answers.length, versions: countVersions(live.answers) },
    training: run,
    trainingSeconds: Number.isFinite(seconds) ? seconds : 0,
    curve: steps.map(({ step, values }) => ({
      step,
      rewardMean: values['reward_mean'] ?? 0,
      accuracy: values['accuracy'] ?? 0,
    })),
    requests: {
      answers: answers.length,
      failed: failures.length,
      failures: failures.slice(0, FAILURES_SHOWN),
    },
    problems: [],
  };
  summary.problems = problemsOf(summary);
  return summary;
}

/** Accuracy over all families; null when nothing was answered. */
export function accuracyOf(part: Phase, way: Way): number | null {
  const all = part.scores[way]['all'];
  return all === undefined || all.tasks === 0 ? null : all.accuracy;
}

function problemsOf(summary: Summary): string[] {
  const { training, requests, before, after } = summary;
  const problems: string[] = [];
  if (training.status !== 'completed') {
    const why = training.error ?? training.gate?.reason ?? 'no reason given';
    problems.push(`the training run is ${training.status}: ${why}`);
  }
  const { failed } = requests;
  if (failed > 0) problems.push(`${failed} ${failed === 1 ? 'request' : 'requests'} failed`);
  const [was, is] = [accuracyOf(before, 'agent'), accuracyOf(after, 'agent')];
  if (was === null || is === null || is <= was) {
    const [from, to] = [was, is].map(shareText);
    problems.push(`the accuracy of agent runs did not rise: ${from} before, ${to} after`);
  }
  const candidate = String(training.candidate_version);
  const answered = Object.keys(after.versions);
  if (training.status === 'completed' && answered.some((version) => version !== candidate)) {
    problems.push(`after the swap to ${candidate}, versions ${answered.join(' and ')} answered`);
  }
  return problems;
}

function shareText(share: number | null): string {
  return share === null ? 'no answers' : `${(100 * share).toFixed(1)} %`;
}

function phase(answers: readonly Answer[]): Phase {
  const scores = Object.fromEntries(
    WAYS.map((way) => [way, evalScores(answers.filter((answer) => answer.way === way))]),
  ) as Record<Way, Scores>;
  return { scores, versions: countVersions(answers) };
}

function countVersions(answers: readonly Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { version } of answers) counts[version] = (counts[version] ?? 0) + 1;
  return counts;
}
