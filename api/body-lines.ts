/**
 * A streamed request body line by line, as it comes, in bounded memory: UTF-8, compressed or not.
 * Whatever is wrong with the bytes is told with the number of the line.
 */
import { createGunzip } from 'node:zlib';
import { Readable } from 'node:stream';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

export interface Line {
  /** From 1; blank lines count. */
  number: number;
  text: string;
}

export interface BodyLinesOptions {
  /** Of the Content-Encoding header. */
  compressed: boolean;
  /** Of the text, after it was unpacked. */
  bytesMax: number;
  signal: AbortSignal;
}

/**
 * Lines without their ends; blank ones are left out.
 * @throws AppError payload_too_large; invalid_request for bytes that are no UTF-8 or no gzip;
 *   request_timeout for a client that sends nothing; request_cancelled.
 */
export async function* bodyLines(
  stream: ReadableStream<Uint8Array> | null,
  { compressed, bytesMax, signal }: BodyLinesOptions,
): AsyncGenerator<Line> {
  if (stream === null) return;
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let [rest, number, bytes] = ['', 0, 0];
  const pieces = compressed ? unpacked(sent(stream, signal)) : sent(stream, signal);
  for await (const piece of pieces) {
    bytes += piece.byteLength;
    if (bytes > bytesMax) throw tooLarge(`the body is larger than ${bytesMax} bytes`);
    const lines = (rest + decoded(decoder, number + 1, piece)).split('\n');
    rest = lines.pop() as string;
    for (const text of lines) {
      number++;
      checkLength(number, text);
      if (text.trim() !== '') yield { number, text };
    }
    checkLength(number + 1, rest);
  }
  rest += decoded(decoder, number + 1);
  if (rest.trim() !== '') yield { number: number + 1, text: rest };
}

function checkLength(number: number, text: string): void {
  const max = LIMITS.importLineCharsMax;
  if (text.length > max) throw tooLarge(`line ${number} has more than ${max} characters`);
}

/** What the client sends, with a limit on its silence. */
async function* sent(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), {
        signal,
        limitMs: LIMITS.importStallMs,
      });
      if (done) return;
      yield value;
    }
  } finally {
    // What was not read is not wanted any more; the connection may be gone already.
    await reader.cancel().catch(() => undefined);
  }
}

/** Waits for what a client sends. @throws AppError request_timeout, request_cancelled */
export async function within<T>(
  work: Promise<T>,
  { signal, limitMs }: { signal: AbortSignal; limitMs: number },
): Promise<T> {
  let end: () => void = () => undefined;
  const silence = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => {
      reject(new AppError('request_timeout', `it was not sent within ${limitMs} ms`));
    }, limitMs);
    const left = (): void => reject(new AppError('request_cancelled', 'the client left'));
    signal.addEventListener('abort', left, { once: true });
    if (signal.aborted) left();
    end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', left);
    };
  });
  return Promise.race([work, silence]).finally(end);
}

async function* unpacked(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const packed = Readable.from(source);
  const gunzip = createGunzip();
  packed.on('error', (error) => gunzip.destroy(error));
  try {
    yield* packed.pipe(gunzip) as AsyncIterable<Uint8Array>;
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    const why = cause instanceof Error ? cause.message : '';
    throw new AppError('invalid_request', `the body is not valid gzip: ${why}`, { cause });
  } finally {
    packed.destroy();
  }
}

function decoded(
  decoder: InstanceType<typeof TextDecoder>,
  number: number,
  piece?: Uint8Array,
): string {
  try {
    return decoder.decode(piece, { stream: piece !== undefined });
  } catch (cause) {
    const message = `line ${number} or one soon after it is not valid UTF-8`;
    throw new AppError('invalid_request', message, { param: `line ${number}`, cause });
  }
}

function tooLarge(why: string): AppError {
  return new AppError('payload_too_large', why);
}
