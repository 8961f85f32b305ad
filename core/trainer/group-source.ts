/**
 * Where the groups of a training step come from. The update does not care: a group is a group. A
 * source draws by (run seed, step) alone and says what it has to remember, so that a run that was
 * interrupted goes on with the same groups.
 *
 * Knows nothing of the loss, nor of checkpoints but that there are some.
 */
import type { EpisodeContext } from '../agent/types.ts';
import { forestSteps, type RolloutGroup } from '../arpo/rollout.ts';
import type { ArpoSettings } from '../arpo/settings.ts';
import { AppError } from '../errors.ts';
import type { TrainingSession } from '../model/types.ts';
import type { Sampler } from '../ports.ts';
import type { StepRecord, TrajectoryRecord } from '../records.ts';
import type { Figures } from './figures.ts';
import { LiveSource, MixedSource, questionsOf, reasons, withPrompts } from './live-source.ts';
import { TaskSource } from './task-source.ts';
import type { TrainingJob } from './types.ts';

export interface GroupSource {
  /** The groups of a step, which counts from 1; steps are asked for in order, each once. */
  groups(step: number, signal: AbortSignal): Promise<StepGroups>;
  /** What it has to remember between steps: small, and JSON. */
  state(): SourceState;
  /** Goes on from what `state` returned in a run of the same job. */
  restore(state: SourceState): void;
}

export type SourceState = Readonly<Record<string, unknown>>;

export interface StepGroups {
  /** All that were sampled, those that teach nothing too: the update drops and counts them. */
  groups: RolloutGroup[];
  /** Figures of the source's own, beside those of the rollouts. */
  figures: Figures;
}

export interface SourceOptions {
  job: TrainingJob;
  settings: ArpoSettings;
  sampler: Sampler;
  context: EpisodeContext;
  session: TrainingSession;
  /** Tokens of one forward run; from the model's shape when left out. */
  tokensPerRun?: number;
}

/** The source that a job asks for. Throws invalid_request when it has nothing to draw from. */
export function groupSource(options: SourceOptions): GroupSource {
  const { job, context, settings } = options;
  const { train, leftOut } = questionsOf(job, settings, context.tools);
  if (train.length === 0 && job.trainTasks.length === 0) {
    throw new AppError(
      'invalid_request',
      `there is nothing to train on: no task of split train, and no question with a liked answer` +
        reasons(leftOut),
    );
  }
  if (train.length === 0) return new TaskSource(options);
  const ofTasks = job.trainTasks.length === 0 ? 0 : Math.floor(settings.promptsPerStep / 2);
  const live = new LiveSource(withPrompts(options, settings.promptsPerStep - ofTasks), train);
  return ofTasks === 0
    ? live
    : new MixedSource([live, new TaskSource(withPrompts(options, ofTasks))]);
}

/** What the log gets of a group: the steps and trajectories that it does not have yet. */
export function logOf(group: RolloutGroup): {
  steps: StepRecord[];
  trajectories: TrajectoryRecord[];
} {
  const given = group.trajectories.filter((trajectory) => trajectory.given === true);
  const sampled = group.trajectories.filter((trajectory) => trajectory.given !== true);
  const known = new Set(given.flatMap(({ steps }) => steps.map(({ id }) => id)));
  return {
    steps: forestSteps({ ...group, trajectories: sampled }).filter(({ id }) => !known.has(id)),
    trajectories: sampled.map((trajectory) => trajectory.record),
  };
}
