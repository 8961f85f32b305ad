/**
 * Groups from tasks with verifiers (arpo.md sections 3 to 5): a deck deals the tasks of a step, each
 * is rolled out and scored.
 */
import { rolloutGroups } from '../arpo/rollout.ts';
import { mix } from '../prng.ts';
import type { GroupSource, SourceOptions, SourceState, StepGroups } from './group-source.ts';
import { SEEDS } from './run-seeds.ts';
import { TaskDeck } from './task-deck.ts';

export class TaskSource implements GroupSource {
  private readonly options: SourceOptions;
  private readonly deck: TaskDeck;

  /** Throws invalid_request when the job has no tasks to train on. */
  constructor(options: SourceOptions) {
    const { job } = options;
    this.options = options;
    this.deck = new TaskDeck(job.trainTasks, mix(job.seed, SEEDS.tasks));
  }

  async groups(step: number, signal: AbortSignal): Promise<StepGroups> {
    const { job, settings, sampler, context } = this.options;
    const groups = await rolloutGroups({
      sampler,
      context,
      tasks: this.deck.deal(settings.promptsPerStep),
      settings,
      seed: mix(job.seed, SEEDS.rollouts, step),
      runId: job.runId,
      version: job.baseVersion,
      source: 'rollout',
      signal,
    });
    return { groups, figures: {} };
  }

  state(): SourceState {
    return { dealt: this.deck.dealt };
  }

  restore(state: SourceState): void {
    this.deck.skip(Number(state['dealt']) - this.deck.dealt);
  }
}
