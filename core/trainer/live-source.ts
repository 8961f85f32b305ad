/**
 * Groups rebuilt from rated live conversations (arpo.md section 3.6), and how they stand beside
 * groups of tasks. A deck deals the questions of a step, each of them comes again only after all
 * others; half of a step's prompts are questions where there are tasks too.
 */
import { rebuiltGroups } from '../arpo/rebuilt-group.ts';
import { liveQuestions, type LiveQuestion, type LiveQuestions } from '../arpo/live-questions.ts';
import { episodeLimits, type ArpoSettings } from '../arpo/settings.ts';
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { ToolRunner } from '../ports.ts';
import { mix } from '../prng.ts';
import type { Task } from '../records.ts';
import type { GroupSource, SourceOptions, SourceState, StepGroups } from './group-source.ts';
import { interleave } from './interleave.ts';
import { tokensPerRun } from './memory-budget.ts';
import { scoreRows } from './rescoring.ts';
import { SEEDS } from './run-seeds.ts';
import { TaskDeck } from './task-deck.ts';
import type { TrainingJob } from './types.ts';

/** Share of the questions that the gate gets where it has no tasks. */
const HELD_OUT_SHARE = 0.2;

/** The questions that a job's conversations make. The same for the same job. */
export function questionsOf(
  job: TrainingJob,
  settings: ArpoSettings,
  tools: ToolRunner,
): LiveQuestions {
  return liveQuestions(job.liveSamples ?? [], {
    tools,
    version: job.baseVersion,
    maxStaleness: settings.maxStaleness ?? 0,
    limits: episodeLimits(settings),
    heldOut: job.gateTasks.length > 0 ? 0 : HELD_OUT_SHARE,
  });
}

/**
 * What the gate compares on: the job's tasks, or held-out questions, whose truths are their liked
 * answers. Throws invalid_request when there is neither.
 */
export function gateTasksOf(job: TrainingJob, settings: ArpoSettings, tools: ToolRunner): Task[] {
  if (job.gateTasks.length > 0) return job.gateTasks;
  const { heldOut, train, leftOut } = questionsOf(job, settings, tools);
  if (heldOut.length > 0) return heldOut.map(({ task }) => task);
  throw new AppError(
    'invalid_request',
    'there is nothing for the gate to compare on: no task of split gate, and none of ' +
      `${train.length} questions with a liked answer is held out${reasons(leftOut)}`,
  );
}

/**
 * Samples that the gate takes of each task. Where tasks or held-out questions are fewer than
 * `gateTasks`, each is asked until there are so many answers: of few single ones, all may be equal
 * though the candidate is worse.
 */
export function gateSamplesOf({ gateSamples, gateTasks }: ArpoSettings, tasks: number): number {
  return Math.max(gateSamples, Math.ceil(gateTasks / tasks));
}

/** "; conversations left out: stale 3, effects 1", or nothing. */
export function reasons(leftOut: LiveQuestions['leftOut']): string {
  const parts = Object.entries(leftOut).map(([reason, count]) => `${reason} ${count}`);
  return parts.length === 0 ? '' : `; conversations left out: ${parts.join(', ')}`;
}

export class LiveSource implements GroupSource {
  private readonly options: SourceOptions;
  private readonly questions: ReadonlyMap<string, LiveQuestion>;
  private readonly deck: TaskDeck;

  /** Throws invalid_request when there is no question. */
  constructor(options: SourceOptions, questions: readonly LiveQuestion[]) {
    this.options = options;
    this.questions = new Map(questions.map((question) => [question.task.id, question]));
    this.deck = new TaskDeck(
      questions.map(({ task }) => task),
      mix(options.job.seed, SEEDS.questions),
    );
  }

  async groups(step: number, signal: AbortSignal): Promise<StepGroups> {
    const { job, settings, sampler, context, session } = this.options;
    const tokenBudget = this.options.tokensPerRun ?? tokensPerRun(session.config);
    const groups = await rebuiltGroups(
      this.deck
        .deal(settings.promptsPerStep)
        .map(({ id }) => must(this.questions.get(id), 'the question of a task')),
      {
        sampler,
        context,
        settings,
        seed: mix(job.seed, SEEDS.rebuilt, step),
        runId: job.runId,
        version: job.baseVersion,
        score: (rows) => scoreRows(rows, { session, tokenBudget, signal }),
        signal,
      },
    );
    const given = groups.flatMap(({ trajectories }) => trajectories.filter((t) => t.given));
    return {
      groups,
      figures: { live_groups: groups.length, live_trajectories: given.length },
    };
  }

  state(): SourceState {
    return { dealt: this.deck.dealt };
  }

  restore(state: SourceState): void {
    this.deck.skip(Number(state['dealt']) - this.deck.dealt);
  }
}

/** Half of a step's prompts from each of two sources, the larger half from the first. */
export class MixedSource implements GroupSource {
  private readonly sources: readonly [GroupSource, GroupSource];

  constructor(sources: readonly [GroupSource, GroupSource]) {
    this.sources = sources;
  }

  async groups(step: number, signal: AbortSignal): Promise<StepGroups> {
    // One after the other: scoring runs on the same threads as sampling.
    const first = await this.sources[0].groups(step, signal);
    const second = await this.sources[1].groups(step, signal);
    return {
      groups: interleave([first.groups, second.groups]),
      figures: { ...first.figures, ...second.figures },
    };
  }

  state(): SourceState {
    return { sources: this.sources.map((source) => source.state()) };
  }

  restore(state: SourceState): void {
    const [first, second] = state['sources'] as [SourceState, SourceState];
    this.sources[0].restore(first);
    this.sources[1].restore(second);
  }
}

/** The same settings for a share of a step's prompts. */
export function withPrompts(options: SourceOptions, promptsPerStep: number): SourceOptions {
  return { ...options, settings: { ...options.settings, promptsPerStep } };
}
