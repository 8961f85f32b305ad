/**
 * The server's side of the policy worker, a child process. It mirrors just enough (loaded versions,
 * lengths, counts) to refuse what cannot work at once, and everything else is a message. When the
 * worker dies, however it dies, what ran on it fails with `engine_unavailable`, and a new worker
 * loads the same versions.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as setTimeoutAsync } from 'node:timers/promises';
import { anySignal } from '../any-signal.ts';
import { AppError, toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Logger } from '../log.ts';
import { builtModule } from '../paths.ts';
import type { OpenOptions, SampleRequest, SampleResult, Sequence } from '../ports.ts';
import { defaultKvBytes } from './kv-memory.ts';
import { notLoaded, requireQueueSlot, requireSequenceSlot } from './refusals.ts';
import { RemoteSequence, type RemoteEngine } from './remote-sequence.ts';
import type { EngineStats, PolicyEngine } from './types.ts';
import type { FromWorker, ToWorker, WireError, WorkerSettings } from './worker-protocol.ts';

export interface PolicyEngineOptions extends WorkerSettings {
  logger: Logger;
}

interface PendingCall {
  resolve(contextTokens: number): void;
  reject(error: AppError): void;
}

interface PendingSample {
  request: SampleRequest;
  resolve(result: SampleResult): void;
  reject(error: AppError): void;
}

interface LoadedVersion {
  directory: string;
  contextTokens: number;
  /** False when the present worker could not load it. */
  available: boolean;
}

/** Starts the worker. Throws engine_unavailable when it does not come up in time. */
export async function startPolicyEngine(options: PolicyEngineOptions): Promise<PolicyEngine> {
  const engine = new WorkerEngine(options);
  await engine.start();
  return engine;
}

class WorkerEngine implements PolicyEngine, RemoteEngine {
  private readonly options: PolicyEngineOptions;
  private readonly versions = new Map<number, LoadedVersion>();
  private readonly calls = new Map<number, PendingCall>();
  private readonly samples = new Map<number, PendingSample>();
  private worker: ChildProcess | null = null;
  private state: EngineStats['state'] = 'starting';
  /** Counts workers: a sequence of a dead one is recognised by its epoch. */
  private epoch = 0;
  private nextId = 1;
  private openSequences = 0;

  constructor(options: PolicyEngineOptions) {
    // Once for all workers: a restart must not shrink the windows that requests are checked
    // against.
    this.options = { ...options, kvBytesMax: options.kvBytesMax ?? defaultKvBytes() };
  }

  async start(): Promise<void> {
    this.epoch++;
    this.openSequences = 0;
    const { device, threads, dtype, kvBytesMax } = this.options;
    const settings: WorkerSettings = { device, threads, dtype, kvBytesMax };
    const worker = fork(builtModule(import.meta.url, './worker.ts'), [JSON.stringify(settings)], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      execArgv: [],
    });
    this.worker = worker;
    worker.on('exit', (code, signal) => this.exited(worker, signal ?? `exit code ${code}`));
    await started(worker);
    try {
      if (this.isStopped()) throw gone('the server is stopping');
      await this.adopt(worker);
    } catch (error) {
      await killed(worker);
      throw error;
    }
  }

  /** Listens to a worker and gives it the versions that the server counts on. */
  private async adopt(worker: ChildProcess): Promise<void> {
    worker.on('message', (message) => this.receive(message as FromWorker));
    worker.on('error', (error) =>
      this.options.logger.error({ err: error }, 'the policy worker failed'),
    );
    let failure: AppError | null = null;
    for (const [version, loaded] of this.versions) {
      try {
        const { directory } = loaded;
        const call = this.nextId++;
        loaded.contextTokens = await this.call({ type: 'load', call, version, directory });
        loaded.available = true;
      } catch (thrown) {
        failure = toAppError(thrown);
        loaded.available = false;
        this.options.logger.error({ err: failure, version }, 'a version could not be loaded again');
      }
    }
    // One broken version must not take the others with it.
    const served = [...this.versions.values()].some(({ available }) => available);
    if (failure !== null && (!served || !worker.connected)) throw failure;
    if (this.isStopped()) throw gone('the server is stopping');
    this.state = 'ready';
  }

  async load(version: number, directory: string): Promise<void> {
    const call = this.nextId++;
    const contextTokens = await this.call({ type: 'load', call, version, directory });
    this.versions.set(version, { directory, contextTokens, available: true });
  }

  async unload(version: number): Promise<void> {
    if (!this.versions.delete(version)) return;
    await this.call({ type: 'unload', call: this.nextId++, version });
  }

  open({ policyVersion, priority = 'live' }: OpenOptions): Sequence {
    const version = this.versions.get(policyVersion);
    if (version === undefined) throw notLoaded(policyVersion);
    if (!version.available) throw gone(`policy version ${policyVersion} could not be loaded again`);
    const id = this.claimSequence();
    this.send({ type: 'open', sequence: id, version: policyVersion, priority });
    return new RemoteSequence(this, this.epoch, id, policyVersion, version.contextTokens, 0);
  }

  stats(): EngineStats {
    const running = Math.min(this.samples.size, LIMITS.batchRowsMax);
    return {
      state: this.state,
      pid: this.worker?.pid ?? null,
      versions: [...this.versions].flatMap(([version, { available }]) =>
        available ? [version] : [],
      ),
      openSequences: this.openSequences,
      queued: this.samples.size - running,
      running,
    };
  }

  async stop(): Promise<void> {
    if (this.state === 'stopped') return;
    const { worker } = this;
    this.state = worker === null ? 'stopped' : 'stopping';
    if (worker === null) return;
    this.rejectSamples('the server is stopping');
    const asked = this.call({ type: 'stop', call: this.nextId++ }).catch(() => 0);
    const limit = AbortSignal.timeout(LIMITS.workerStopTimeoutMs);
    await Promise.race([asked, once(limit, 'abort')]);
    // Its sessions are closed, or it hangs: a process can always be killed, in the middle of a
    // native call too. (A thread cannot: its end during `session.run` takes the process with it.)
    await killed(worker);
    this.state = 'stopped';
    this.worker = null;
  }

  /** @internal A sequence number, or queue_full. */
  claimSequence(): number {
    if (this.state !== 'ready') {
      throw gone(`the policy worker is ${this.state}`);
    }
    requireSequenceSlot(this.openSequences, LIMITS.sequencesMax);
    this.openSequences++;
    return this.nextId++;
  }

  /** @internal */
  releaseSequence(epoch: number, id: number): void {
    if (epoch !== this.epoch) return;
    this.openSequences--;
    // A sample that was rejected because the engine stops may still run in the worker.
    if (!this.isStopped()) this.send({ type: 'close', sequence: id });
  }

  /** @internal Sends on behalf of a sequence, unless its worker is gone. */
  sendFor(epoch: number, message: ToWorker): void {
    if (epoch !== this.epoch || this.worker === null) {
      throw gone('the policy worker of this conversation is gone');
    }
    if (this.isStopped()) throw gone('the server is stopping');
    this.send(message);
  }

  /** @internal */
  sample(epoch: number, sequence: number, request: SampleRequest): Promise<SampleResult> {
    requireQueueSlot(this.samples.size - LIMITS.batchRowsMax, LIMITS.sampleQueueMax);
    const id = this.nextId++;
    const { maxTokens, sampling, stopTokens, stopTexts = [], likeliest = 0, signal } = request;
    const limitMs = Math.min(request.deadlineMs ?? Infinity, LIMITS.sampleTimeoutMs);
    this.sendFor(epoch, {
      type: 'sample',
      sequence,
      sample: id,
      maxTokens,
      sampling,
      stopTokens,
      stopTexts,
      likeliest,
      streamed: request.onTokens !== undefined,
    });
    return new Promise<SampleResult>((resolve, reject) => {
      const cancel = () => {
        if (epoch === this.epoch) this.send({ type: 'cancel', sample: id });
      };
      let late: AppError | null = null;
      let timer = setTimeout(() => {
        late = new AppError('request_timeout', `no answer within ${limitMs} ms`);
        cancel();
        // Its sequence is not free before the worker says so; one that says nothing hangs.
        timer = setTimeout(() => this.worker?.kill('SIGKILL'), LIMITS.workerSilenceMs);
      }, limitMs);
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', cancel);
      };
      this.samples.set(id, {
        request,
        resolve: (result) => (done(), late === null ? resolve(result) : reject(late)),
        reject: (error) => (done(), reject(late ?? error)),
      });
      signal?.addEventListener('abort', cancel);
    });
  }

  private call(message: Extract<ToWorker, { call: number }>): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.worker?.connected !== true) throw gone('the policy worker is not running');
      const timer = setTimeout(() => {
        this.calls.delete(message.call);
        reject(gone(`the policy worker did not ${message.type} in time`));
      }, LIMITS.workerCallTimeoutMs);
      this.calls.set(message.call, {
        resolve: (contextTokens) => (clearTimeout(timer), resolve(contextTokens)),
        reject: (error) => (clearTimeout(timer), reject(error)),
      });
      this.send(message);
    });
  }

  private send(message: ToWorker): void {
    // A closed channel is not an error here: the exit that goes with it rejects what waits.
    if (this.worker?.connected === true) this.worker.send(message, () => undefined);
  }

  private receive(message: FromWorker): void {
    if (message.type === 'tokens') {
      this.samples.get(message.sample)?.request.onTokens?.(message.piece);
    } else if (message.type === 'sampled') {
      this.settle(message.sample)?.resolve(message.result);
    } else if (message.type === 'failed') {
      this.settle(message.sample)?.reject(fromWire(message.error));
    } else if (message.type === 'done') {
      const call = this.calls.get(message.call); // None when it came too late.
      this.calls.delete(message.call);
      if (message.error === null) call?.resolve(message.contextTokens);
      else call?.reject(fromWire(message.error));
    }
  }

  private settle(id: number): PendingSample | undefined {
    const sample = this.samples.get(id);
    this.samples.delete(id);
    return sample;
  }

  private exited(worker: ChildProcess, how: string): void {
    if (worker !== this.worker) return;
    this.worker = null;
    const reason = this.isStopped() ? 'the server is stopping' : 'the policy worker stopped';
    this.rejectSamples(reason);
    this.rejectCalls(reason);
    if (this.isStopped()) return;
    this.options.logger.error({ how }, reason);
    // One that dies at its start is the matter of whoever starts it.
    if (this.state === 'ready') void this.restart();
  }

  /** Tries again, ever later: a policy that kills its worker must not keep a core busy. */
  private async restart(): Promise<void> {
    const delays = LIMITS.workerRestartDelaysMs;
    this.state = 'starting';
    for (let attempt = 0; !this.isStopped(); attempt++) {
      const delayMs = delays[Math.min(attempt, delays.length - 1)];
      await setTimeoutAsync(delayMs, undefined, { ref: false });
      if (this.isStopped()) return;
      try {
        return await this.start();
      } catch (thrown) {
        this.options.logger.error({ err: toAppError(thrown) }, 'the policy worker did not restart');
      }
    }
  }

  /** Asked through a function: the state changes while others wait. */
  private isStopped(): boolean {
    return this.state === 'stopping' || this.state === 'stopped';
  }

  private rejectCalls(reason: string): void {
    for (const call of this.calls.values()) call.reject(gone(reason));
    this.calls.clear();
  }

  private rejectSamples(reason: string): void {
    for (const sample of [...this.samples.values()]) sample.reject(gone(reason));
    this.samples.clear();
  }
}

/** Waits for its first message. Throws engine_unavailable when none comes. */
async function started(worker: ChildProcess): Promise<void> {
  const settled = new AbortController();
  const limit = AbortSignal.timeout(LIMITS.workerStartTimeoutMs);
  const signal = anySignal([settled.signal, limit]);
  const ended = once(worker, 'exit', { signal }).then(([code, name]) => {
    throw new Error(`it ended by ${name ?? `exit code ${code}`}`);
  });
  try {
    await Promise.race([once(worker, 'message', { signal }), ended]);
  } catch (cause) {
    worker.kill('SIGKILL');
    const reason = limit.aborted ? 'no sign of life in time' : (cause as Error).message;
    throw new AppError('engine_unavailable', `the policy worker did not start: ${reason}`, {
      cause,
    });
  } finally {
    ended.catch(() => undefined);
    settled.abort();
  }
}

async function killed(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null || worker.signalCode !== null) return;
  const exit = once(worker, 'exit', { signal: AbortSignal.timeout(LIMITS.workerStopTimeoutMs) });
  worker.kill('SIGKILL');
  await exit;
}

function gone(reason: string): AppError {
  return new AppError('engine_unavailable', reason, { retryAfterS: LIMITS.retryAfterS });
}

function fromWire({ code, message, param }: WireError): AppError {
  const { retryAfterS } = LIMITS;
  return new AppError(code, message, { retryAfterS, ...(param !== null && { param }) });
}
