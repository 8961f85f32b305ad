/** Responses as the JSON of the contract. */
import type { ErrorCode } from '../../core/errors.ts';
import type { ResponseRecord } from '../../core/records.ts';
import type { Schemas } from '../handlers.ts';
import { pinnedName } from '../policy-service.ts';
import type { OutputItem } from './items.ts';
import type { Settings } from './request.ts';

type View = Schemas['ResponseObject'];

export function responseView(record: ResponseRecord, output: readonly OutputItem[]): View {
  const { error, incompleteReason, conversationId, usage } = record;
  return {
    id: record.id,
    object: 'response',
    created_at: seconds(record.createdAt),
    completed_at: record.completedAt === null ? null : seconds(record.completedAt),
    status: record.status,
    error: error === null ? null : { code: error.code as ErrorCode, message: error.message },
    incomplete_details: incompleteReason === null ? null : { reason: incompleteReason },
    model: pinnedName(record.policyVersion),
    output: [...output],
    previous_response_id: record.previousId,
    conversation: conversationId === null ? null : { id: conversationId },
    reasoning: { effort: null, summary: null },
    service_tier: 'default',
    truncation: 'disabled',
    usage: usage === null ? null : usageView(usage),
    trajectory_id: record.trajectoryId,
    // Written by settingsOf.
    ...(record.settings as unknown as Settings),
  };
}

function usageView(usage: NonNullable<ResponseRecord['usage']>): Schemas['ResponseUsage'] {
  const { inputTokens, cachedTokens, outputTokens, reasoningTokens } = usage;
  return {
    input_tokens: inputTokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: inputTokens + outputTokens,
  };
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}
