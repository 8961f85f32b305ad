/**
 * Groups from tasks with verifiers (arpo.md sections 3 to 5): tasks are drawn for a step, each is
 * rolled out and scored. With `dynamicSampling` other tasks are drawn in the place of those whose
 * group teaches nothing (all rewards equal), in rounds, until all slots hold a group that does or
 * `maxResample` replacements were drawn. Every group that was sampled is handed on: the log and the
 * counts have them all, and the update drops the dull ones. Rounds lie between one another.
 *
 * Draws are keyed by (run seed, step, round), so which tasks come does not depend on timing.
 */
import { isZeroVariance } from '../arpo/advantage.ts';
import { mean } from '../arpo/number.ts';
import { rolloutGroups, type RolloutGroup } from '../arpo/rollout.ts';
import { mix } from '../prng.ts';
import type { Task } from '../records.ts';
import { Curriculum, type CurriculumState } from './curriculum.ts';
import type { Figures } from './figures.ts';
import type { GroupSource, SourceOptions, SourceState, StepGroups } from './group-source.ts';
import { interleave } from './interleave.ts';
import { SEEDS } from './run-seeds.ts';
import { TaskDeck } from './task-deck.ts';

export class TaskSource implements GroupSource {
  private readonly options: SourceOptions;
  private readonly deck: TaskDeck;
  private readonly curriculum: Curriculum | null;

  /** Throws invalid_request when the job has no tasks to train on. */
  constructor(options: SourceOptions) {
    const { job, settings } = options;
    this.options = options;
    this.deck = new TaskDeck(job.trainTasks, mix(job.seed, SEEDS.tasks));
    const { curriculum = 'off', curriculumFloor = 0 } = settings;
    this.curriculum =
      curriculum === 'off'
        ? null
        : new Curriculum(job.trainTasks, mix(job.seed, SEEDS.curriculum), curriculumFloor);
  }

  async groups(step: number, signal: AbortSignal): Promise<StepGroups> {
    const { promptsPerStep, dynamicSampling = false, maxResample = 0 } = this.options.settings;
    const rounds = [
      await this.rollOut(this.deal(promptsPerStep, step, 0), { step, round: 0 }, signal),
    ];
    let replaced = 0;
    // Each round draws at least one replacement, and there are maxResample at most.
    for (let round = 1; dynamicSampling; round++) {
      const useful = rounds.flat().filter((group) => !teachesNothing(group)).length;
      const count = Math.min(promptsPerStep - useful, maxResample - replaced);
      if (count <= 0) break;
      replaced += count;
      rounds.push(await this.rollOut(this.deal(count, step, round), { step, round }, signal));
    }
    for (const group of rounds.flat()) this.curriculum?.learn(group.task, solvedShare(group));
    const figures: Figures = dynamicSampling ? { groups_replaced: replaced } : {};
    return { groups: interleave(rounds), figures };
  }

  state(): SourceState {
    return { dealt: this.deck.dealt, curriculum: this.curriculum?.state() ?? null };
  }

  restore(state: SourceState): void {
    this.deck.skip(Number(state['dealt']) - this.deck.dealt);
    this.curriculum?.restore(state['curriculum'] as CurriculumState);
  }

  private deal(count: number, step: number, round: number): Task[] {
    return this.curriculum?.deal(count, { step, round }) ?? this.deck.deal(count);
  }

  private rollOut(
    tasks: readonly Task[],
    { step, round }: { step: number; round: number },
    signal: AbortSignal,
  ): Promise<RolloutGroup[]> {
    const { job, settings, sampler, context } = this.options;
    return rolloutGroups({
      sampler,
      context,
      tasks,
      settings,
      seed:
        round === 0
          ? mix(job.seed, SEEDS.rollouts, step)
          : mix(job.seed, SEEDS.replacements, step, round),
      runId: job.runId,
      version: job.baseVersion,
      source: 'rollout',
      signal,
    });
  }
}

const teachesNothing = (group: RolloutGroup): boolean =>
  isZeroVariance(group.trajectories.map(({ reward }) => reward));

const solvedShare = (group: RolloutGroup): number =>
  mean(group.trajectories.map(({ correct }) => Number(correct)));
