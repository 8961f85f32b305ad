/**
 * An agent run in memory, and the facts of it that are made without an episode: how a run stands
 * that stopped between two steps.
 */
import { policyTokens } from '../core/agent/episode.ts';
import type { AppError } from '../core/errors.ts';
import type { TokenUsage } from '../core/key-records.ts';
import type { AgentRunRecord, StepRecord, TrajectoryRecord } from '../core/records.ts';
import type { RunFeed } from './agent-run-feed.ts';
import type { AgentRunRequest } from './agent-run-request.ts';
import { publicMessage } from './problem.ts';

export interface LiveRun {
  record: AgentRunRecord;
  readonly request: AgentRunRequest;
  readonly feed: RunFeed;
  /** Characters of the JSON of its request, which is what may be large of it. */
  readonly chars: number;
  /** Steps made so far; the newest of them may not be durable yet. */
  made: number;
  /** Resolves when the first steps of the work under way are durable; else rejects. */
  begun: Promise<void>;
  /** Resolves when the run waits or has ended and its rows are durable; never rejects. */
  done: Promise<void>;
  /** Resolves when what goes on with a waiting run, or ends it, is under way; never rejects. */
  taking: Promise<void>;
  /** While it waits: its end, or its going on, is under way. */
  claimed: boolean;
  /** Someone asked for its end. */
  cancelled: boolean;
  /** Why the run failed before its first token; such a failure can still become an HTTP status. */
  earlyError: AppError | null;
  /** Ends the work under way; does nothing when there is none. */
  abort: () => void;
  /** Lets go of the work under way so that another process can go on with it. */
  suspend: () => void;
}

export type Ending = Pick<AgentRunRecord, 'status' | 'answer' | 'usage' | 'error'>;

export function usageOfSteps(steps: readonly StepRecord[]): AgentRunRecord['usage'] {
  const [prompt] = steps;
  if (prompt === undefined) return null;
  return { promptTokens: prompt.tokens.length, completionTokens: policyTokens(steps) };
}

/** What a leg of a run used: usage is that of the whole run. */
export function usageSince(
  before: AgentRunRecord['usage'],
  now: AgentRunRecord['usage'],
): TokenUsage {
  const none = { promptTokens: 0, completionTokens: 0 };
  const [from, to] = [before ?? none, now ?? before ?? none];
  return {
    promptTokens: to.promptTokens - from.promptTokens,
    completionTokens: to.completionTokens - from.completionTokens,
  };
}

/** The trajectory of work that ended between two steps through no fault of the policy. */
export function cutTrajectory(
  record: Pick<AgentRunRecord, 'trajectoryId' | 'tenant' | 'conversationId'>,
  steps: readonly StepRecord[],
): TrajectoryRecord | null {
  const [first, leaf] = [steps[0], steps.at(-1)];
  if (first === undefined || leaf === undefined || record.trajectoryId === null) return null;
  return {
    id: record.trajectoryId,
    tenant: record.tenant,
    source: 'live',
    conversationId: record.conversationId,
    leafStepId: leaf.id,
    policyVersion: leaf.policyVersion,
    taskId: null,
    trainingRunId: null,
    groupId: null,
    branchedFromStepId: null,
    status: 'cancelled',
    endReason: 'cancelled',
    answer: null,
    formatOk: false,
    reward: null,
    toolCalls: steps.filter(({ kind }) => kind === 'tool').length,
    sampledTokens: policyTokens(steps),
    createdAt: first.startedAt,
  };
}

/** Milliseconds that a run had worked when its process ended, as far as its steps tell. */
export function workedUntil({ progress }: AgentRunRecord, leaf: StepRecord | undefined): number {
  if (progress === null) return 0;
  const end = leaf === undefined ? 0 : leaf.startedAt + leaf.durationMs;
  return progress.workedMs + Math.max(0, end - progress.legStartedAt);
}

export function plainError(error: AppError): { code: string; message: string } {
  return { code: error.code, message: publicMessage(error, 'the log has it under the run id') };
}
