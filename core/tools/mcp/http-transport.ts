/**
 * An MCP server over streamable HTTP: the SDK's transport, on a fetch that bounds what the SDK does
 * not. A request has a time limit and a body has a size limit; a body that breaks off, or a server
 * that cannot be reached, is told at once, where the SDK would let the call wait for its time-out.
 */
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { AppError, toAppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';
import type { McpAddress } from './declaration.ts';

export interface HttpTransportOptions {
  /** Of one request, its whole answer included. */
  timeoutMs: number;
  /** The connection is of no use any more; may be told several times. */
  onBroken: (error: AppError) => void;
}

export function httpTransport(
  address: McpAddress,
  options: HttpTransportOptions,
): StreamableHTTPClientTransport {
  const fetcher = new BoundedFetch(options);
  return new StreamableHTTPClientTransport(new URL(address.url), {
    requestInit: { headers: { ...address.headers } },
    fetch: (url, init) => fetcher.fetch(url, init),
  });
}

class BoundedFetch {
  private readonly options: HttpTransportOptions;
  /** Whether the server has offered its stream of notifications; many have none. */
  private hadStream = false;

  constructor(options: HttpTransportOptions) {
    this.options = options;
  }

  async fetch(url: string | URL, init: RequestInit = {}): Promise<Response> {
    const isStream = init.method === 'GET';
    const limit = new Limit(init.signal ?? null, isStream ? null : this.options.timeoutMs);
    let response: Response;
    try {
      response = await fetch(url, { ...init, signal: limit.signal });
    } catch (thrown) {
      limit.release();
      throw this.broken(limit, reasonOf(limit.signal, thrown));
    }
    if (isStream && response.ok) this.hadStream = true;
    else if (isStream && this.hadStream) this.broken(limit, `HTTP status ${response.status}`);
    if (response.body === null) {
      limit.release();
      return response;
    }
    const { status, statusText, headers } = response;
    // A stream of notifications that ends or grows too long is opened again by the SDK.
    const onFailure = (why: string): AppError =>
      isStream ? new AppError('tool_failed', why) : this.broken(limit, why);
    return new Response(bounded(response.body, limit, onFailure), { status, statusText, headers });
  }

  private broken(limit: Limit, why: string): AppError {
    const error = limit.expired
      ? new AppError('tool_timeout', `no answer within ${this.options.timeoutMs} ms`)
      : new AppError('tool_failed', why);
    // A request that took too long says nothing of the others.
    if (!limit.expired && !limit.cancelled) this.options.onBroken(error);
    return error;
  }
}

/** The caller's signal and the time limit in one; holds neither after `release`. */
class Limit {
  private readonly controller = new AbortController();
  private readonly outer: AbortSignal | null;
  private readonly timer: NodeJS.Timeout | undefined;
  private timedOut = false;

  constructor(outer: AbortSignal | null, timeoutMs: number | null) {
    this.outer = outer;
    if (timeoutMs !== null) {
      this.timer = setTimeout(() => {
        this.timedOut = true;
        this.controller.abort();
      }, timeoutMs);
    }
    if (outer?.aborted === true) this.abort();
    outer?.addEventListener('abort', this.abort, { once: true });
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  get expired(): boolean {
    return this.timedOut;
  }

  get cancelled(): boolean {
    return this.outer?.aborted === true;
  }

  release(): void {
    clearTimeout(this.timer);
    this.outer?.removeEventListener('abort', this.abort);
  }

  private readonly abort = (): void => this.controller.abort();
}

function bounded(
  body: ReadableStream<Uint8Array>,
  limit: Limit,
  onFailure: (why: string) => AppError,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const max = LIMITS.mcpMessageBytesMax;
  let size = 0;
  let ended = false;
  const end = (): void => {
    ended = true;
    limit.release();
    void reader.cancel().catch(() => undefined);
  };
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (ended) return;
        if (done) {
          limit.release();
          controller.close();
          return;
        }
        size += value.byteLength;
        if (size > max) throw new AppError('tool_failed', `an answer is longer than ${max} bytes`);
        controller.enqueue(value);
      } catch (thrown) {
        if (ended) return;
        end();
        controller.error(onFailure(reasonOf(limit.signal, thrown)));
      }
    },
    cancel: end,
  });
}

/** undici says `fetch failed` and hides why in the cause. */
function reasonOf(signal: AbortSignal, thrown: unknown): string {
  if (signal.aborted) return 'the connection was closed';
  const { message, cause } = toAppError(thrown);
  const inner = (cause as { cause?: unknown } | undefined)?.cause;
  return inner instanceof Error && inner.message !== '' ? `${message}: ${inner.message}` : message;
}
