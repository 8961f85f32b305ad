/**
 * The engine in this thread: sequences over several policy versions, continuous batching. A request
 * joins the batch at the next chunk and leaves when it is done; long prompts are prefilled in
 * pieces between chunks, so they do not stall the others. The server runs it in a child process
 * (worker.ts); the trainer uses it directly.
 *
 * Guarantee: the random draws of a sample depend on its seed and token positions alone. Two runs of
 * the same request can still differ in the last bits of a logit when the batch around them differs
 * (matrix kernels round by shape), and so, rarely, in a token.
 */
import { assert, must } from '../assert.ts';
import { AppError, toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { AdapterPolicy } from '../model/lora-directory.ts';
import type { PolicyModel } from '../model/policy-directory.ts';
import type { Weights } from '../model/types.ts';
import type {
  OpenOptions,
  Priority,
  SampleRequest,
  SampleResult,
  Sampler,
  Sequence,
} from '../ports.ts';
import { BatchModel, type DecodedRow } from './batch-model.ts';
import { SequenceKv } from './kv-cache.ts';
import { createPolicySessions, SharedSessions } from './policy-sessions.ts';
import type { PolicySessionOptions } from './policy-sessions.ts';
import { notLoaded, requireQueueSlot, requireRoom, requireSequenceSlot } from './refusals.ts';
import { emptyTokens, joinTokens } from './sampled-tokens.ts';
import type { EngineStats } from './types.ts';

export interface LocalEngineOptions extends PolicySessionOptions {
  batchRowsMax?: number;
  sequencesMax?: number;
  queueMax?: number;
  chunkTokens?: number;
}

/** Tokens of one prefill run over all its rows: bounds its time and memory. */
const PREFILL_RUN_TOKENS = 2_048;
const RANK: Record<Priority, number> = { live: 0, rollout: 1, evaluation: 2 };

interface LoadedVersion {
  model: BatchModel;
  openSequences: number;
  /** No new sequences; the sessions go when the last sequence closes. */
  retired: boolean;
}

interface Job {
  sequence: LocalSequence;
  request: SampleRequest;
  order: number;
  parts: DecodedRow[];
  sampled: number;
  resolve(result: SampleResult): void;
  reject(error: AppError): void;
}

export class LocalEngine implements Sampler {
  private readonly options: Required<LocalEngineOptions>;
  private readonly versions = new Map<number, LoadedVersion>();
  /** Of adapters, by base. */
  private readonly shared = new SharedSessions();
  private readonly jobs = new Set<Job>();
  private openSequences = 0;
  private arrivals = 0;
  private running = 0;
  private pump: Promise<void> | null = null;
  private closed = false;

  constructor(options: LocalEngineOptions) {
    this.options = {
      dtype: 'f32',
      batchRowsMax: LIMITS.batchRowsMax,
      sequencesMax: LIMITS.sequencesMax,
      queueMax: LIMITS.sampleQueueMax,
      chunkTokens: LIMITS.chunkTokens,
      ...options,
    };
  }

  /** The smallest context window of the loaded versions. */
  get contextTokens(): number {
    const windows = [...this.versions.values()].map(({ model }) => model.config.contextTokens);
    return windows.length > 0 ? Math.min(...windows) : 0;
  }

  /**
   * Builds the sessions of a version beside the others; loading a version again replaces it. One
   * that was unloaded while sequences still run on it comes back as it is: a version never changes.
   */
  async load(version: number, policy: PolicyModel | AdapterPolicy): Promise<void> {
    const draining = this.versions.get(version);
    if (draining?.retired) {
      draining.retired = false;
      return;
    }
    const model = await this.build(policy);
    const before = this.versions.get(version);
    assert(
      !before || before.openSequences === 0,
      `version ${version} is in use, cannot replace it`,
    );
    this.versions.set(version, { model, openSequences: 0, retired: false });
    await before?.model.dispose();
  }

  /** No new sequences on the version; its memory goes when the last one closes. */
  async unload(version: number): Promise<void> {
    const loaded = this.versions.get(version);
    if (loaded === undefined) return;
    loaded.retired = true;
    await this.disposeIfDrained(version);
  }

  open({ policyVersion, priority = 'live' }: OpenOptions): Sequence {
    const loaded = this.versions.get(policyVersion);
    if (loaded === undefined || loaded.retired || this.closed) {
      throw notLoaded(policyVersion);
    }
    return this.track(policyVersion, new SequenceKv(loaded.model.config), [], priority);
  }

  stats(): EngineStats {
    return {
      state: this.closed ? 'stopped' : 'ready',
      pid: null,
      versions: [...this.versions].filter(([, v]) => !v.retired).map(([version]) => version),
      openSequences: this.openSequences,
      queued: Math.max(0, this.jobs.size - this.running),
      running: this.running,
    };
  }

  /** Rejects what waits with engine_unavailable and frees the sessions. */
  async close(): Promise<void> {
    this.closed = true;
    await this.pump;
    const error = new AppError('engine_unavailable', 'the engine was stopped');
    for (const job of this.jobs) job.reject(error);
    this.jobs.clear();
    for (const { model } of this.versions.values()) await model.dispose();
    this.versions.clear();
  }

  /** @internal Used by sequences: queues a sample request. */
  submit(sequence: LocalSequence, request: SampleRequest): Promise<SampleResult> {
    requireQueueSlot(this.jobs.size - this.options.batchRowsMax, this.options.queueMax);
    if (this.closed) throw new AppError('engine_unavailable', 'the engine was stopped');
    return new Promise((resolve, reject) => {
      const order = this.arrivals++;
      this.jobs.add({ sequence, request, order, parts: [], sampled: 0, resolve, reject });
      this.pump ??= this.run();
    });
  }

  /** @internal */
  fork(sequence: LocalSequence, length: number): Sequence {
    const { policyVersion, tokens, kv, priority } = sequence;
    return this.track(
      policyVersion,
      kv.copy(Math.min(length, kv.length)),
      tokens.slice(0, length),
      priority,
    );
  }

  /** @internal */
  release(sequence: LocalSequence): void {
    const loaded = must(this.versions.get(sequence.policyVersion), 'version of a sequence');
    loaded.openSequences--;
    this.openSequences--;
    void this.disposeIfDrained(sequence.policyVersion);
  }

  /** @internal */
  contextOf(version: number): number {
    return must(this.versions.get(version), 'version').model.config.contextTokens;
  }

  private track(version: number, kv: SequenceKv, tokens: number[], priority: Priority): Sequence {
    requireSequenceSlot(this.openSequences, this.options.sequencesMax);
    this.openSequences++;
    must(this.versions.get(version), 'version').openSequences++;
    return new LocalSequence(this, version, kv, tokens, priority);
  }

  private async build(policy: PolicyModel | AdapterPolicy): Promise<BatchModel> {
    const create = (weights: Weights, adapters: boolean) =>
      createPolicySessions(policy.config, weights, { ...this.options, adapters });
    if (!('adapter' in policy)) {
      return new BatchModel(policy.config, await create(policy.weights, false), null);
    }
    const { config, adapter, baseKey } = policy;
    const sessions = await this.shared.take(baseKey, () => create(policy.baseWeights(), true));
    return new BatchModel(config, sessions, adapter);
  }

  private async disposeIfDrained(version: number): Promise<void> {
    const loaded = this.versions.get(version);
    if (!loaded?.retired || loaded.openSequences > 0) return;
    this.versions.delete(version);
    await loaded.model.dispose();
  }

  /**
   * Works until no job is left. Between runs the event loop turns once, so that callers can react.
   */
  private async run(): Promise<void> {
    while (this.jobs.size > 0 && !this.closed) {
      for (const [version, { model }] of [...this.versions]) {
        await new Promise(setImmediate);
        this.settleCancelled();
        const jobs = this.pick(version);
        if (jobs.length === 0) continue;
        this.running = jobs.length;
        try {
          await this.prefill(model, jobs);
          await this.decode(model, jobs.filter(isReady));
        } catch (thrown) {
          this.fail(jobs, toAppError(thrown));
        }
      }
    }
    this.running = 0;
    this.pump = null;
  }

  /** The next batch of a version: by priority, then by arrival. */
  private pick(version: number): Job[] {
    return [...this.jobs]
      .filter((job) => job.sequence.policyVersion === version)
      .sort((a, b) => RANK[a.sequence.priority] - RANK[b.sequence.priority] || a.order - b.order)
      .slice(0, this.options.batchRowsMax);
  }

  /** One piece of the prompts that are not cached yet. */
  private async prefill(model: BatchModel, jobs: readonly Job[]): Promise<void> {
    const waiting = jobs.filter((job) => !isReady(job));
    if (waiting.length === 0) return;
    // Rows of similar length share a run; the longest pieces go first.
    waiting.sort((a, b) => missing(b) - missing(a));
    const width = Math.min(missing(waiting[0] as Job), LIMITS.prefillTokensMax);
    const count = Math.max(1, Math.floor(PREFILL_RUN_TOKENS / width));
    const rows = waiting.slice(0, count).map(({ sequence: { kv, tokens } }) => ({
      kv,
      tokens: tokens.slice(kv.length, Math.min(tokens.length - 1, kv.length + width)),
    }));
    await model.prefill(rows);
  }

  private async decode(model: BatchModel, jobs: readonly Job[]): Promise<void> {
    if (jobs.length === 0) return;
    const room = ({ sequence, request, sampled }: Job) =>
      Math.min(request.maxTokens - sampled, model.config.contextTokens - sequence.length);
    const steps = Math.min(this.options.chunkTokens, Math.max(...jobs.map(room)));
    const rows = jobs.map((job) => ({
      kv: job.sequence.kv,
      lastToken: must(job.sequence.tokens.at(-1), 'last token'),
      sampling: job.request.sampling,
      stopTokens: job.request.stopTokens,
      maxTokens: Math.min(steps, room(job)),
    }));
    const results = await model.decode(rows, steps);
    jobs.forEach((job, i) =>
      this.deliver(job, results[i] as DecodedRow, model.config.contextTokens),
    );
  }

  private deliver(job: Job, row: DecodedRow, contextTokens: number): void {
    if (!this.jobs.has(job)) return;
    for (const token of row.tokens) job.sequence.tokens.push(token);
    job.sampled += row.tokens.length;
    job.parts.push(row);
    job.request.onTokens?.(row);
    if (row.stopped) this.finish(job, 'stop');
    else if (job.sampled >= job.request.maxTokens) this.finish(job, 'length');
    else if (job.sequence.length >= contextTokens) this.finish(job, 'context');
  }

  private settleCancelled(): void {
    for (const job of this.jobs) if (job.request.signal?.aborted) this.finish(job, 'cancelled');
  }

  private finish(job: Job, finish: SampleResult['finish']): void {
    this.jobs.delete(job);
    job.resolve({ ...joinTokens(job.parts), finish });
  }

  private fail(jobs: readonly Job[], error: AppError): void {
    for (const job of jobs) {
      if (this.jobs.delete(job)) job.reject(error);
    }
  }
}

/** Tokens to prefill: all but the last, which the decode run itself takes in. */
function missing({ sequence }: Job): number {
  return sequence.length - 1 - sequence.kv.length;
}

function isReady(job: Job): boolean {
  return missing(job) <= 0;
}

class LocalSequence implements Sequence {
  readonly policyVersion: number;
  readonly priority: Priority;
  readonly tokens: number[];
  readonly kv: SequenceKv;
  private readonly engine: LocalEngine;
  private state: 'idle' | 'sampling' | 'closed' = 'idle';

  constructor(
    engine: LocalEngine,
    policyVersion: number,
    kv: SequenceKv,
    tokens: number[],
    priority: Priority,
  ) {
    this.engine = engine;
    this.policyVersion = policyVersion;
    this.kv = kv;
    this.tokens = tokens;
    this.priority = priority;
  }

  get length(): number {
    return this.tokens.length;
  }

  append(tokens: Uint32Array | readonly number[]): void {
    this.requireIdle('append');
    const length = this.tokens.length + tokens.length;
    requireRoom(length, this.engine.contextOf(this.policyVersion));
    for (const token of tokens) this.tokens.push(token);
  }

  async sample(request: SampleRequest): Promise<SampleResult> {
    this.requireIdle('sample');
    assert(this.tokens.length > 0, 'sample: the sequence has no tokens');
    assert(request.maxTokens > 0, 'sample: maxTokens must be positive');
    if (request.signal?.aborted) return { ...emptyTokens(), finish: 'cancelled' };
    // The last token is always run again, as input of the decode graph.
    this.kv.truncate(this.tokens.length - 1);
    this.state = 'sampling';
    try {
      return await this.engine.submit(this, request);
    } finally {
      if (this.state === 'sampling') this.state = 'idle';
    }
  }

  truncate(length: number): void {
    this.requireIdle('truncate');
    assert(length >= 0 && length <= this.tokens.length, `truncate to ${length}`);
    this.tokens.length = length;
    this.kv.truncate(Math.min(length, this.kv.length));
  }

  fork(length: number): Sequence {
    this.requireIdle('fork');
    assert(length > 0 && length <= this.tokens.length, `fork at ${length}`);
    return this.engine.fork(this, length);
  }

  close(): void {
    if (this.state === 'closed') return;
    assert(this.state === 'idle', 'close: the sequence is sampling');
    this.state = 'closed';
    this.engine.release(this);
  }

  private requireIdle(what: string): void {
    assert(this.state === 'idle', `${what}: the sequence is ${this.state}`);
  }
}

/** A trainer's engine: one version whose weights, or adapter, an optimiser changes in place. */
export async function createLocalEngine(
  options: (PolicyModel | AdapterPolicy) & LocalEngineOptions & { version: number },
) {
  const engine = new LocalEngine(options);
  await engine.load(options.version, options);
  return Object.assign(engine, { reload: () => engine.load(options.version, options) });
}
