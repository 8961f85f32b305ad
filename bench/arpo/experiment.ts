/**
 * Makes the runs of an experiment that are still missing, some at once, each in a process of its
 * own with one onnxruntime thread: so a run is not faster or slower for its neighbours' threads,
 * and one that dies costs only itself. Seeds go round before arms, so that whatever is there when
 * time is up compares all arms on the same seeds.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { mapBounded } from '../../core/arpo/concurrency.ts';
import { AppError } from '../../core/errors.ts';
import { builtModule } from '../../core/paths.ts';
import { START, type Arm } from './arms.ts';
import type { FromChild, ToChild } from './child-protocol.ts';
import { appendRun, findRun, readRuns, type Plan, type RunRecord } from './plan.ts';
import { armSettings, armSteps } from './training-run.ts';

export interface Experiment {
  plan: Plan;
  arms: readonly Arm[];
  seeds: readonly number[];
  jobs: number;
  out: string;
  minutes: number | null;
}

export interface PlannedRun {
  plan: Plan;
  arm: Arm;
  seed: number;
}

/** A step of the largest group on the slowest machine; then a child hangs. */
const SILENCE_MS = 900_000;
/** Seconds of a step, before anything was measured. */
const FIRST_GUESS_S = 5;

/** What is to be done, in order. Throws invalid_request for an arm whose settings are refused. */
export function missingRuns({ plan, arms, seeds, out }: Experiment): PlannedRun[] {
  const done = readRuns(out);
  for (const arm of arms) armSettings(plan, arm);
  const all = [
    { plan: { ...plan }, arm: START, seed: 0 },
    ...seeds.flatMap((seed) => arms.map((arm) => ({ plan, arm, seed }))),
  ];
  return all.filter(({ arm, seed }) => {
    const found = findRun(done, plan, arm.name, seed);
    // An arm that was changed since is another one.
    if (found !== undefined && found.steps !== armSteps(plan, arm)) {
      throw new AppError(
        'config_invalid',
        `${out} has ${arm.name}, seed ${seed}, of ${found.steps} steps instead of ` +
          `${armSteps(plan, arm)}; use another file`,
      );
    }
    return found === undefined;
  });
}

/** Seconds that a run will take: by the runs of its arm, else of all arms, that are there. */
export function estimateSeconds({ plan, arm }: PlannedRun, runs: readonly RunRecord[]): number {
  const rates = (of: readonly RunRecord[]): number[] =>
    of.filter(({ steps }) => steps > 0).map(({ wallSeconds, steps }) => wallSeconds / steps);
  const own = rates(runs.filter((run) => run.arm === arm.name));
  const known = own.length > 0 ? own : rates(runs);
  const perStep =
    known.length === 0 ? FIRST_GUESS_S : known.reduce((sum, rate) => sum + rate, 0) / known.length;
  return perStep * Math.max(1, armSteps(plan, arm));
}

/**
 * Runs until all is done, time is short or the signal ends it. Returns the runs that failed for
 * another reason than their own training, with the reason; they are not recorded.
 */
export async function runExperiment(
  experiment: Experiment,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<string[]> {
  const endsAt =
    experiment.minutes === null ? Infinity : performance.now() + experiment.minutes * 60_000;
  const planned = missingRuns(experiment);
  const failures: string[] = [];
  let started = 0;
  let left = 0;
  await mapBounded(
    planned,
    experiment.jobs,
    async (run) => {
      if (signal.aborted) return;
      const runs = readRuns(experiment.out);
      const seconds = estimateSeconds(run, runs);
      if (performance.now() + seconds * 1000 > endsAt) {
        left++;
        return;
      }
      const name = `${run.arm.name}, seed ${run.seed}`;
      const rest = planned.slice(started).map((other) => estimateSeconds(other, runs));
      const minutes = rest.reduce((sum, s) => sum + s, 0) / experiment.jobs / 60;
      started++;
      say(`${started}/${planned.length} ${name}: ${shown(seconds)}, all ${shown(minutes * 60)}`);
      try {
        const record = await runInChild(run, signal, say);
        appendRun(experiment.out, record);
        say(`${name}: ${summary(record)}`);
      } catch (error) {
        if (signal.aborted) return;
        failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
        say(`FAILED ${failures.at(-1)}`);
      }
    },
    () => undefined,
  );
  if (left > 0) say(`${left} runs left for another time`);
  return failures;
}

const shown = (seconds: number): string =>
  seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;

function summary({ points, failure, wallSeconds }: RunRecord): string {
  const last = points.at(-1);
  const all = last?.scores['all'];
  const percent = (share = NaN): string => `${(100 * share).toFixed(1)} %`;
  const what =
    failure ??
    `sampled ${percent(all?.sampled)}, greedy ${percent(all?.greedy)}, ` +
      `${last?.cost.callsExecuted ?? 0} calls`;
  return `${what}, ${shown(wallSeconds)}`;
}

function runInChild(
  run: PlannedRun,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<RunRecord> {
  return new Promise((resolve, reject) => {
    const child = fork(builtModule(import.meta.url, './child.ts'), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const watch = new Watchdog(child);
    const onAbort = (): void => void child.kill();
    signal.addEventListener('abort', onAbort, { once: true });
    let record: RunRecord | null = null;
    let failed = 'ended without a result';
    child.on('message', (message: FromChild) => {
      watch.heard();
      if (message.type === 'step' && message.step % 10 === 0) {
        say(`  ${run.arm.name}, seed ${run.seed}: step ${message.step} of ${message.steps}`);
      }
      if (message.type === 'run') record = message.record;
      if (message.type === 'failed') failed = message.message;
    });
    child.on('error', (error) => (failed = error.message));
    child.on('close', (code, by) => {
      watch.stop();
      signal.removeEventListener('abort', onAbort);
      if (record !== null) resolve(record);
      else reject(new AppError('internal', `${failed} (exit ${by ?? code})`));
    });
    child.send({ type: 'run', ...run } satisfies ToChild);
  });
}

/** Kills a child that says nothing for too long. */
class Watchdog {
  private readonly child: ChildProcess;
  private timer: NodeJS.Timeout;

  constructor(child: ChildProcess) {
    this.child = child;
    this.timer = this.arm();
  }

  heard(): void {
    clearTimeout(this.timer);
    this.timer = this.arm();
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private arm(): NodeJS.Timeout {
    return setTimeout(() => this.child.kill('SIGKILL'), SILENCE_MS);
  }
}
