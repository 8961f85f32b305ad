/** Agent runs as the JSON of the contract. */
import type { ErrorCode } from '../core/errors.ts';
import type { AgentRunProgress, AgentRunRecord, StepRecord } from '../core/records.ts';
import { toolCallsOf, usageOf } from './chat-completion.ts';
import type { Schemas } from './handlers.ts';
import { pinnedName } from './policy-service.ts';
import { stepView, time, timeOrNull } from './views.ts';

export type AgentRunView = Schemas['AgentRun'];
export type AgentRunSummary = Schemas['AgentRunSummary'];

export function runView(
  record: AgentRunRecord,
  steps: readonly StepRecord[],
  options: { tokens: boolean },
): AgentRunView {
  return { ...summaryView(record), steps: steps.map((step) => stepView(step, options)) };
}

/** The run as it was when it began. */
export function createdView(record: AgentRunRecord): AgentRunView {
  const begun = { status: 'in_progress', answer: null, usage: null, error: null } as const;
  return runView({ ...record, ...begun, waitsUntil: null, endedAt: null }, [], { tokens: false });
}

export function summaryView(record: AgentRunRecord): AgentRunSummary {
  const { usage, error, request } = record;
  const version = record.policyVersion ?? 0;
  const { metadata, background } = request as {
    metadata?: Record<string, string>;
    background?: boolean;
  };
  return {
    id: record.id,
    object: 'agent.run',
    status: record.status,
    model: pinnedName(version),
    policy_version: version,
    background: background === true,
    trajectory_id: record.trajectoryId,
    answer: record.answer,
    required_action: requiredAction(record),
    usage: usage === null ? null : usageOf(usage.promptTokens, usage.completionTokens),
    error: error === null ? null : { code: error.code as ErrorCode, message: error.message },
    metadata: metadata ?? {},
    created_at: time(record.createdAt),
    expires_at: timeOrNull(record.waitsUntil),
    ended_at: timeOrNull(record.endedAt),
  };
}

/** The calls of the newest step that the client has to answer. */
export function waitingCalls(record: AgentRunRecord): AgentRunProgress['calls'] {
  if (record.status !== 'requires_action') return [];
  const names = clientToolNames(record);
  return (record.progress?.calls ?? []).filter(({ name }) => names.has(name));
}

function requiredAction(record: AgentRunRecord): AgentRunView['required_action'] {
  const calls = waitingCalls(record);
  return calls.length > 0 ? { tool_calls: toolCallsOf(calls) } : null;
}

function clientToolNames({ request }: AgentRunRecord): ReadonlySet<string> {
  const { tools = [] } = request as Schemas['AgentRunRequest'];
  return new Set(tools.flatMap((tool) => (typeof tool === 'string' ? [] : tool.function.name)));
}
