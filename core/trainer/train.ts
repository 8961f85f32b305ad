/**
 * A training run, top-down as the paper has it: rollout, reward, advantage, loss, step; then the
 * held-out gate, and the candidate's directory.
 *
 * Deviations from arpo.md:
 * - Rows are flat (section 6): the tree-packed form of section 7 is not offered, so a token shared
 *   by d branches is forwarded d times. Same loss, same gradient, more work.
 * - Sections 3.2 and 5: only the settings that core/arpo/settings.ts knows; no dynamic sampling: a
 *   group without variance is dropped and not replaced, so a step may hold fewer groups.
 * - Section 6: fresh rollouts only, so old = behaviour = recorded. Nothing logged is trained on.
 * - Section 8: one epoch. `approx_kl` and `clip_share` are measured before each mini-batch's own
 *   update, which is where the loss is; with one mini-batch they are 0 but for rounding.
 * - All rollouts carry the base's version number: weights between two versions have none.
 *
 * Knows nothing of processes, SQL or HTTP: what happens goes out as events, each awaited, so that a
 * slow reader slows the run down. The signal is looked at between phases and ends sampling at once.
 */
import { evaluateTasks } from '../arpo/evaluate.ts';
import type { EvaluatedTask } from '../arpo/evaluate.ts';
import type { ArpoSettings } from '../arpo/settings.ts';
import { episodeLimits, parseSettings } from '../arpo/settings.ts';
import type { EpisodeContext } from '../agent/types.ts';
import type { Clock } from '../clock.ts';
import { LIMITS } from '../limits.ts';
import type { ModelConfig, TrainingSession } from '../model/types.ts';
import type { Sampler } from '../ports.ts';
import { mix } from '../prng.ts';
import type { Task, TrainingCounts } from '../records.ts';
import type { AdamWState } from './adamw.ts';
import { initAdamW } from './adamw.ts';
import { writeCandidate } from './candidate.ts';
import type { Figures } from './figures.ts';
import { addCounts, countGroups, rolloutFigures } from './figures.ts';
import { judgeCandidate } from './gate.ts';
import { groupSource, logOf, type GroupSource } from './group-source.ts';
import type { Emit } from './job-loop.ts';
import { SEEDS } from './run-seeds.ts';
import { drawGateTasks } from './task-deck.ts';
import type { TrainingJob } from './types.ts';
import { updatePolicy } from './update.ts';

export interface TrainParts {
  /** Samples from `session.weights`; `reload` makes it see them after a change. */
  sampler: Sampler & { reload(): Promise<void> };
  /** Its weights are the run's own: a copy of the base's, or an adapter's A and B. */
  session: TrainingSession;
  /** Tokenizer, protocol and tools of the base policy. */
  context: EpisodeContext;
  clock: Clock;
  /** Writes the trained weights into a directory. */
  writeWeights: (directory: string) => Promise<void>;
}

/**
 * Runs a job to its last event, `candidate`, whether the gate passed it or not. Throws what any
 * part throws, and on abort; then no candidate exists.
 */
export async function train(
  job: TrainingJob,
  parts: TrainParts,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  const settings = parseSettings(job.algorithm, job.settings, job.baseKind);
  await emit({ type: 'started', runId: job.runId, settings: { ...settings } });
  const gateTasks = drawGateTasks(
    job.gateTasks,
    settings.gateTasks,
    mix(job.seed, SEEDS.gateTasks),
  );
  const evaluate = () => evaluateGateTasks(job, parts, { settings, gateTasks, signal });

  // The base is measured before its weights change: the same sampler serves both sides of the gate.
  const base = await evaluate();
  const source = groupSource({ ...parts, job, settings });
  const optimiser = initAdamW(parts.session.weights);
  let counts = countGroups([]);
  for (let step = 1; step <= job.steps; step++) {
    signal.throwIfAborted();
    const done = await trainStep(job, parts, { settings, step, source, optimiser, emit, signal });
    counts = addCounts(counts, done.counts);
    await emit({ type: 'step', runId: job.runId, step, values: done.values, counts });
  }
  const gate = judgeCandidate(base, await evaluate(), {
    tolerance: settings.tolerance,
    seed: mix(job.seed, SEEDS.bootstrap),
  });

  signal.throwIfAborted();
  const { sha256 } = await writeCandidate({
    // A new adapter has no files but its own: its tokenizer and template are the base's.
    base: settings.training === 'full' || job.baseKind === 'lora' ? job.baseDirectory : null,
    directory: job.candidateDirectory,
    writeWeights: parts.writeWeights,
  });
  const directory = job.candidateDirectory;
  await emit({ type: 'candidate', runId: job.runId, directory, sha256, gate });
}

interface StepOptions {
  settings: ArpoSettings;
  step: number;
  source: GroupSource;
  optimiser: AdamWState;
  emit: Emit;
  signal: AbortSignal;
}

async function trainStep(
  job: TrainingJob,
  parts: TrainParts,
  { settings, step, source, optimiser, emit, signal }: StepOptions,
): Promise<{ values: Figures; counts: TrainingCounts }> {
  const { session, sampler, clock } = parts;
  const { runId } = job;
  const startedAt = clock.now();

  // 1. Rollout and reward.
  const { groups, figures } = await source.groups(step, signal);
  const sampledAt = clock.now();
  for (const group of groups) await emit({ type: 'rollouts', runId, step, ...logOf(group) });

  // 2. Advantage, loss and step. 3. The next rollouts come from the new weights.
  const updateAt = clock.now();
  const tokenBudget = tokensPerRun(session.config);
  const update = await updatePolicy(groups, { session, optimiser, settings, tokenBudget, signal });
  const updatedAt = clock.now();
  await sampler.reload();

  const counts = countGroups(groups);
  const rate = (tokens: number, ms: number): number => (tokens * 1_000) / Math.max(1, ms);
  const values = {
    ...rolloutFigures(groups),
    ...figures,
    ...update,
    rollout_tokens_per_s: rate(counts.tokensSampled, sampledAt - startedAt),
    train_tokens_per_s: rate(update['tokens_forwarded'] ?? 0, updatedAt - updateAt),
    rollout_ms: sampledAt - startedAt,
    update_ms: updatedAt - updateAt,
    reload_ms: clock.now() - updatedAt,
  };
  return { values, counts };
}

function evaluateGateTasks(
  job: TrainingJob,
  { sampler, context }: TrainParts,
  options: { settings: ArpoSettings; gateTasks: readonly Task[]; signal: AbortSignal },
): Promise<EvaluatedTask[]> {
  const { settings, gateTasks, signal } = options;
  return evaluateTasks({
    sampler,
    context,
    tasks: gateTasks,
    version: job.baseVersion,
    limits: episodeLimits(settings),
    temperature: settings.temperature,
    seed: mix(job.seed, SEEDS.gate),
    runId: job.runId,
    multiToolBonus: settings.multiToolBonus,
    signal,
  });
}

/** Tokens of one micro-batch, so that time, padding and the memory of its logits stay bounded. */
export function tokensPerRun({ vocabulary }: Pick<ModelConfig, 'vocabulary'>): number {
  const fitting = Math.floor(LIMITS.trainLogitBytesMax / (4 * vocabulary));
  return Math.max(1, Math.min(LIMITS.trainTokensPerRunMax, fitting));
}
