/**
 * Idempotency-Key: a call that is made again is answered as it was the first time, and nothing is
 * done twice. Kept are whole answers, plain bodies and streams, byte for byte; what failed was no
 * answer, so the same call may be tried again. Its end is sent only when the copy is durable. A
 * second call beside the first waits for it, for a while.
 *
 * Keys are a tenant's own. The same key with other content is a mistake of the client.
 */
import { createHash } from 'node:crypto';
import { must } from '../core/assert.ts';
import { AppError, toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { KeptAnswer } from '../db/answer-store.ts';
import type { AppDeps } from './app.ts';

export interface RepeatableCall {
  tenant: string;
  key: string;
  /** All that decides what is answered; two calls are the same when it has the same JSON. */
  asked: unknown;
  /** What is done goes on when its client leaves the stream, which is read to its end then. */
  goesOn: boolean;
  signal: AbortSignal;
}

type Deps = Pick<AppDeps, 'stores' | 'clock' | 'logger' | 'idempotencyWaitMs'>;

interface Running {
  digest: string;
  ended: Promise<void>;
}

/** Headers of an answer that belong to it and not to its way. */
const KEPT_HEADERS = /^(content-type|cache-control|x-accel-buffering|x-ramify-.*)$/;

/** Frames behind which a whole stream has nothing more: of chat, of a response, of an agent run. */
const LAST_FRAME =
  /^(data: \[DONE\]\n|event: response\.(completed|incomplete)\n|event: run\.(?!created\n))/;

export class RepeatedCalls {
  private readonly deps: Deps;
  /** First calls under way, by tenant and key. */
  private readonly running = new Map<string, Running>();

  constructor(deps: Deps) {
    this.deps = deps;
  }

  /**
   * What `answer` gives, or what it gave before.
   * @throws AppError idempotency_conflict, idempotency_key_in_use, and what `answer` throws
   */
  async once(call: RepeatableCall, answer: () => Promise<Response>): Promise<Response> {
    const digest = createHash('sha256').update(JSON.stringify(call.asked)).digest('hex');
    const id = JSON.stringify([call.tenant, call.key]);
    for (;;) {
      const kept = this.kept(call);
      const running = this.running.get(id);
      const known = kept?.digest ?? running?.digest ?? digest;
      if (known !== digest) throw conflict(call);
      if (kept !== null) return replayed(kept);
      // Nothing is awaited from here to the first call's entry.
      if (running === undefined) return this.first({ ...call, id, digest }, answer);
      await this.end(running, call);
    }
  }

  private kept({ tenant, key }: RepeatableCall): KeptAnswer | null {
    const { stores, clock } = this.deps;
    return stores.answers.find({ tenant, key }, clock.now() - LIMITS.idempotencyKeptMs);
  }

  private async first(
    call: RepeatableCall & { id: string; digest: string },
    answer: () => Promise<Response>,
  ): Promise<Response> {
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const running = { digest: call.digest, ended };
    this.running.set(call.id, running);
    const over = (): void => {
      if (this.running.get(call.id) === running) this.running.delete(call.id);
      end();
    };
    try {
      const response = await answer();
      const { body } = response;
      if (!response.ok || body === null) {
        over();
        return response;
      }
      const keep = (bytes: Uint8Array): Promise<void> => this.keep(call, response, bytes);
      if (response.headers.get('content-type') === 'text/event-stream') {
        return new Response(recorded(body, { keep, over, goesOn: call.goesOn }), response);
      }
      const bytes = new Uint8Array(await response.arrayBuffer());
      await keep(bytes);
      over();
      return new Response(bytes, response);
    } catch (error) {
      over();
      throw error;
    }
  }

  /** A copy that cannot be kept is no failure of the answer, which is in the log. */
  private async keep(
    { tenant, key, digest }: RepeatableCall & { digest: string },
    { status, headers }: Response,
    body: Uint8Array,
  ): Promise<void> {
    const { stores, clock, logger } = this.deps;
    if (body.byteLength > LIMITS.keptAnswerBytesMax) return;
    const own = [...headers].filter(([name]) => KEPT_HEADERS.test(name));
    try {
      await stores.answers.keep({
        tenant,
        key,
        digest,
        status,
        headers: Object.fromEntries(own),
        body,
        createdAt: clock.now(),
      });
    } catch (thrown) {
      logger.error({ err: toAppError(thrown) }, 'an answer could not be kept for its key');
    }
  }

  /** Waits for the end of the first call. @throws AppError idempotency_key_in_use */
  private async end(running: Running, { key, signal }: RepeatableCall): Promise<void> {
    let stop = (): void => undefined;
    const stopped = new Promise<'stopped'>((resolve) => (stop = () => resolve('stopped')));
    const timer = setTimeout(stop, this.deps.idempotencyWaitMs ?? LIMITS.idempotencyWaitMs);
    signal.addEventListener('abort', stop, { once: true });
    try {
      if ((await Promise.race([running.ended, stopped])) !== 'stopped') return;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
    if (signal.aborted) throw new AppError('request_cancelled', 'the client went away');
    throw new AppError(
      'idempotency_key_in_use',
      `Idempotency-Key: the first call with '${key}' has no answer yet`,
      { param: 'Idempotency-Key', retryAfterS: LIMITS.retryAfterS },
    );
  }
}

function conflict({ key }: RepeatableCall): AppError {
  return new AppError(
    'idempotency_conflict',
    `Idempotency-Key: '${key}' was used before for a call with other content`,
    { param: 'Idempotency-Key' },
  );
}

function replayed({ status, headers, body }: KeptAnswer): Response {
  const copy = Uint8Array.from(body);
  return new Response(copy, { status, headers: { ...headers, 'idempotent-replayed': 'true' } });
}

/**
 * Passes a stream on and has it kept before its last frame goes out. A stream without that frame
 * was cut or failed: it is not kept. `over` is called at the end, of whatever kind, maybe twice.
 */
function recorded(
  body: ReadableStream<Uint8Array>,
  {
    keep,
    over,
    goesOn,
  }: { keep: (bytes: Uint8Array) => Promise<void>; over: () => void; goesOn: boolean },
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const frames: Uint8Array[] = [];
  let size = 0;
  /** Null behind the last one. */
  const next = async (): Promise<Uint8Array | null> => {
    const { done, value } = await reader.read();
    if (done) {
      over();
      return null;
    }
    // Comments only keep the connection alive.
    if (value[0] !== COMMENT && size <= LIMITS.keptAnswerBytesMax) {
      frames.push(value);
      size += value.byteLength;
    }
    if (LAST_FRAME.test(Buffer.from(value.subarray(0, FRAME_START)).toString())) {
      await keep(Buffer.concat(frames));
      over();
    }
    return value;
  };
  const rest = async (): Promise<void> => {
    while ((await next()) !== null);
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        // It may fail while nobody reads.
        reader.closed.catch((error: unknown) => {
          over();
          controller.error(error);
        });
      },
      async pull(controller) {
        const frame = await next();
        if (frame === null) controller.close();
        else controller.enqueue(frame);
      },
      cancel(reason) {
        // A failure of the rest has no one to be told to.
        if (goesOn) return void rest().catch(() => undefined);
        over();
        return reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}

const COMMENT = must(':'.codePointAt(0), 'a character');
/** Bytes of a frame that say which one it is. */
const FRAME_START = 64;
