/**
 * Held-out evaluation: one trajectory a task through the same Episode as live traffic and rollouts,
 * greedy or sampled, and the figures by family that the gate compares.
 *
 * Accuracy is the share of tasks answered right in full: format well formed and the verifier's
 * score 1 (for qa-f1: token F1 = 1, so a half-right answer counts as wrong here although it earns
 * reward).
 */
import { LIMITS } from '../limits.ts';
import { Deadline } from '../agent/deadline.ts';
import { mapBounded } from './concurrency.ts';
import { EffectFreeTools } from './effect-free-tools.ts';
import { DEFAULT_ENTROPY } from './entropy.ts';
import { mean } from './number.ts';
import { MULTI_TOOL_BONUS } from './reward.ts';
import {
  beginTask,
  refuseEffects,
  scoreEpisode,
  throwIfAborted,
  turn,
  type ScoredTrajectory,
} from './task-episode.ts';
import type { EpisodeContext, EpisodeLimits } from '../agent/types.ts';
import type { Sampler } from '../ports.ts';
import type { EvalScore, Task } from '../records.ts';

export interface EvaluateOptions {
  sampler: Sampler;
  context: EpisodeContext;
  tasks: readonly Task[];
  version: number;
  limits: EpisodeLimits;
  /** 0: greedy. */
  temperature: number;
  /** Task i draws with key (seed, i): equal seeds pair two policies draw by draw. */
  seed: number;
  runId: string | null;
  /** Called as each task is answered. */
  onAnswer?: () => void;
  signal?: AbortSignal;
}

export interface EvaluatedTask extends ScoredTrajectory {
  task: Task;
  formatOk: boolean;
  /** Answered calls, failed ones included. */
  toolCalls: number;
}

/** Answers every task once, in order. Throws like rolloutGroups; every sequence is closed. */
export async function evaluateTasks(options: EvaluateOptions): Promise<EvaluatedTask[]> {
  refuseEffects(options.context, options.tasks);
  const deadline = new Deadline(options.signal, LIMITS.rolloutTimeoutMs);
  try {
    return await mapBounded(
      options.tasks,
      LIMITS.batchRowsMax,
      (task, index) => evaluateTask(options, task, index, deadline),
      deadline.fail,
    );
  } finally {
    deadline.close();
  }
}

async function evaluateTask(
  options: EvaluateOptions,
  task: Task,
  index: number,
  deadline: Deadline,
): Promise<EvaluatedTask> {
  throwIfAborted(deadline, 'evaluation');
  const context = { ...options.context, tools: new EffectFreeTools(options.context.tools) };
  const kind = { priority: 'evaluation', entropy: DEFAULT_ENTROPY } as const;
  const episode = beginTask({ ...options, ...kind, context, task });
  try {
    // Each turn ends the episode or uses up tool calls, which are bounded.
    while (episode.endReason === null) {
      await turn(episode, {
        key: [options.seed, index, 0],
        temperature: options.temperature,
        offered: new Set(task.tools),
        signal: deadline.signal,
      });
    }
    throwIfAborted(deadline, 'evaluation');
    const scored = scoreEpisode(episode, task, MULTI_TOOL_BONUS, {
      source: 'eval',
      trainingRunId: options.runId,
      groupId: null,
      branchedFromStepId: null,
    });
    const formatOk = scored.formatError === null;
    options.onAnswer?.();
    return { ...scored, task, formatOk, toolCalls: episode.toolCalls };
  } finally {
    episode.close();
  }
}

/** Figures by family and over `all`, as the gate report has them. */
export function evalScores(
  results: readonly Pick<EvaluatedTask, 'task' | 'correct' | 'formatOk' | 'toolCalls'>[],
): Record<string, EvalScore> {
  const families = new Map<string, (typeof results)[number][]>([['all', [...results]]]);
  for (const result of results) {
    const members = families.get(result.task.family);
    if (members === undefined) families.set(result.task.family, [result]);
    else members.push(result);
  }
  const score = (members: typeof results): EvalScore => ({
    tasks: members.length,
    accuracy: mean(members.map(({ correct }) => Number(correct))),
    formatErrors: mean(members.map(({ formatOk }) => Number(!formatOk))),
    toolCallsPerTask: mean(members.map(({ toolCalls }) => toolCalls)),
  });
  return Object.fromEntries([...families].map(([name, members]) => [name, score(members)]));
}
