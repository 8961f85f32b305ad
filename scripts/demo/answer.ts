/**
 * One answered question with its score, by whichever way it was asked, and what both ways share:
 * limits, and the look into the log that every answer must pass.
 */
import { judge, type Judgement } from '../../core/arpo/reward.ts';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Task } from '../../core/records.ts';
import type { HttpClient } from './http-client.ts';

/**
 * `agent`: POST /v1/agent/runs, tools run on the server. `chat`: the openai client, tools run here.
 */
export const WAYS = ['agent', 'chat'] as const;
export type Way = (typeof WAYS)[number];

/** As in training, so that figures compare. Tokens of one agent run, or of one chat completion. */
export const MAX_TOKENS = 256;
export const MAX_TOOL_CALLS = LIMITS.toolCallsDefault;
const MULTI_TOOL_BONUS = 0.1;

export interface Answer extends Judgement {
  task: Task;
  way: Way;
  /** The one policy version that answered. */
  version: number;
  formatOk: boolean;
  /** Calls with a result. */
  toolCalls: number;
  trajectoryId: string;
}

export interface Said {
  way: Way;
  trajectoryId: string;
  /** Every version that the replies named. */
  versions: readonly number[];
  /** As the client saw it; null when there was none. */
  answer: string | null;
  toolCalls: number;
  /** Tools whose calls succeeded. */
  toolsUsed: readonly string[];
  /** False when the client itself had to give up, for instance at the limit of tool calls. */
  ended: boolean;
}

/**
 * Scores what was said. Reads the trajectory back from the log for the format, and to check that
 * the answer is there whole. @throws AppError internal when reply and log differ, or versions are
 * mixed.
 */
export async function scored(client: HttpClient, task: Task, said: Said): Promise<Answer> {
  const { way, trajectoryId, answer, toolCalls } = said;
  const logged = await client.trajectory(trajectoryId);
  const versions = new Set([
    ...said.versions,
    logged.policy_version,
    ...logged.steps.map((step) => step.policy_version),
  ]);
  if (versions.size !== 1) {
    throw broken(trajectoryId, `versions ${[...versions].join(' and ')} answered together`);
  }
  const formatOk = said.ended && logged.format_ok;
  if (formatOk && logged.answer !== answer) {
    throw broken(trajectoryId, `answered '${answer}', but the log has '${logged.answer}'`);
  }
  const formatError = formatOk ? null : logged.end_reason;
  const outcome = { answer, formatError, toolsUsed: said.toolsUsed };
  return {
    ...judge(task, outcome, MULTI_TOOL_BONUS),
    task,
    way,
    version: logged.policy_version,
    formatOk,
    toolCalls,
    trajectoryId,
  };
}

function broken(trajectoryId: string, what: string): AppError {
  return new AppError('internal', `${trajectoryId}: ${what}`);
}
