/**
 * The one table of error codes. A code says what went wrong and whether repeating the same request
 * can help; HTTP statuses are assigned in api/problem.ts, whose record is total over these codes.
 *
 * Three kinds of failure are kept apart: the caller's mistake (a 4xx code that names the offending
 * value), the world's failure (a retryable code), and our own bug (`internal`, via core/assert.ts).
 */

export const ERROR_CODES = {
  invalid_json: 'The request body is not valid JSON.',
  invalid_request: 'A field is missing, of the wrong type or out of range.',
  unsupported_parameter: 'The parameter is known but not offered; it is refused, never ignored.',
  unsupported_media_type: 'The content type is not application/json (or the one documented).',
  payload_too_large: 'The body is larger than the documented limit.',
  headers_too_large: 'The head of the request is larger than the documented limit.',
  request_too_slow: 'The request did not arrive whole in time.',
  context_length_exceeded: 'Prompt and requested tokens do not fit the context window.',
  unknown_tool: 'A named tool does not exist on this server.',
  invalid_api_key: 'No key, or one that is not known, has expired or was revoked.',
  insufficient_scope: 'The key may not call this operation.',
  rate_limit_exceeded: 'The key has sent too many requests, or has too many under way.',
  insufficient_quota: 'The tokens of the key for this day are used up.',
  forbidden: 'The host or origin may not do this.',
  route_not_found: 'No such path.',
  method_not_allowed: 'The path exists, the method does not.',
  model_not_found: 'The model name is not `ramify`, nor `ramify@VERSION` of a loaded policy.',
  agent_run_not_found: 'No agent run has this id.',
  agent_run_not_waiting: 'The agent run does not wait for results of tool calls.',
  agent_run_expired: 'The client did not send the results that the agent run waited for in time.',
  agent_run_interrupted: 'The server stopped during the agent run, which could not go on.',
  response_not_found: 'No stored response has this id.',
  previous_response_not_found: 'The response to go on from is not stored.',
  trajectory_not_found: 'No trajectory has this id.',
  step_not_found: 'No step has this id.',
  training_run_not_found: 'No training run has this id.',
  policy_not_found: 'No policy has this version.',
  task_not_found: 'No task has this id.',
  key_not_found: 'No key has this id.',
  key_not_usable: 'The key has expired or was revoked, so it cannot be rotated.',
  too_many_keys: 'No more keys fit on record.',
  collection_not_found: 'No collection has this name.',
  document_not_found: 'The collection has no document with this id.',
  task_invalid: 'A line of the imported task file is wrong.',
  feedback_conflict: 'This feedback id was used before with other content.',
  idempotency_conflict: 'This Idempotency-Key was used before for a call with other content.',
  idempotency_key_in_use: 'The first call with this Idempotency-Key has not ended yet.',
  policy_not_activatable: 'The policy exists but cannot serve (rejected files, missing directory).',
  nothing_to_roll_back: 'The active policy has no parent to go back to.',
  training_run_finished: 'The training run has ended; it cannot be cancelled.',
  training_queue_full: 'A run is active and the queue of waiting runs is full.',
  queue_full: 'The engine queue is full; try again after Retry-After seconds.',
  engine_unavailable: 'The policy worker stopped; a new one is starting.',
  not_ready: 'The server is starting or stopping.',
  request_cancelled: 'The client went away or cancelled.',
  request_timeout: 'The request ran longer than its limit.',
  tool_failed: 'A tool raised an error.',
  tool_timeout: 'A tool ran longer than its limit.',
  tool_call_uncertain: 'The server stopped during a tool call with effects; it may have happened.',
  tool_arguments_invalid: 'The arguments of a tool call do not fit its schema.',
  policy_invalid: 'A policy directory is missing a file, or a file is broken or unsupported.',
  config_invalid: 'A setting or environment variable is wrong.',
  storage_failed: 'The data folder cannot be read or written.',
  internal: 'A bug in ramify. The request id finds it in the log.',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Codes where the same request may succeed later; clients get Retry-After. */
export const RETRYABLE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'rate_limit_exceeded',
  'insufficient_quota',
  'queue_full',
  'training_queue_full',
  'engine_unavailable',
  'not_ready',
  'request_timeout',
  'idempotency_key_in_use',
]);

export interface AppErrorOptions {
  /** The request field at fault, in the client's spelling (`messages[2].content`). */
  param?: string;
  cause?: unknown;
  /** Seconds after which a retry makes sense: of retryable codes, and of tools (registry.ts). */
  retryAfterS?: number;
}

/** The only error class thrown on purpose across folder borders. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly param: string | null;
  readonly retryAfterS: number | null;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AppError';
    this.code = code;
    this.param = options.param ?? null;
    this.retryAfterS = options.retryAfterS ?? null;
  }
}

/** Wraps anything thrown into an AppError; what is not one already becomes `internal`. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new AppError('internal', message, { cause: thrown });
}
