/**
 * What every run of an experiment has in common, and the record that a run leaves: one JSON line a
 * run, with its settings, seed, code and machine, and one entry a point of evaluation. Arms are
 * compared only within one plan: same start, same tasks, same draws of the evaluation, as many
 * training steps.
 *
 * Knows nothing of how a run is made or shown.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { AppError } from '../../core/errors.ts';
import type { ArmSet } from './arms.ts';

export interface Plan {
  set: ArmSet;
  /** Training steps; an arm may stretch them (arms.ts). */
  steps: number;
  /** Steps between two points of evaluation; the last step is always one. */
  evaluateEvery: number;
  /** Held-out tasks, spread evenly over the families. */
  tasks: number;
  /** Sampled answers to each of them; each is answered greedily once as well. */
  samples: number;
  promptsPerStep: number;
  learningRate: number;
  /** sha256 of the weights that every run starts from. */
  startSha256: string;
}

/** Shares of held-out answers, by family and over `all`. */
export interface PointScore {
  /** Mean over tasks and samples. */
  sampled: number;
  greedy: number;
  /** Share of tasks that at least one of the samples answered right. */
  passAtK: number;
  /** Of the sampled answers. */
  formatErrors: number;
  /** Calls of a sampled answer. */
  callsPerTask: number;
}

/** Token entropies (nats) of sampled answers around tool results. */
export interface EntropyProfile {
  /** Mean at the last tokens before a result; the last entry is the token right before it. */
  before: number[];
  /** Mean at the first tokens after a result. */
  after: number[];
  /** Mean H (arpo.md section 2) of the policy steps that follow 0, 1, 2, ... results. */
  stepEntropy: number[];
  /** How many steps each entry of `stepEntropy` is the mean of. */
  stepCount: number[];
}

/** Forks at one depth since the point before. */
export interface ForkCount {
  /** Tool results on the path to where the sibling left, that one included. */
  results: number;
  forks: number;
  /** Mean dH of the step that the first trajectory wrote there; null when it wrote none. */
  deltaEntropy: number | null;
}

/** Since the start of the run. */
export interface Cost {
  /** Calls that a tool answered, shared prefixes once: nothing is served from a cassette. */
  callsExecuted: number;
  /** Those that a cassette of the group would still have run: equal calls of a group count once. */
  callsDistinct: number;
  /** Calls that siblings took over with their prefix. */
  callsSaved: number;
  rollouts: number;
  forks: number;
  tokensSampled: number;
  tokensTrained: number;
  /** Forwarded in updates, padding and repetitions of shared prefixes included. */
  tokensForwarded: number;
  rolloutMs: number;
  updateMs: number;
  reloadMs: number;
}

export interface Point {
  step: number;
  cost: Cost;
  scores: Record<string, PointScore>;
  entropy: EntropyProfile;
  forks: ForkCount[];
  evaluationMs: number;
}

/** Figures of every training step, in order. */
export interface StepSeries {
  accuracy: number[];
  callsExecuted: number[];
  /** Share of groups whose rewards were all equal. */
  zeroVariance: number[];
  entropy: number[];
  gradientNorm: number[];
}

export interface RunRecord {
  plan: Plan;
  arm: string;
  seed: number;
  algorithm: 'arpo' | 'grpo';
  /** All settings in force. */
  settings: Record<string, unknown>;
  steps: number;
  /**
   * Why training ended before its last step (weights that are no numbers, say); null: it did not.
   */
  failure: string | null;
  points: Point[];
  series: StepSeries;
  /** Seconds of processor time of the whole run; wall time says little on a shared machine. */
  cpuSeconds: number;
  wallSeconds: number;
  date: string;
  code: { commit: string; version: string };
  machine: { cpu: string; cores: number; node: string; onnxruntime: string; load: number };
}

/** Short name of a plan: equal for equal plans. */
export function planKey(plan: Plan): string {
  const sorted = Object.fromEntries(Object.entries(plan).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex').slice(0, 12);
}

/** All runs in a file; none when it does not exist. Throws config_invalid for a broken line. */
export function readRuns(file: string): RunRecord[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.flatMap((line, i) => {
    if (line === '') return [];
    try {
      return [JSON.parse(line) as RunRecord];
    } catch (cause) {
      throw new AppError('config_invalid', `${file}, line ${i + 1}: not JSON`, { cause });
    }
  });
}

/** Adds a run as one line. */
export function appendRun(file: string, run: RunRecord): void {
  mkdirSync(dirname(file), { recursive: true });
  appendFileSync(file, `${JSON.stringify(run)}\n`);
}

/** The run of an (arm, seed) under a plan, if it has been made. */
export function findRun(
  runs: readonly RunRecord[],
  plan: Plan,
  arm: string,
  seed: number,
): RunRecord | undefined {
  const key = planKey(plan);
  return runs.find((run) => run.arm === arm && run.seed === seed && planKey(run.plan) === key);
}
