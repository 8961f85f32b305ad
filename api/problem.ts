/**
 * Errors as HTTP: one status a code (a new code without one does not compile), OpenAI's body, and
 * the headers by which its clients decide on retries. What was not thrown on purpose is told as
 * `internal` with nothing but the request id; the rest stays in the log.
 */
import { RETRYABLE } from '../core/errors.ts';
import type { AppError, ErrorCode } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Schemas } from './handlers.ts';

export type Problem = Schemas['Error'];

export const STATUS: Readonly<Record<ErrorCode, number>> = {
  invalid_json: 400,
  invalid_request: 400,
  unsupported_parameter: 400,
  unsupported_media_type: 415,
  payload_too_large: 413,
  headers_too_large: 431,
  request_too_slow: 408,
  context_length_exceeded: 400,
  unknown_tool: 400,
  invalid_api_key: 401,
  insufficient_scope: 403,
  rate_limit_exceeded: 429,
  insufficient_quota: 429,
  forbidden: 403,
  route_not_found: 404,
  method_not_allowed: 405,
  model_not_found: 404,
  agent_run_not_found: 404,
  agent_run_not_waiting: 409,
  agent_run_expired: 408,
  agent_run_interrupted: 500,
  response_not_found: 404,
  // As OpenAI answers it.
  previous_response_not_found: 400,
  trajectory_not_found: 404,
  step_not_found: 404,
  training_run_not_found: 404,
  policy_not_found: 404,
  task_not_found: 404,
  key_not_found: 404,
  key_not_usable: 409,
  too_many_keys: 409,
  collection_not_found: 404,
  document_not_found: 404,
  task_invalid: 400,
  feedback_conflict: 409,
  idempotency_conflict: 409,
  idempotency_key_in_use: 409,
  policy_not_activatable: 409,
  nothing_to_roll_back: 409,
  training_run_finished: 409,
  training_queue_full: 503,
  queue_full: 503,
  engine_unavailable: 503,
  not_ready: 503,
  request_cancelled: 499,
  request_timeout: 504,
  tool_failed: 502,
  tool_timeout: 504,
  tool_call_uncertain: 500,
  tool_arguments_invalid: 400,
  policy_invalid: 500,
  config_invalid: 500,
  storage_failed: 500,
  internal: 500,
};

/** The body of an error. */
export function problemBody(error: AppError, requestId: string): Problem {
  const { code, param } = error;
  const message = publicMessage(error, `the log has it under ${requestId}`);
  return { error: { message, type: typeOf(STATUS[code]), code, param } };
}

/** What a client may read: of our own bugs and of our disk only that they happened. */
export function publicMessage({ code, message }: AppError, where: string): string {
  if (code === 'internal') return `An internal error occurred; ${where}.`;
  if (code === 'storage_failed') return `The data folder cannot be read or written; ${where}.`;
  return message;
}

export function problemResponse(error: AppError, requestId: string): Response {
  const status = STATUS[error.code];
  const headers = new Headers({ 'content-type': 'application/json' });
  if (RETRYABLE.has(error.code)) {
    const seconds = Math.ceil(error.retryAfterS ?? LIMITS.retryAfterS);
    headers.set('retry-after', String(seconds));
    headers.set('retry-after-ms', String(seconds * 1000));
  }
  // OpenAI's clients repeat these by themselves. The same call would fail again, or only succeed
  // tomorrow, which nobody should wait for in the middle of a call.
  const repeated = status === 409 || status >= 500;
  if (error.code === 'insufficient_quota' || (repeated && !RETRYABLE.has(error.code))) {
    headers.set('x-should-retry', 'false');
  }
  if (status === 401) headers.set('www-authenticate', 'Bearer realm="ramify"');
  return new Response(JSON.stringify(problemBody(error, requestId)), { status, headers });
}

function typeOf(status: number): Problem['error']['type'] {
  switch (status) {
    case 401:
      return 'authentication_error';
    case 403:
      return 'permission_error';
    case 404:
      return 'not_found_error';
    case 409:
      return 'conflict_error';
    case 429:
      return 'rate_limit_error';
    default:
      return status >= 500 ? 'server_error' : 'invalid_request_error';
  }
}
