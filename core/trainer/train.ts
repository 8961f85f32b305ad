/**
 * A training run, top-down as the paper has it: rollout, reward, advantage, loss, step; then the
 * held-out gate, and the candidate's directory.
 *
 * Deviations from arpo.md:
 * - Section 8: `approx_kl` and `clip_share` are measured before each mini-batch's own update, which
 *   is where the loss is; with one mini-batch and one epoch they are 0 but for rounding.
 * - All rollouts carry the base's version number: weights between two versions have none.
 *
 * A run can be killed at any moment: it goes on from its last checkpoint and ends with the same
 * weights, because all draws are keyed by step, and the sampler has no memory of earlier steps (it
 * is loaded anew after each, which forgets its cached prefixes; after the base's evaluation too).
 *
 * Knows nothing of processes, SQL or HTTP: what happens goes out as events, each awaited, so that a
 * slow reader slows the run down. The signal is looked at between phases and ends sampling at once.
 */
import type { ArpoSettings } from '../arpo/settings.ts';
import type { EpisodeContext } from '../agent/types.ts';
import type { Clock } from '../clock.ts';
import type { TrainingSession, Weights } from '../model/types.ts';
import type { Sampler } from '../ports.ts';
import { mix } from '../prng.ts';
import type { TrainingCounts } from '../records.ts';
import { initAdamW } from './adamw.ts';
import { writeCandidate } from './candidate.ts';
import { CheckpointFolder } from './checkpoint.ts';
import { EarlyStop } from './early-stop.ts';
import type { Figures } from './figures.ts';
import { addCounts, countGroups, rolloutFigures } from './figures.ts';
import { answerGateTasks, unpackAnswers } from './gate-evaluation.ts';
import { judgeCandidate, type GateAnswers } from './gate.ts';
import { groupSource, logOf } from './group-source.ts';
import { jobIdentity } from './job-identity.ts';
import type { Emit } from './job-loop.ts';
import { settingsOf } from './job-settings.ts';
import { gateSamplesOf, gateTasksOf } from './live-source.ts';
import { tokensPerRun } from './memory-budget.ts';
import { rescoredGroups } from './rescoring.ts';
import { restoreState, snapshotOf, type RunState } from './run-state.ts';
import { SEEDS } from './run-seeds.ts';
import { drawGateTasks } from './task-deck.ts';
import type { TrainingJob } from './types.ts';
import { updatePolicy } from './update.ts';
import { WeightLag } from './weight-lag.ts';

export interface TrainParts {
  /** `reload` makes it see its weights after a change. */
  sampler: Sampler & { reload(): Promise<void> };
  /** Its weights are the run's own: a copy of the base's, or an adapter's A and B. */
  session: TrainingSession;
  /** What the sampler reads: the session's arrays when left out, as without `rolloutLag`. */
  sampledWeights?: Weights;
  /** Scores with the run's base weights; needed when `klCoefficient` is not 0. */
  reference?: Pick<TrainingSession, 'config' | 'score'>;
  /** Tokens of one forward and backward run; from the model's shape when left out. */
  tokensPerRun?: number;
  /** Tokenizer, protocol and tools of the base policy. */
  context: EpisodeContext;
  clock: Clock;
  /** Writes the trained weights into a directory. */
  writeWeights: (directory: string) => Promise<void>;
}

interface Run {
  job: TrainingJob;
  parts: TrainParts;
  settings: ArpoSettings;
  emit: Emit;
  signal: AbortSignal;
  /** Answers the gate's tasks with the weights that the sampler has. */
  evaluate: () => Promise<GateAnswers>;
  checkpoints: CheckpointFolder | null;
}

/**
 * Runs a job to its last event, `candidate`, whether the gate passed it or not. Throws what any
 * part throws, and on abort; then no candidate exists, but checkpoints may.
 */
export async function train(
  job: TrainingJob,
  parts: TrainParts,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  const settings = settingsOf(job);
  await emit({ type: 'started', runId: job.runId, settings: { ...settings } });
  const { sampler, context } = parts;
  const tasks = drawGateTasks(
    gateTasksOf(job, settings, context.tools),
    settings.gateTasks,
    mix(job.seed, SEEDS.gateTasks),
  );
  const folder = job.checkpointDirectory;
  const run: Run = {
    ...{ job, parts, settings, emit, signal },
    evaluate: () =>
      answerGateTasks({
        ...{ job, sampler, context, tasks, signal },
        settings: { ...settings, gateSamples: gateSamplesOf(settings, tasks.length) },
      }),
    checkpoints:
      folder === undefined ? null : new CheckpointFolder(folder, await jobIdentity(job, settings)),
  };

  const state = await beginOrResume(run, (arrays) => unpackAnswers(arrays, tasks));
  while (state.step < job.steps && state.stopped === null) {
    signal.throwIfAborted();
    const values = await trainStep(run, state);
    const { step, counts } = state;
    await emit({ type: 'step', runId: job.runId, step, values, counts });
    state.stopped = state.earlyStop.after(step, values['reward_mean'] ?? 0);
    const last = step === job.steps || state.stopped !== null;
    if (last || step % settings.checkpointEvery === 0) await save(run, state);
  }
  if (state.stopped !== null) {
    await emit({ type: 'stopped', runId: job.runId, step: state.step, reason: state.stopped });
  }
  await finish(run, state);
}

/** The state before the first step, or after the last one that was kept. */
async function beginOrResume(
  run: Run,
  storedAnswers: (arrays: Weights) => GateAnswers,
): Promise<RunState> {
  const { job, parts, settings, emit, checkpoints } = run;
  const { weights } = parts.session;
  const fresh = {
    step: 0,
    stopped: null,
    counts: countGroups([]),
    weights,
    optimiser: initAdamW(weights),
    lag: new WeightLag(weights, parts.sampledWeights ?? weights, settings.rolloutLag),
    source: groupSource({ ...parts, job, settings }),
    earlyStop: new EarlyStop(settings),
  };
  let resumed: RunState | null = null;
  const { taken, refused } = (await checkpoints?.resume((snapshot) => {
    resumed = restoreState(fresh, snapshot, storedAnswers);
  })) ?? { taken: null, refused: [] };
  if (taken !== null || refused.length > 0) {
    const { step, savedAt } = taken ?? { step: 0, savedAt: 0 };
    await emit({ type: 'resumed', runId: job.runId, step, savedAt, refused });
  }
  // The base is measured before its weights change: the same sampler serves both sides of the gate.
  const state: RunState = resumed ?? { ...fresh, base: await run.evaluate() };
  await parts.sampler.reload();
  if (resumed === null) await save(run, state);
  return state;
}

async function save({ checkpoints, parts }: Run, state: RunState): Promise<void> {
  await checkpoints?.save(snapshotOf(state, parts.clock.now()));
}

/** One step; returns its figures. Changes the state, whose `step` is then the one that was done. */
async function trainStep(run: Run, state: RunState): Promise<Figures> {
  const { job, parts, settings, emit, signal } = run;
  const { session, sampler, clock } = parts;
  const { runId } = job;
  const step = state.step + 1;
  const tokenBudget = parts.tokensPerRun ?? tokensPerRun(session.config);
  const startedAt = clock.now();

  // 1. Rollout and reward.
  const { groups, figures } = await state.source.groups(step, signal);
  const sampledAt = clock.now();
  for (const group of groups) await emit({ type: 'rollouts', runId, step, ...logOf(group) });

  // 2. Advantage, loss and update. Old log-probabilities are those at its start.
  const updateAt = clock.now();
  const scored = state.lag.behind
    ? await rescoredGroups(groups, { session, tokenBudget, signal })
    : groups;
  const { optimiser } = state;
  const { reference } = parts;
  const update = await updatePolicy(scored, {
    ...{ session, optimiser, settings, tokenBudget, signal },
    progress: (step - 1) / job.steps,
    ...(reference && { reference }),
  });
  const updatedAt = clock.now();

  // 3. The next rollouts come from the new weights.
  state.lag.advance();
  await sampler.reload();

  const counts = countGroups(groups);
  state.step = step;
  state.counts = addCounts(state.counts, counts);
  return {
    ...rolloutFigures(groups),
    ...figures,
    ...update,
    ...speeds(counts, update, {
      rollout_ms: sampledAt - startedAt,
      update_ms: updatedAt - updateAt,
      reload_ms: clock.now() - updatedAt,
    }),
  };
}

function speeds(
  counts: TrainingCounts,
  update: Figures,
  times: { rollout_ms: number; update_ms: number; reload_ms: number },
): Figures {
  const rate = (tokens: number, ms: number): number => (tokens * 1_000) / Math.max(1, ms);
  return {
    rollout_tokens_per_s: rate(counts.tokensSampled, times.rollout_ms),
    train_tokens_per_s: rate(update['tokens_forwarded'] ?? 0, times.update_ms),
    ...times,
  };
}

/** The gate's judgement, and the candidate's files. */
async function finish({ job, parts, settings, emit, signal, evaluate }: Run, state: RunState) {
  if (settings.rolloutLag > 0) {
    state.lag.catchUp();
    await parts.sampler.reload();
  }
  const gate = judgeCandidate(state.base, await evaluate(), {
    tolerance: settings.tolerance,
    seed: mix(job.seed, SEEDS.bootstrap),
  });
  signal.throwIfAborted();
  const directory = job.candidateDirectory;
  const { sha256 } = await writeCandidate({
    // A new adapter has no files but its own: its tokenizer and template are the base's.
    base: settings.training === 'full' || job.baseKind === 'lora' ? job.baseDirectory : null,
    directory,
    writeWeights: parts.writeWeights,
  });
  await emit({ type: 'candidate', runId: job.runId, directory, sha256, gate });
}
