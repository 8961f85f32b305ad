/**
 * What training rollouts and held-out evaluation share: a task's prompt, one turn of its episode,
 * and the scored trajectory that comes out. Everything random is keyed, nothing depends on the
 * batch.
 */
import { AppError, toAppError } from '../errors.ts';
import { mix } from '../prng.ts';
import { Episode, type TrajectoryMeta } from '../agent/episode.ts';
import type { PromptedTask } from './live-questions.ts';
import { judge, type Judgement } from './reward.ts';
import type { EntropySettings } from './entropy.ts';
import type { Deadline } from '../agent/deadline.ts';
import type { EpisodeContext, EpisodeLimits } from '../agent/types.ts';
import type { Priority, Sampler } from '../ports.ts';
import { DEFAULT_TENANT } from '../records.ts';
import type { StepRecord, Task, TrajectoryRecord } from '../records.ts';

export interface TaskEpisodeOptions {
  sampler: Sampler;
  context: EpisodeContext;
  task: Task | PromptedTask;
  version: number;
  priority: Priority;
  limits: EpisodeLimits;
  entropy: EntropySettings;
}

/** A finished trajectory with its score. */
export interface ScoredTrajectory extends Judgement {
  /** Path from the prompt to the leaf. Trajectories of a group share records of common steps. */
  steps: StepRecord[];
  record: TrajectoryRecord;
  formatError: string | null;
  answer: string | null;
}

/**
 * Opens a sequence and writes the task's prompt: the tokens that it has, or its question and the
 * tools that it names.
 */
export function beginTask(options: TaskEpisodeOptions): Episode {
  const { sampler, context, task, version, priority, limits, entropy } = options;
  const promptTokens = 'promptTokens' in task ? task.promptTokens : renderTask(context, task);
  const sequence = sampler.open({ policyVersion: version, priority });
  try {
    return Episode.begin({ context, sequence, promptTokens, limits, entropy });
  } catch (error) {
    sequence.close();
    throw error;
  }
}

function renderTask({ tools, protocol }: EpisodeContext, task: Task): readonly number[] {
  const messages = [{ role: 'user', content: task.question }] as const;
  return protocol.renderPrompt(messages, tools.specs(task.tools));
}

/**
 * Refuses tasks whose tools are not known to be free of effects: the model in training must never
 * change the outside world. Throws unknown_tool or invalid_request.
 */
export function refuseEffects(context: EpisodeContext, tasks: readonly Task[]): void {
  for (const name of new Set(tasks.flatMap((task) => task.tools))) {
    if (!context.tools.has(name)) {
      throw new AppError('unknown_tool', `a task names tool '${name}', which does not exist here`);
    }
  }
  const names = [...new Set(tasks.flatMap((task) => task.tools))];
  for (const spec of context.tools.specs(names)) {
    if (spec.effects === 'none') continue;
    throw new AppError(
      'invalid_request',
      `tool '${spec.name}' has effects '${spec.effects ?? 'unknown'}'; such a tool is never called ` +
        'in training',
    );
  }
}

export interface TurnOptions {
  /** Key of the trajectory's draws: (run seed, group, trajectory). */
  key: readonly [number, number, number];
  temperature: number;
  offered: ReadonlySet<string>;
  signal: AbortSignal;
}

/**
 * One turn: the pending calls' results, then a policy step. Returns the index of the tool step when
 * a result was followed by a policy step, else null. The seed of a step is mix(key, step index), so
 * siblings draw independently and a draw depends on nothing but its key.
 */
export async function turn(episode: Episode, options: TurnOptions): Promise<number | null> {
  const { key, temperature, offered, signal } = options;
  let resultIndex: number | null = null;
  if (episode.pendingCalls.length > 0) {
    await episode.toolStep({ offered, signal });
    resultIndex = episode.steps.length - 1;
  }
  if (episode.endReason !== null) return null;
  const seed = mix(...key, episode.steps.length);
  const step = await episode.policyStep({
    sampling: { temperature, topP: 1, topK: 0, seed },
    signal,
  });
  return step === null ? null : resultIndex;
}

/** Judges an ended episode and makes its record. */
export function scoreEpisode(
  episode: Episode,
  task: Task,
  multiToolBonus: number,
  meta: Omit<TrajectoryMeta, 'reward' | 'tenant' | 'taskId' | 'conversationId'>,
): ScoredTrajectory {
  const formatError = episode.formatError();
  const toolsUsed = episode.steps.flatMap(({ toolCall }) =>
    toolCall !== null && toolCall.error === null ? [toolCall.name] : [],
  );
  const { answer, steps } = episode;
  const judgement = judge(task, { answer, formatError, toolsUsed }, multiToolBonus);
  const record = episode.toRecord({
    ...meta,
    tenant: DEFAULT_TENANT,
    conversationId: null,
    taskId: task.id,
    reward: judgement.reward,
  });
  return { ...judgement, steps, record, formatError, answer };
}

/**
 * Throws when the work failed elsewhere (with that cause), was cancelled or took too long; a
 * half-made group is of no use.
 */
export function throwIfAborted(deadline: Deadline, what: string): void {
  if (!deadline.signal.aborted) return;
  if (deadline.failure !== null) throw toAppError(deadline.failure.thrown);
  if (deadline.expired) throw new AppError('request_timeout', `${what} took longer than its limit`);
  throw new AppError('request_cancelled', `${what}: cancelled`);
}
