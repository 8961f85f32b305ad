/**
 * An export as a stream of bytes: starts its thread (export-thread.ts), passes on what comes, in
 * step with the client, and stops it when the client leaves or takes nothing for too long. A
 * snapshot that is held keeps SQLite from shortening its log, hence the bounds on number and time.
 */
import { Worker } from 'node:worker_threads';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { builtModule } from '../core/paths.ts';
import type { ExportTask, FromExport, ToExport } from './export-protocol.ts';

export interface ExportStream {
  body: ReadableStream<Uint8Array>;
  /** Resolves when the thread has ended: how many trajectories were exported; null: not all. */
  ended: Promise<number | null>;
}

/** Exports that run now. */
let running = 0;

/**
 * Resolves when the first bytes are there, so that what fails at the start can be answered as such.
 * @throws AppError queue_full; storage_failed.
 */
export async function exportStream(task: ExportTask, signal: AbortSignal): Promise<ExportStream> {
  if (running >= LIMITS.exportsMax) {
    throw new AppError('queue_full', `${running} exports run already`, {
      retryAfterS: LIMITS.exportRetryAfterS,
    });
  }
  const thread = new ExportThread(task, signal);
  running++;
  void thread.ended.finally(() => running--);
  await thread.started;
  return { body: thread.body, ended: thread.ended };
}

class ExportThread {
  readonly body: ReadableStream<Uint8Array>;
  readonly started: Promise<void>;
  readonly ended: Promise<number | null>;
  private readonly worker: Worker;
  private controller!: ReadableStreamDefaultController<Uint8Array>;
  private failStart: (error: Error) => void = () => undefined;
  private stall: NodeJS.Timeout | undefined;
  private count: number | null = null;
  private open = true;

  /** @throws AppError internal: the thread is not built. */
  constructor(task: ExportTask, signal: AbortSignal) {
    // First: the stream asks for chunks, and so for the thread, while it is made.
    this.worker = new Worker(builtModule(import.meta.url, './export-thread.ts'), {
      workerData: task,
    });
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.controller = controller),
        pull: () => this.pulled(),
        cancel: () => this.stop(),
      },
      { highWaterMark: LIMITS.exportChunksAhead },
    );
    const gone = (): void => {
      this.fail(new AppError('request_cancelled', 'the client left, or the server stops'));
    };
    signal.addEventListener('abort', gone, { once: true });
    this.started = new Promise((resolve, reject) => {
      this.failStart = reject;
      this.worker.once('message', (message: FromExport) => {
        if (message.type === 'failed') reject(new AppError(message.code, message.message));
        else resolve();
      });
      this.worker.once('error', reject);
    });
    // Who waits for the start is told; nobody else is in the meantime.
    this.started.catch(() => undefined);
    this.ended = new Promise((resolve) => {
      this.worker.once('exit', () => {
        signal.removeEventListener('abort', gone);
        this.fail(new AppError('internal', 'internal: the thread of an export ended early'));
        resolve(this.count);
      });
    });
    this.worker.on('message', (message: FromExport) => this.receive(message));
    this.worker.on('error', (error) => this.fail(error));
    if (signal.aborted) gone();
    this.watch();
  }

  private receive(message: FromExport): void {
    if (!this.open) return;
    if (message.type === 'chunk') {
      this.controller.enqueue(message.bytes);
      this.watch();
    } else if (message.type === 'end') {
      this.close();
      this.count = message.trajectories;
      this.controller.close();
    } else {
      this.fail(new AppError(message.code, message.message));
    }
  }

  /** The client has taken what was there. */
  private pulled(): void {
    if (!this.open) return;
    this.watch();
    this.post({ type: 'next' });
  }

  /** Ends the stream with an error, so that half an export does not look like a whole one. */
  private fail(error: Error): void {
    if (!this.open) return;
    this.stop();
    this.failStart(error);
    this.controller.error(error);
  }

  private stop(): void {
    if (!this.open) return;
    this.close();
    this.post({ type: 'stop' });
  }

  private close(): void {
    this.open = false;
    clearTimeout(this.stall);
  }

  /** From the last sign of life of either side on. */
  private watch(): void {
    clearTimeout(this.stall);
    const limitMs: number = LIMITS.exportStallMs;
    this.stall = setTimeout(() => {
      this.fail(new AppError('request_timeout', `nothing was read for ${limitMs} ms`));
    }, limitMs);
    this.stall.unref();
  }

  private post(message: ToExport): void {
    this.worker.postMessage(message);
  }
}
