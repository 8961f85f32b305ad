/**
 * Resampling a logged trajectory (core/agent/replay.ts), from what is asked to the new paths: which
 * steps stay, who draws, what tools may answer. The same for the command line and for HTTP, which
 * differ in who owns the engine.
 */
import { anySignal } from '../core/any-signal.ts';
import { replayTools, resample, stepsBefore } from '../core/agent/replay.ts';
import type { ReplayTools, ResampledPath } from '../core/agent/replay.ts';
import type { EpisodeContext, EpisodeLimits } from '../core/agent/types.ts';
import { mapBounded } from '../core/arpo/concurrency.ts';
import { episodeLimits, parseSettings } from '../core/arpo/settings.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Sampler } from '../core/ports.ts';
import type { PolicyRecord, StepRecord, Task } from '../core/records.ts';
import type { Stores } from '../db/stores.ts';

/** Null: the default. */
export interface ResampleAsk {
  trajectoryId: string;
  /** By default the one that made the trajectory. */
  version: number | null;
  /** Index of the step from which on draws are new; by default the first one of the policy. */
  step: number | null;
  tools: ReplayTools;
  /** Names that may be called; by default those of the task and those that were called. */
  offered: readonly string[] | null;
  samples: number;
  temperature: number;
  seed: number;
  maxTokens: number | null;
  maxToolCalls: number | null;
}

export interface ResamplePlan {
  policy: PolicyRecord;
  task: Task | null;
  prefix: StepRecord[];
  /** Of the whole tree: siblings made calls too. */
  logged: StepRecord[];
  mode: ReplayTools;
  offered: ReadonlySet<string>;
  samples: number;
  temperature: number;
  seed: number;
  limits: EpisodeLimits;
}

/** @throws AppError trajectory_not_found, policy_not_found, invalid_request */
export function resamplePlan(
  { trajectories, tasks, policies }: Pick<Stores, 'trajectories' | 'tasks' | 'policies'>,
  ask: ResampleAsk,
): ResamplePlan {
  const { trajectory, steps } = trajectories.get(ask.trajectoryId);
  const task = trajectory.taskId === null ? null : tasks.find(trajectory.taskId);
  // Its own calls last: of equal calls they are the ones to repeat.
  const logged = [...trajectories.tree(ask.trajectoryId).steps, ...steps];
  const called = logged.flatMap(({ toolCall }) => toolCall?.name ?? []);
  const first = Math.max(
    0,
    steps.findIndex(({ kind }) => kind === 'policy'),
  );
  const at = ask.step ?? first;
  if (at >= steps.length) {
    const message = `step: ${at} is beyond the last step, ${steps.length - 1}`;
    throw new AppError('invalid_request', message, { param: 'step' });
  }
  const defaults = episodeLimits(parseSettings('arpo'));
  return {
    policy: policies.get(ask.version ?? trajectory.policyVersion),
    task,
    prefix: stepsBefore(steps, at),
    logged,
    mode: ask.tools,
    offered: new Set(ask.offered ?? [...(task?.tools ?? []), ...called]),
    samples: ask.samples,
    temperature: ask.temperature,
    seed: ask.seed,
    limits: {
      maxTokens: ask.maxTokens ?? defaults.maxTokens,
      maxToolCalls: ask.maxToolCalls ?? defaults.maxToolCalls,
    },
  };
}

export interface DrawOptions {
  sampler: Sampler;
  context: EpisodeContext;
  signal: AbortSignal;
  /** Told of each new path: how many there are. */
  onPath?: (done: number) => void;
}

/** Throws what `resample` throws; then nothing of it runs any more. */
export async function drawPaths(
  plan: ResamplePlan,
  { sampler, context, signal, onPath }: DrawOptions,
): Promise<ResampledPath[]> {
  const { prefix, limits, offered, temperature, task, seed, samples, policy } = plan;
  const tools = replayTools(context.tools, plan.mode, plan.logged);
  const failed = new AbortController();
  let done = 0;
  return mapBounded(
    Array.from({ length: samples }, (_, sample) => sample),
    LIMITS.batchRowsMax,
    async (sample) => {
      const path = await resample({
        ...{ sampler, prefix, limits, offered, temperature, task },
        context: { ...context, tools },
        version: policy.version,
        key: [seed, sample],
        signal: anySignal([signal, failed.signal]),
      });
      onPath?.(++done);
      return path;
    },
    () => failed.abort(),
  );
}
