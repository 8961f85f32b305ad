/**
 * Text files line by line, either way, in bounded memory; a name that ends in `.gz` is compressed,
 * `-` is stdin or stdout. A file is written under a temporary name and renamed when it is whole, so
 * that a command that was cut short leaves no half file that looks like a whole one.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';

/** @throws AppError storage_failed; invalid_request for a line over LIMITS.fileLineCharsMax. */
export async function* readLines(path: string, stdin: Readable): AsyncGenerator<string> {
  const source = path === '-' ? stdin : createReadStream(path);
  const packed = path.endsWith('.gz');
  const text: Readable = packed ? createGunzip() : source;
  // The end of one stream must end the other, with its error.
  const piped = packed ? pipeline(source, text as ReturnType<typeof createGunzip>) : null;
  piped?.catch(() => undefined);
  text.setEncoding('utf8');
  let rest = '';
  let number = 1;
  try {
    for await (const piece of text as AsyncIterable<string>) {
      const lines = (rest + piece).split('\n');
      rest = lines.pop() as string;
      if (rest.length > LIMITS.fileLineCharsMax) throw tooLong(path, number + lines.length);
      number += lines.length;
      yield* lines;
    }
  } catch (thrown) {
    throw fileError('read', path, thrown);
  }
  if (rest !== '') yield rest;
}

/** Writes all lines, which have their ends. When aborted rejects and leaves no file. */
export async function writeLines(
  path: string,
  lines: AsyncIterable<string | Uint8Array>,
  options: { stdout: Writable; signal: AbortSignal },
): Promise<void> {
  const source = Readable.from(lines);
  const { stdout, signal } = options;
  if (path === '-') return pipeline(source, stdout, { signal, end: false });
  const partial = `${path}.part`;
  try {
    const file = createWriteStream(partial);
    if (path.endsWith('.gz')) await pipeline(source, createGzip(), file, { signal });
    else await pipeline(source, file, { signal });
    await rename(partial, path);
  } catch (thrown) {
    await rm(partial, { force: true });
    throw fileError('write', path, thrown);
  }
}

function tooLong(path: string, line: number): AppError {
  const max = LIMITS.fileLineCharsMax;
  return new AppError('invalid_request', `${path}: line ${line} has more than ${max} characters`);
}

/** What the system says of a file; other errors pass. */
function fileError(action: string, path: string, thrown: unknown): unknown {
  const code = thrown instanceof Error && 'code' in thrown ? thrown.code : null;
  if (thrown instanceof AppError || typeof code !== 'string' || code === 'ABORT_ERR') return thrown;
  const { message } = thrown as Error;
  return new AppError('storage_failed', `cannot ${action} ${path}: ${message}`, { cause: thrown });
}
