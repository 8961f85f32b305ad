/**
 * The engine's side of a lane thread (lane-protocol.ts): starts it, runs one part of a batch at a
 * time in it, and stops it. A thread that fails to answer is gone for good: its run rejects with
 * `engine_unavailable`, and `alive` is false from then on. It is never terminated: that aborts the
 * whole process when it happens inside `session.run`; a thread that hangs ends with the process.
 */
import { setTimeout as setTimeoutAsync } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { assert } from '../assert.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Feeds, TensorLike } from '../model/session.ts';
import { builtModule } from '../paths.ts';
import { buffersOf } from './lane-buffers.ts';
import type { FromLane, LaneSettings, ToLane } from './lane-protocol.ts';

interface Waiting {
  resolve(answer: FromLane): void;
  reject(error: AppError): void;
  timer: NodeJS.Timeout;
}

export class LaneThread {
  private readonly worker: Worker;
  private waiting: Waiting | null = null;
  private ended = false;

  private constructor(settings: LaneSettings) {
    this.worker = new Worker(builtModule(import.meta.url, './lane-worker.ts'), {
      workerData: settings,
    });
    // The engine's own work keeps the process alive, not an idle lane.
    this.worker.unref();
    this.worker.on('message', (answer: FromLane) => this.settle()?.resolve(answer));
    this.worker.on('error', (error) => this.end(error.message));
    this.worker.on('exit', (code) => this.end(`exit code ${code}`));
  }

  /** Throws engine_unavailable when the thread does not come up in time. */
  static async start(settings: LaneSettings): Promise<LaneThread> {
    const thread = new LaneThread(settings);
    const answer = await thread.answer(LIMITS.workerStartTimeoutMs);
    if (answer.type === 'ready') return thread;
    await thread.dispose();
    const reason = answer.type === 'failed' ? answer.message : answer.type;
    throw new AppError('engine_unavailable', `a lane thread did not start: ${reason}`);
  }

  get alive(): boolean {
    return !this.ended;
  }

  /**
   * Runs the decode graph on `feeds` and `lent`. The buffers of `lent` belong to the thread until
   * `giveBack` is called with them; it is not called when the thread died with them.
   */
  async run(feeds: Feeds, lent: Feeds, giveBack: (lent: Feeds) => void) {
    assert(this.waiting === null, 'a lane runs one part at a time');
    const message: ToLane = { type: 'run', feeds, lent };
    const answered = this.answer(LIMITS.laneRunTimeoutMs);
    this.worker.postMessage(message, buffersOf(lent));
    const answer = await answered;
    assert(answer.type !== 'ready', 'a lane is ready once');
    giveBack(answer.lent);
    if (answer.type === 'done') return answer.outputs satisfies Record<string, TensorLike>;
    throw new AppError('internal', `internal: a lane failed: ${answer.message}`);
  }

  async dispose(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    const exited = new Promise<void>((resolve) => this.worker.once('exit', () => resolve()));
    this.worker.ref();
    this.worker.postMessage({ type: 'stop' } satisfies ToLane);
    await Promise.race([exited, setTimeoutAsync(LIMITS.workerStopTimeoutMs, null, { ref: false })]);
    this.worker.unref();
  }

  private answer(limitMs: number): Promise<FromLane> {
    if (this.ended) return Promise.reject(gone('it has ended'));
    // While an answer is due, the thread counts as the process's work.
    this.worker.ref();
    return new Promise((resolve, reject) => {
      const late = `no answer within ${limitMs} ms`;
      const timer = setTimeout(() => this.end(late), limitMs);
      this.waiting = { resolve, reject, timer };
    });
  }

  private end(reason: string): void {
    this.ended = true;
    this.settle()?.reject(gone(reason));
  }

  private settle(): Waiting | null {
    const { waiting } = this;
    this.waiting = null;
    if (waiting !== null) clearTimeout(waiting.timer);
    this.worker.unref();
    return waiting;
  }
}

function gone(reason: string): AppError {
  return new AppError('engine_unavailable', `a lane thread of the engine is gone: ${reason}`);
}
