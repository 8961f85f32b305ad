/** What went wrong, as classes: an error that the server told, and a stream that broke off. */
import type { components } from './openapi.gen.ts';

type Problem = components['schemas']['Error']['error'];

/** Later servers may tell codes that this list does not have. */
export type ErrorCode = Problem['code'];

export class RamifyError extends Error {
  readonly code: ErrorCode;
  /** OpenAI's name of the kind of error. */
  readonly type: Problem['type'];
  /** The field at fault, in the request's spelling. */
  readonly param: string | null;
  /** Null when it came inside a stream. */
  readonly status: number | null;
  /** Finds the request in the server's log. */
  readonly requestId: string | null;
  /** Seconds after which the same request may succeed; null when it will not. */
  readonly retryAfterS: number | null;

  constructor(problem: Problem, response?: Response) {
    super(problem.message);
    this.name = 'RamifyError';
    this.code = problem.code;
    this.type = problem.type;
    this.param = problem.param;
    this.status = response?.status ?? null;
    this.requestId = response?.headers.get('x-request-id') ?? null;
    const seconds = response?.headers.get('retry-after') ?? null;
    this.retryAfterS = seconds === null ? null : Number(seconds);
  }
}

/** The connection ended before the stream did. */
export class StreamBrokenError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'StreamBrokenError';
  }
}

/** The problem in a body of the contract's error shape; null when it is something else. */
export function problemOf(body: unknown): Problem | null {
  const problem = (body as { error?: Partial<Problem> } | null | undefined)?.error;
  return typeof problem?.message === 'string' ? (problem as Problem) : null;
}

interface Outcome {
  data?: unknown;
  error?: unknown;
  response: Response;
}

/**
 * The data of a call of the client: `await unwrap(client.GET('/v1/models'))`.
 * @throws RamifyError when the server answered with an error.
 */
export async function unwrap<T extends Outcome>(call: Promise<T>): Promise<NonNullable<T['data']>> {
  const { data, error, response } = await call;
  if (response.ok) return data as NonNullable<T['data']>;
  const problem = problemOf(error);
  if (problem !== null) throw new RamifyError(problem, response);
  // Something between client and server answered.
  throw new Error(`${response.status} ${response.statusText} from ${response.url}`);
}
