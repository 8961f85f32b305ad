/**
 * Rollouts of one training step (arpo.md section 3): groups of trajectories, one group a task, that
 * share the prefixes above their branches. All groups run at once over the sampler, which batches
 * whatever steps are due.
 *
 * What is reproducible: every draw is keyed by (seed, group, trajectory, step, position), and slots
 * of a group are handed out without regard to timing (branch-slots.ts), so with the same seed,
 * tasks, settings, policy and tool results a group is the same forest with the same tokens,
 * whatever the timing or the other groups. Not covered: ids and times; tools whose results change
 * or that time out; and an engine whose logits move in the last bits with the batch, which can flip
 * a draw that lies on the border.
 */
import { LIMITS } from '../limits.ts';
import { Deadline } from '../agent/deadline.ts';
import { mapBounded } from './concurrency.ts';
import { sampleGroup, type RolloutGroup } from './group-rollout.ts';
import { entropySettings, episodeLimits, type ArpoSettings } from './settings.ts';
import { beginTask, refuseEffects, scoreEpisode } from './task-episode.ts';
import type { EpisodeContext } from '../agent/types.ts';
import type { Sampler } from '../ports.ts';
import type { StepRecord, Task, TrajectorySource } from '../records.ts';

export type { BranchDecision, RolloutGroup, RolloutTrajectory } from './rollout-group.ts';

export interface RolloutOptions {
  sampler: Sampler;
  context: EpisodeContext;
  /** One group a task; group g is tasks[g]. */
  tasks: readonly Task[];
  settings: ArpoSettings;
  /** Different for each training step, e.g. mix(run seed, step). */
  seed: number;
  runId: string | null;
  version: number;
  source: TrajectorySource;
  /** True: the sampler treats the work as evaluation, not as rollouts. */
  evaluation?: boolean;
  signal?: AbortSignal;
}

/**
 * Samples one group a task and scores it. Throws invalid_request for a tool with effects,
 * request_cancelled on abort, request_timeout, or what the engine threw; every sequence is closed.
 */
export async function rolloutGroups(options: RolloutOptions): Promise<RolloutGroup[]> {
  refuseEffects(options.context, options.tasks);
  const deadline = new Deadline(options.signal, LIMITS.rolloutTimeoutMs);
  // One sequence a trajectory and one for the prompt; all of them may wait in the engine's queue.
  const groupsAtOnce = Math.max(
    1,
    Math.floor(LIMITS.sampleQueueMax / (options.settings.groupSize + 1)),
  );
  try {
    return await mapBounded(
      options.tasks,
      groupsAtOnce,
      (task, index) => taskGroup(options, task, index, deadline),
      deadline.fail,
    );
  } finally {
    deadline.close();
  }
}

/** A group that begins with a task's prompt; its verifier scores the answers. */
function taskGroup(
  options: RolloutOptions,
  task: Task,
  index: number,
  deadline: Deadline,
): Promise<RolloutGroup> {
  const { settings, sampler, version, source, runId } = options;
  return sampleGroup({
    context: options.context,
    settings,
    task,
    offered: new Set(task.tools),
    seed: options.seed,
    index,
    deadline,
    begin: (context) => ({
      prompt: {
        episode: beginTask({
          sampler,
          context,
          task,
          version,
          priority: options.evaluation === true ? 'evaluation' : 'rollout',
          limits: episodeLimits(settings),
          entropy: entropySettings(settings),
        }),
        at: 0,
      },
    }),
    score: (episode, { groupId, branchedFromStepId }) =>
      scoreEpisode(episode, task, settings.multiToolBonus ?? 0, {
        source,
        trainingRunId: runId,
        groupId,
        branchedFromStepId,
      }),
  });
}

/** The steps of a group's forest, each once, parents before children: what the log stores. */
export function forestSteps(group: RolloutGroup): StepRecord[] {
  const seen = new Map<string, StepRecord>();
  for (const trajectory of group.trajectories) {
    for (const step of trajectory.steps) seen.set(step.id, step);
  }
  return [...seen.values()];
}
