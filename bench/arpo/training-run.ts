/**
 * One run of an experiment: an arm with a seed, trained from the common start by the product's own
 * `train`, in this process. Points of evaluation hang in its events, which it awaits. Its gate is
 * as small as one may be, because the points measure more.
 *
 * Simplified: no server, no database, no checkpoints; a run that was cut off is made again.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { entropyCandidates } from '../../core/arpo/entropy.ts';
import { parseSettings, type ArpoSettings } from '../../core/arpo/settings.ts';
import { systemClock } from '../../core/clock.ts';
import { createLocalEngine } from '../../core/engine/local-engine.ts';
import { AppError } from '../../core/errors.ts';
import { idGenerator } from '../../core/ids.ts';
import { LIMITS } from '../../core/limits.ts';
import { packageRoot } from '../../core/paths.ts';
import { loadText } from '../../core/text/load-text.ts';
import { javascriptTool } from '../../core/tools/javascript-tool.ts';
import { createToolRegistry } from '../../core/tools/registry.ts';
import { searchTool } from '../../core/tools/search-tool.ts';
import { drawGateTasks } from '../../core/trainer/task-deck.ts';
import { train, type TrainParts } from '../../core/trainer/train.ts';
import { openTrainedPolicy } from '../../core/trainer/trained-policy.ts';
import { copyInto, copyOf } from '../../core/trainer/weight-lag.ts';
import type { TrainerEvent, TrainingJob } from '../../core/trainer/types.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { readTasks } from '../../scripts/policy/evaluation.ts';
import type { Arm } from './arms.ts';
import { evaluatePoint } from './evaluation.ts';
import { codeFacts, machineFacts } from './facts.ts';
import type { Plan, Point, RunRecord } from './plan.ts';
import { RunTally } from './run-tally.ts';

export const START_POLICY = join(packageRoot, 'policies', 'embedded');

const VERSION = 1;

export interface TrainingRunOptions {
  plan: Plan;
  arm: Arm;
  seed: number;
  signal: AbortSignal;
  /** Called after each training step. */
  onStep?: (step: number, steps: number) => void;
}

/** Settings in force of an arm under a plan. Throws invalid_request for one that has no effect. */
export function armSettings(plan: Plan, arm: Arm): ArpoSettings {
  const { promptsPerStep, learningRate } = plan;
  return parseSettings(arm.algorithm, {
    promptsPerStep,
    learningRate,
    gateTasks: LIMITS.gateTasksMin,
    // The tools answer every call, so that a call executed is one that the rule costs.
    cassette: false,
    ...arm.settings,
  });
}

export const armSteps = (plan: Plan, arm: Arm): number =>
  Math.round(plan.steps * (arm.stretch ?? 1));

/** Trains and evaluates; an update that breaks the weights ends the run and is its result. */
export async function trainingRun(options: TrainingRunOptions): Promise<RunRecord> {
  const { plan, arm, seed } = options;
  const settings = armSettings(plan, arm);
  const steps = armSteps(plan, arm);
  const folder = mkdtempSync(join(tmpdir(), 'ramify-arpo-'));
  const job: TrainingJob = {
    runId: `bench_${arm.name}_${seed}`,
    algorithm: arm.algorithm,
    steps,
    settings: { ...settings },
    seed,
    baseVersion: VERSION,
    baseDirectory: START_POLICY,
    candidateDirectory: join(folder, 'candidate'),
    trainTasks: readTasks('train'),
    gateTasks: readTasks('gate'),
    threads: 1,
  };
  const startedAt = performance.now();
  const cpuAtStart = process.cpuUsage();
  const watched = new WatchedRun(options, settings, steps);
  let failure: string | null = null;
  try {
    await withParts(job, settings, (parts) =>
      train(job, parts, (event) => watched.take(event, parts), options.signal),
    );
  } catch (error) {
    if (options.signal.aborted || !isDivergence(error)) throw error;
    failure = error.message;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const { user, system } = process.cpuUsage(cpuAtStart);
  return {
    plan,
    arm: arm.name,
    seed,
    algorithm: arm.algorithm,
    settings: { ...settings },
    steps,
    failure,
    points: watched.points,
    series: watched.tally.series,
    cpuSeconds: Math.round((user + system) / 1e5) / 10,
    wallSeconds: Math.round((performance.now() - startedAt) / 100) / 10,
    date: new Date(systemClock.now()).toISOString(),
    code: codeFacts(),
    machine: machineFacts(),
  };
}

/** Listens to a run's events and examines the policy when it is time. */
class WatchedRun {
  readonly points: Point[] = [];
  readonly tally = new RunTally();
  private readonly options: TrainingRunOptions;
  private readonly settings: ArpoSettings;
  private readonly steps: number;
  private readonly tasks: ReturnType<typeof readTasks>;

  constructor(options: TrainingRunOptions, settings: ArpoSettings, steps: number) {
    this.options = options;
    this.settings = settings;
    this.steps = steps;
    // The same tasks for all: the seed of the draw is no seed of a run.
    this.tasks = drawGateTasks(readTasks('test'), options.plan.tasks, 1);
  }

  async take(event: TrainerEvent, parts: TrainParts): Promise<void> {
    if (event.type === 'rollouts') this.tally.addGroup(event);
    if (event.type === 'started' && this.steps === 0) await this.examine(0, parts);
    if (event.type !== 'step') return;
    this.tally.addStep(event.values);
    this.options.onStep?.(event.step, this.steps);
    const { evaluateEvery } = this.options.plan;
    if (event.step % evaluateEvery === 0 || event.step === this.steps) {
      await this.examine(event.step, parts);
    }
  }

  private async examine(step: number, parts: TrainParts): Promise<void> {
    const startedAt = performance.now();
    const { plan, signal } = this.options;
    const { sampler, context } = parts;
    const { settings, tasks } = this;
    const { samples } = plan;
    const common = { sampler, context, settings, version: VERSION, tasks, samples, signal };
    const evaluation = await withTrainedWeights(parts, () => evaluatePoint(common));
    const evaluationMs = Math.round(performance.now() - startedAt);
    const forks = this.tally.takeForks();
    this.points.push({ step, cost: this.tally.cost, ...evaluation, forks, evaluationMs });
  }
}

/**
 * The parts of a training run as the trainer process has them, but on one thread, and with the
 * engine's own prefix cache where the trainer shares only equal prompts: what is found in it
 * depends on timing, so a seed repeats a run up to rounding, and not to the bit.
 */
async function withParts(
  job: TrainingJob,
  settings: ArpoSettings,
  work: (parts: TrainParts) => Promise<void>,
): Promise<void> {
  const clock = systemClock;
  const { tokenizer, protocol } = loadText(job.baseDirectory);
  const runtime = { device: 'cpu', threads: job.threads } as const;
  const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
  const javascript = javascriptTool();
  const { model, ...trained } = openTrainedPolicy(job, settings, runtime);
  const sampler = await createLocalEngine({
    ...model,
    ...runtime,
    version: VERSION,
    entropyCandidates: entropyCandidates(settings.entropy),
  });
  try {
    const tools = createToolRegistry([searchTool(index), javascript], { clock });
    const context = { tokenizer, protocol, tools, clock, newId: idGenerator(clock) };
    await work({ ...trained, sampler, context, clock });
  } finally {
    await sampler.close();
    await trained.session.dispose();
    await javascript.stop();
    index.close();
  }
}

/** What is examined is what was trained, also where the sampler lags behind it. */
async function withTrainedWeights<T>(parts: TrainParts, work: () => Promise<T>): Promise<T> {
  const { sampler, session, sampledWeights } = parts;
  if (sampledWeights === undefined || sampledWeights === session.weights) return work();
  const held = copyOf(sampledWeights);
  copyInto(sampledWeights, session.weights);
  await sampler.reload();
  try {
    return await work();
  } finally {
    copyInto(sampledWeights, held);
    await sampler.reload();
  }
}

/** A gradient that is no number: the run has diverged. */
function isDivergence(error: unknown): error is AppError {
  return error instanceof AppError && error.message.includes('the gradient norm is');
}
