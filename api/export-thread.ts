/**
 * The thread of one export: reads the log by a connection of its own and writes its lines, so that
 * the server's thread only passes bytes on. Started only by export-stream.ts; the messages are
 * those of export-protocol.ts.
 */
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { constants, createGzip } from 'node:zlib';
import { must } from '../core/assert.ts';
import { toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { LogReader } from '../db/log-reader.ts';
import { openForReading } from '../db/open.ts';
import type { ExportTask, FromExport, ToExport } from './export-protocol.ts';
import { exportChunks } from './trajectory-export.ts';

const port = must(parentPort, 'export-thread.ts runs in a worker thread');
const { path, filter, compressed } = workerData as ExportTask;
const stopped = new AbortController();
let ahead: number = LIMITS.exportChunksAhead;
let trajectories = 0;

port.on('message', (message: ToExport) => {
  if (message.type === 'next') ahead++;
  else stopped.abort();
});

/** Leaves the thread to others after each chunk, so that `stop` is heard. */
async function* chunks(): AsyncGenerator<Uint8Array> {
  const db = openForReading(path);
  try {
    for (const chunk of exportChunks(new LogReader(db), filter, LIMITS.exportChunkBytes)) {
      trajectories += chunk.trajectories;
      yield chunk.bytes;
      await nextTurn(undefined, { signal: stopped.signal });
    }
  } finally {
    db.close();
  }
}

/** Its compression runs in threads of its own, beside the reading. */
function gzipped(lines: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const gzip = createGzip({ level: constants.Z_BEST_SPEED, chunkSize: LIMITS.exportChunkBytes });
  const source = Readable.from(lines, { objectMode: true, highWaterMark: 1 });
  source.on('error', (error) => gzip.destroy(error));
  return source.pipe(gzip) as AsyncIterable<Uint8Array>;
}

/** Of its own memory, which can be moved. */
function movable(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = bytes.byteLength === bytes.buffer.byteLength;
  return whole ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes);
}

try {
  for await (const chunk of compressed ? gzipped(chunks()) : chunks()) {
    while (ahead <= 0) await once(port, 'message', { signal: stopped.signal });
    if (stopped.signal.aborted) break;
    ahead--;
    const bytes = movable(chunk);
    port.postMessage({ type: 'chunk', bytes } satisfies FromExport, [bytes.buffer]);
  }
  port.postMessage({ type: 'end', trajectories } satisfies FromExport);
} catch (thrown) {
  const { code, message } = toAppError(thrown);
  if (!stopped.signal.aborted) {
    port.postMessage({ type: 'failed', code, message } satisfies FromExport);
  }
} finally {
  port.close();
}
