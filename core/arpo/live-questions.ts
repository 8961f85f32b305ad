/**
 * Rated live conversations as questions to train and to be held out on (arpo.md section 3.6). Two
 * conversations whose messages are equal asked the same question; their ratings stand together. A
 * question teaches when one of its answers is liked; conversations of the others, and those that
 * cannot be rebuilt here, are left out and counted by reason.
 *
 * A held-out question is chosen by the hash of its messages alone, so it is on that side in every
 * run. Knows nothing of sampling and of the policy but its version.
 */
import { createHash } from 'node:crypto';
import type { EpisodeLimits } from '../agent/types.ts';
import { must } from '../assert.ts';
import type { ToolRunner } from '../ports.ts';
import type { LiveSample, Task } from '../records.ts';
import { parseQuantity } from './quantity.ts';
import { RatedAnswers } from './rated-answers.ts';
import { isAdmissible } from './staleness.ts';

/** A task that is asked by tokens, exactly as the log has them. */
export interface PromptedTask extends Task {
  promptTokens: Uint32Array;
}

export interface LiveQuestion {
  /** What evaluation asks; its truths are the liked answers. */
  task: PromptedTask;
  answers: RatedAnswers;
  /** Conversations whose tokens may be trained on, newest first. */
  logged: LiveSample[];
}

export type LeftOutReason =
  | 'client_tools'
  | 'effects'
  | 'no_liked_answer'
  | 'not_completed'
  | 'other_prompt'
  | 'over_limit'
  | 'stale'
  | 'unknown_tool';

export interface LiveQuestions {
  train: LiveQuestion[];
  heldOut: LiveQuestion[];
  /** Conversations by why no token of theirs is trained on; ratings of `stale` ones do count. */
  leftOut: Partial<Record<LeftOutReason, number>>;
}

export interface LiveQuestionOptions {
  tools: ToolRunner;
  /** The policy that is trained. */
  version: number;
  /** Versions between a conversation and the policy that is trained on its tokens, at most. */
  maxStaleness: number;
  /** Of the trajectories of its groups: one that reached them leaves a fork no room. */
  limits: EpisodeLimits;
  /** Share of questions that are held out, in [0, 1). */
  heldOut: number;
}

/** The family under which figures show these questions. */
export const LIVE_FAMILY = 'live';

/** `samples` are newest first. */
export function liveQuestions(
  samples: readonly LiveSample[],
  options: LiveQuestionOptions,
): LiveQuestions {
  const result: LiveQuestions = { train: [], heldOut: [], leftOut: {} };
  const leaveOut = (reason: LeftOutReason, count = 1): void => {
    result.leftOut[reason] = (result.leftOut[reason] ?? 0) + count;
  };
  const byQuestion = new Map<string, LiveSample[]>();
  for (const sample of samples) {
    const reason = unfit(sample, options.tools);
    if (reason !== null) leaveOut(reason);
    else byQuestion.set(sample.question, [...(byQuestion.get(sample.question) ?? []), sample]);
  }
  for (const [text, members] of byQuestion) {
    const question = questionOf(text, members);
    if (question.answers.liked.length === 0) {
      leaveOut('no_liked_answer', members.length);
      continue;
    }
    for (const sample of members) {
      const reason = unused(sample, question.task, options);
      if (reason !== null) leaveOut(reason);
      else question.logged.push(sample);
    }
    (positionOf(text) < options.heldOut ? result.heldOut : result.train).push(question);
  }
  return result;
}

/** Why a conversation says nothing here; null when it does. */
function unfit(
  { trajectory, steps, ...asked }: LiveSample,
  tools: ToolRunner,
): LeftOutReason | null {
  if (trajectory.status !== 'completed' || trajectory.reward === null) return 'not_completed';
  const calls = steps.flatMap(({ toolCall }) => toolCall ?? []);
  if (asked.clientTools || calls.some(({ served }) => served === 'client')) return 'client_tools';
  // Cut by a limit, its client's own perhaps: the policy did not choose to end here.
  const { endReason } = trajectory;
  if (endReason !== 'answer' && endReason !== 'stop') return 'not_completed';
  if (calls.some(({ effects }) => effects !== 'none')) return 'effects';
  const unknown = (name: string): boolean => !tools.has(name);
  if (asked.tools.some(unknown) || calls.some(({ error }) => error === 'unknown_tool')) {
    return 'unknown_tool';
  }
  const free = tools.specs(asked.tools).every(({ effects }) => effects === 'none');
  return free ? null : 'effects';
}

/** Why a conversation's tokens are no part of the question's groups; null when they are. */
function unused(
  { trajectory, steps }: LiveSample,
  { promptTokens }: PromptedTask,
  { version, maxStaleness, limits }: LiveQuestionOptions,
): LeftOutReason | null {
  if (!isAdmissible({ steps }, version, { maxStaleness })) return 'stale';
  const { toolCalls, sampledTokens } = trajectory;
  if (toolCalls > limits.maxToolCalls || sampledTokens >= limits.maxTokens) return 'over_limit';
  const own = steps[0]?.tokens ?? [];
  const same =
    own.length === promptTokens.length && promptTokens.every((token, t) => token === own[t]);
  // Other tools in the prompt, or another chat template; or a path with a second question.
  return same && steps.every(({ kind }, i) => i === 0 || kind !== 'prompt') ? null : 'other_prompt';
}

/** The newest conversation says how the question is put. */
function questionOf(text: string, members: readonly LiveSample[]): LiveQuestion {
  const { steps, tools } = must(members[0], 'a question was asked');
  const answers = new RatedAnswers(
    members.flatMap(({ trajectory: { answer, reward } }) =>
      answer === null || reward === null ? [] : [{ answer, reward }],
    ),
  );
  const { liked } = answers;
  const task: PromptedTask = {
    id: `live_${digest(text).toString('hex').slice(0, 32)}`,
    family: LIVE_FAMILY,
    split: 'train',
    question: text,
    truths: liked,
    verifier: liked.every((answer) => parseQuantity(answer) !== null) ? 'math' : 'qa-f1',
    tools,
    metadata: {},
    promptTokens: must(steps[0], 'a conversation has its prompt').tokens,
  };
  return { task, answers, logged: [] };
}

/** Where a question lies in [0, 1), evenly over questions. */
const positionOf = (question: string): number => digest(question).readUInt32BE(0) / 2 ** 32;

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
