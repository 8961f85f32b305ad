/**
 * Server-sent events. A failure inside a stream becomes our own error frame, never a silent end and
 * never a raw message; while nothing happens, comments keep the connection alive; a client that
 * goes away, or stops reading, aborts the producer. hono's streamSSE does none of the first and
 * last, so this is our own.
 */
import { anySignal } from '../core/any-signal.ts';
import { AppError, toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Activity } from './lifecycle.ts';
import { problemBody } from './problem.ts';

export interface Frame {
  /** JSON, or text as it is (`[DONE]`). */
  data: unknown;
  event?: string;
  id?: number | string;
}

export interface SseOptions {
  requestId: string;
  headers?: Record<string, string>;
  /** The request's; the stream holds it and ends when its signal aborts. */
  activity: Activity;
  /** Told of failures after the stream began. */
  onError: (error: AppError, thrown: unknown) => void;
  heartbeatMs?: number;
  lifeMs?: number;
  stallMs?: number;
  /** `event` line of error frames; none for OpenAI's clients. */
  errorEvent?: string;
}

const QUEUED_BYTES = 64 * 1024;

/** What a producer writes to. */
export class SseStream {
  private readonly controller: ReadableStreamDefaultController<Uint8Array>;
  private readonly encoder = new TextEncoder();
  private closed = false;
  private readonly signal: AbortSignal;
  private readonly stall: { limitMs: number; onStall: () => void };
  private wakeups: (() => void)[] = [];

  /** `onStall`: the client took nothing for so long, and is given up. */
  constructor(
    controller: ReadableStreamDefaultController<Uint8Array>,
    signal: AbortSignal,
    stall: { limitMs: number; onStall: () => void },
  ) {
    this.controller = controller;
    this.signal = signal;
    this.stall = stall;
    signal.addEventListener('abort', () => this.wake(), { once: true });
  }

  send(frame: Frame): void {
    const data = typeof frame.data === 'string' ? frame.data : JSON.stringify(frame.data);
    const event = frame.event === undefined ? '' : `event: ${frame.event}\n`;
    const id = frame.id === undefined ? '' : `id: ${frame.id}\n`;
    this.write(`${event}${id}data: ${data}\n\n`);
  }

  comment(text: string): void {
    this.write(`: ${text}\n\n`);
  }

  /** Resolves when the client has taken what was sent, or the stream is to end. */
  async drained(): Promise<void> {
    // Most frames are taken at once and need no timer.
    if (!this.waits) return;
    const timer = setTimeout(() => this.giveUp(), this.stall.limitMs);
    while (this.waits) await new Promise<void>((resolve) => this.wakeups.push(resolve));
    clearTimeout(timer);
  }

  private get waits(): boolean {
    return !this.closed && !this.signal.aborted && (this.controller.desiredSize ?? 0) <= 0;
  }

  /** An error and no end, which would wait behind what the client does not take. */
  private giveUp(): void {
    const { limitMs, onStall } = this.stall;
    this.controller.error(new AppError('request_timeout', `nothing was read for ${limitMs} ms`));
    this.abandon();
    onStall();
  }

  /** Called by the stream when the client reads. */
  wake(): void {
    for (const wakeup of this.wakeups.splice(0)) wakeup();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.wake();
    this.controller.close();
  }

  /** The client is gone: what is sent from now on is dropped. */
  abandon(): void {
    this.closed = true;
    this.wake();
  }

  private write(text: string): void {
    if (!this.closed) this.controller.enqueue(this.encoder.encode(text));
  }
}

/**
 * Answers with a stream that `produce` fills; it gets a signal that aborts when the client leaves.
 * When it returns the stream ends; when it throws, an error frame is sent first.
 */
export function sseResponse(
  options: SseOptions,
  produce: (stream: SseStream, signal: AbortSignal) => Promise<void>,
): Response {
  const gone = new AbortController();
  const signal = anySignal([options.activity.signal, gone.signal]);
  options.activity.hold();
  let stream: SseStream;
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const limitMs = options.stallMs ?? LIMITS.streamStallMs;
        stream = new SseStream(controller, signal, { limitMs, onStall: () => gone.abort() });
        void run(stream, { signal, end: () => gone.abort() }, options, produce);
      },
      pull: () => stream.wake(),
      cancel: () => {
        stream.abandon();
        gone.abort();
      },
    },
    { highWaterMark: QUEUED_BYTES, size: (chunk) => chunk?.byteLength ?? 0 },
  );
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache',
      // Proxies that buffer would hold the tokens back.
      'x-accel-buffering': 'no',
      ...options.headers,
    },
  });
}

async function run(
  stream: SseStream,
  { signal, end }: { signal: AbortSignal; end: () => void },
  options: SseOptions,
  produce: (stream: SseStream, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const period = options.heartbeatMs ?? LIMITS.heartbeatMs;
  const heartbeat = setInterval(() => stream.comment('keep-alive'), period);
  const lifeMs = options.lifeMs ?? LIMITS.streamLifeMs;
  let outlived = false;
  const life = setTimeout(() => {
    outlived = true;
    end();
  }, lifeMs);
  const tooOld = (): AppError =>
    new AppError('request_timeout', `the stream was open for ${lifeMs / 1000} s, and no longer`);
  try {
    await produce(stream, signal);
    if (outlived) throw tooOld();
  } catch (thrown) {
    const error = outlived ? tooOld() : toAppError(thrown);
    options.onError(error, thrown);
    stream.send({
      data: problemBody(error, options.requestId),
      ...(options.errorEvent !== undefined && { event: options.errorEvent }),
    });
  } finally {
    clearTimeout(life);
    clearInterval(heartbeat);
    stream.close();
    options.activity.release();
  }
}
