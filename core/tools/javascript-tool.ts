/**
 * The tool `javascript`: code of the policy in a sandbox (javascript-sandbox.ts) on a thread of its
 * own. Calls run one after the other. The sandbox gives up at its deadline by itself; a thread that
 * has not answered some time after that is terminated, and the next call gets a new one.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { builtModule } from '../paths.ts';
import type { Tool } from '../ports.ts';
import type { RunMessage, WorkerMessage } from './javascript-protocol.ts';

export interface JavaScriptToolOptions {
  /** Run time of one call, without its wait in the queue. */
  timeoutMs?: number;
  graceMs?: number;
  queueMax?: number;
}

export interface JavaScriptTool extends Tool {
  /** Fails the calls that run or wait and ends the thread. Safe to call twice. */
  stop(): Promise<void>;
}

export function javascriptTool(options: JavaScriptToolOptions = {}): JavaScriptTool {
  const sandbox = new SandboxThread({
    timeoutMs: options.timeoutMs ?? LIMITS.javascriptTimeoutMs,
    graceMs: options.graceMs ?? LIMITS.javascriptGraceMs,
    queueMax: options.queueMax ?? LIMITS.toolQueueMax,
  });
  return {
    name: 'javascript',
    description:
      'Runs JavaScript (or computes an expression such as 12+5*3) and returns what it prints and ' +
      'the value of the last expression. There is no network, no file system and no modules.',
    parameters: {
      type: 'object',
      properties: { code: { type: 'string', description: 'A program or an expression.' } },
      required: ['code'],
      additionalProperties: false,
    },
    primaryArgument: 'code',
    effects: 'none',
    timeoutMs: LIMITS.toolTimeoutMs,
    // So calls wait where callers take turns, and not in front of those of other tools.
    concurrencyMax: 1,
    run: (args, signal) => sandbox.run(args.code as string, signal),
    stop: () => sandbox.stop(),
  };
}

interface Job {
  readonly id: number;
  readonly code: string;
  settle(outcome: string | AppError): void;
}

type ThreadState = 'none' | 'starting' | 'idle' | 'running' | 'stopped';

class SandboxThread {
  private state: ThreadState = 'none';
  private worker: Worker | null = null;
  private current: Job | null = null;
  private queue: Job[] = [];
  private timer: NodeJS.Timeout | null = null;
  private lastId = 0;
  private readonly options: Required<JavaScriptToolOptions>;

  constructor(options: Required<JavaScriptToolOptions>) {
    this.options = options;
  }

  run(code: string, signal: AbortSignal): Promise<string> {
    if (signal.aborted) return Promise.reject(cancelled());
    if (this.state === 'stopped') return Promise.reject(failed('the sandbox is stopped'));
    if (this.queue.length >= this.options.queueMax) {
      return Promise.reject(failed(`${this.queue.length} calls wait for the sandbox already`));
    }
    return new Promise((resolve, reject) => {
      // Code that runs already is left to its deadline; only its caller stops waiting.
      const onAbort = (): void => {
        this.queue = this.queue.filter((waiting) => waiting !== job);
        job.settle(cancelled());
      };
      const job: Job = {
        id: ++this.lastId,
        code,
        settle: (outcome) => {
          signal.removeEventListener('abort', onAbort);
          if (typeof outcome === 'string') resolve(outcome);
          else reject(outcome);
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.queue.push(job);
      this.pump();
    });
  }

  async stop(): Promise<void> {
    this.state = 'stopped';
    const worker = this.detach();
    this.failAll(failed('the sandbox was stopped'));
    const patience = delay(LIMITS.workerStopTimeoutMs, undefined, { ref: false });
    await Promise.race([worker?.terminate(), patience]);
  }

  /** Starts a thread if there is none, and the next call if the thread is idle. */
  private pump(): void {
    if (this.queue.length === 0) return;
    if (this.state === 'none') this.start();
    if (this.state !== 'idle') return;
    const job = this.queue.shift() as Job;
    const { timeoutMs, graceMs } = this.options;
    this.state = 'running';
    this.current = job;
    this.setTimer(timeoutMs + graceMs, () => {
      const message = `the code did not stop within ${timeoutMs} ms`;
      this.replace(new AppError('tool_timeout', message));
    });
    const message: RunMessage = { type: 'run', id: job.id, code: job.code, timeoutMs };
    this.worker?.postMessage(message);
  }

  private start(): void {
    const worker = new Worker(builtModule(import.meta.url, './javascript-worker.ts'), {
      env: {},
      argv: [],
      execArgv: [],
      // What WebAssembly prints when it aborts is no line of the server's log.
      stdout: true,
      stderr: true,
      // Deep recursion must end in QuickJS's own stack check, before the thread's stack is used up.
      resourceLimits: { stackSizeMb: 16, maxOldGenerationSizeMb: 64 },
    });
    // A pending call holds the process by its timer; an idle thread must not.
    worker.unref();
    worker.stdout.resume();
    worker.stderr.resume();
    this.worker = worker;
    this.state = 'starting';
    worker.on('message', (message: WorkerMessage) => {
      if (worker === this.worker) this.receive(message);
    });
    const died = (what: string): void => {
      if (worker === this.worker) this.replace(failed(`the sandbox died: ${what}`));
    };
    worker.on('error', (error) => died(String(error)));
    worker.on('exit', (code) => died(`exit code ${code}`));
    this.setTimer(LIMITS.workerStartTimeoutMs, () =>
      this.replace(failed('no sandbox: slow start')),
    );
  }

  private receive(message: WorkerMessage): void {
    this.clearTimer();
    const job = this.current;
    this.current = null;
    this.state = 'idle';
    if (message.type === 'done' && job !== null) {
      const { result } = message;
      if (result.ok) job.settle(result.text);
      else if (result.reason === 'timeout')
        job.settle(new AppError('tool_timeout', result.message));
      else job.settle(failed(result.message));
      if (message.broken) this.terminate();
    }
    this.pump();
  }

  /**
   * Gives up the thread. If it never got ready, the waiting calls fail too: no endless restarts.
   */
  private replace(error: AppError): void {
    const neverReady = this.state === 'starting';
    this.terminate();
    this.current?.settle(error);
    this.current = null;
    if (neverReady) this.failAll(error);
    this.pump();
  }

  private terminate(): void {
    // The promise rejects never; the events of a detached worker are ignored.
    void this.detach()?.terminate();
    this.state = 'none';
  }

  private detach(): Worker | null {
    const { worker } = this;
    this.worker = null;
    this.clearTimer();
    return worker;
  }

  private failAll(error: AppError): void {
    const jobs = this.current === null ? this.queue : [this.current, ...this.queue];
    this.current = null;
    this.queue = [];
    for (const job of jobs) job.settle(error);
  }

  private setTimer(ms: number, expire: () => void): void {
    this.clearTimer();
    this.timer = setTimeout(expire, ms);
  }

  private clearTimer(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }
}

function failed(message: string): AppError {
  return new AppError('tool_failed', message);
}

function cancelled(): AppError {
  return new AppError('request_cancelled', 'the call was cancelled');
}
