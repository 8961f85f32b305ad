/**
 * The engine in this thread: sequences over several policy versions, continuous batching. A request
 * joins the batch at the next chunk and leaves when it is done; long prompts are prefilled in
 * pieces between chunks, so they do not stall the others. The server runs it in a child process
 * (worker.ts); the trainer uses it directly.
 *
 * Whole blocks of a prefix that any sequence of the version has computed are taken from the prefix
 * cache, and of requests with the same prompt one prefills and the others wait for its blocks. When
 * memory is short, cached blocks go first, then caches of idle sequences, which are prefilled again
 * when they go on; after that only the oldest request may take from the others, so that there is
 * always one that gets done.
 *
 * Guarantee: the draws of a sample depend on its seed and token positions alone, and the runs that
 * a row takes part in are as long whoever else does, so on the CPU the same request gives the same
 * bits in any company (bench/determinism.ts). Exceptions, in which the last bits of a logit may
 * differ and so, rarely, a token: prefixes from the cache, which were computed in other pieces;
 * work so large that chunks are cut shorter (chunk-length.ts); rows with shaped logits; memory
 * shortage.
 */
import { assert, must } from '../assert.ts';
import { AppError, toAppError } from '../errors.ts';
import type { ModelWeights } from '../model/types.ts';
import type { OpenOptions, Priority, SampleRequest, SampleResult } from '../ports.ts';
import type { Sampler, Sequence } from '../ports.ts';
import { Admission } from './admission.ts';
import { BatchModel, type DecodedRow } from './batch-model.ts';
import { chunkLength } from './chunk-length.ts';
import { KvMemory } from './kv-memory.ts';
import { withDefaults } from './engine-options.ts';
import type { EngineOptions, EnginePolicy, LocalEngineOptions } from './engine-options.ts';
import { LocalSequence, type SequenceHost } from './local-sequence.ts';
import { createPolicySessions, SharedSessions } from './policy-sessions.ts';
import { PrefixCache, type PrefixTree } from './prefix-cache.ts';
import { isReady, Prefiller, type PrefillJob } from './prefiller.ts';
import { RowOptions, VersionText } from './row-options.ts';
import { notLoaded, requireQueueSlot, requireSequenceSlot, windowWithin } from './refusals.ts';
import { chunkOf, kindOf, roomOf, TURN_RUNS, type RunKind } from './run-kinds.ts';
import { joinTokens } from './sampled-tokens.ts';
import { planTurn, type Turn } from './scheduler.ts';
import { SequenceKv } from './sequence-kv.ts';
import type { EngineStats, KvStats } from './types.ts';

interface LoadedVersion {
  model: BatchModel;
  prefixes: PrefixTree;
  contextTokens: number;
  openSequences: number;
  /** No new sequences; the sessions go when the last sequence closes. */
  retired: boolean;
  /** For constraints and stop texts; null where nobody asks for them (training). */
  text: VersionText | null;
}

interface Job extends PrefillJob {
  readonly request: SampleRequest;
  readonly options: RowOptions;
  /** Clock time after which it is refused; Infinity without a deadline. */
  readonly deadline: number;
  /** Tokens of the sequence when it came. */
  readonly context: number;
  parts: DecodedRow[];
  resolve(result: SampleResult): void;
  reject(error: AppError): void;
}

export class LocalEngine implements Sampler, SequenceHost {
  private readonly options: EngineOptions;
  private readonly versions = new Map<number, LoadedVersion>();
  /** Of adapters, by base. */
  private readonly shared = new SharedSessions();
  private readonly jobs = new Set<Job>();
  /** The jobs of the current turn. */
  private readonly running = new Set<Job>();
  private readonly sequences = new Set<LocalSequence>();
  private readonly memory: KvMemory;
  private readonly prefixes: PrefixCache;
  private readonly admission: Admission<Job>;
  private readonly prefiller: Prefiller;
  private arrivals = 0;
  private pump: Promise<void> | null = null;
  private closed = false;

  constructor(options: LocalEngineOptions) {
    this.options = withDefaults(options);
    this.memory = new KvMemory(this.options.kvBytesMax);
    this.prefixes = new PrefixCache(this.memory);
    const { memory, prefixes, jobs, sequences } = this;
    const admission = new Admission({ memory, prefixes, jobs, sequences });
    this.admission = admission;
    this.prefiller = new Prefiller({ prefixes, admission, share: this.options.prefixCache });
  }

  /** Tokens that a sequence of the version can hold. */
  windowOf(version: number): number {
    return must(this.versions.get(version), 'loaded version').contextTokens;
  }

  /**
   * Builds the sessions of a version beside the others; loading a version again replaces it, and
   * forgets its cached prefixes. One that was unloaded while sequences still run on it comes back
   * as it is: a version never changes. The window of a version is that of its model, or less when
   * the memory for keys and values cannot hold so many tokens. Throws config_invalid when it cannot
   * hold one block.
   */
  async load(version: number, policy: EnginePolicy): Promise<void> {
    const draining = this.versions.get(version);
    if (draining?.retired) {
      draining.retired = false;
      return;
    }
    const { config, vocabulary } = policy;
    const contextTokens = windowWithin(this.memory, config);
    const before = this.versions.get(version);
    const inUse = `version ${version} is in use, cannot replace it`;
    assert(!before || before.openSequences === 0, inUse);
    const model = await this.build(policy);
    assert(!before || before.openSequences === 0, inUse);
    const prefixes = this.prefixes.plant(config);
    const text = vocabulary === undefined ? null : new VersionText(vocabulary);
    const loaded = { model, prefixes, contextTokens, openSequences: 0, retired: false, text };
    this.versions.set(version, loaded);
    await this.dispose(before);
  }

  /** No new sequences on the version; its memory goes when the last one closes. */
  async unload(version: number): Promise<void> {
    const loaded = this.versions.get(version);
    if (loaded === undefined) return;
    loaded.retired = true;
    this.prefixes.clear(loaded.prefixes);
    await this.disposeIfDrained(version);
  }

  open({ policyVersion, priority = 'live' }: OpenOptions): Sequence {
    const loaded = this.versions.get(policyVersion);
    if (loaded === undefined || loaded.retired || this.closed) {
      throw notLoaded(policyVersion);
    }
    const kv = new SequenceKv(this.memory, loaded.model.config);
    return this.track(policyVersion, kv, [], priority);
  }

  stats(): EngineStats & { kv: KvStats } {
    const waiting = [...this.jobs].filter((job) => !this.running.has(job));
    const queuedBy = { live: 0, rollout: 0, evaluation: 0 };
    for (const { priority } of waiting) queuedBy[priority]++;
    return {
      state: this.closed ? 'stopped' : 'ready',
      pid: null,
      versions: [...this.versions].filter(([, v]) => !v.retired).map(([version]) => version),
      openSequences: this.sequences.size,
      queued: waiting.length,
      running: this.jobs.size - waiting.length,
      kv: {
        ...this.prefiller.counts,
        queuedBy,
        bytesUsed: this.memory.bytesUsed,
        bytesMax: this.memory.bytesMax,
        cachedBlocks: this.prefixes.blocks,
      },
    };
  }

  /** Rejects what waits with engine_unavailable and frees the sessions. */
  async close(): Promise<void> {
    this.closed = true;
    await this.pump;
    const error = new AppError('engine_unavailable', 'the engine was stopped');
    for (const job of this.jobs) job.reject(error);
    this.jobs.clear();
    for (const loaded of this.versions.values()) await this.dispose(loaded);
    this.versions.clear();
  }

  /** @internal Used by sequences: queues a sample request. */
  submit(sequence: LocalSequence, request: SampleRequest): Promise<SampleResult> {
    requireQueueSlot(this.jobs.size - this.options.batchRowsMax, this.options.queueMax);
    if (this.closed) throw new AppError('engine_unavailable', 'the engine was stopped');
    const { policyVersion: version, priority } = sequence;
    const deadline = this.options.clock.now() + (request.deadlineMs ?? Infinity);
    const { model, text } = must(this.versions.get(version), 'version of a sequence');
    const options = new RowOptions(request, model.config.vocabulary, text);
    return new Promise((resolve, reject) => {
      this.jobs.add({
        ...{ version, priority, sequence, request, options, deadline, resolve, reject },
        ...{ order: this.arrivals++, waits: 0, prefix: 'unknown', parts: [] },
        ...{ context: sequence.length, prefilled: 0 },
      });
      this.pump ??= this.run();
    });
  }

  /** @internal */
  fork({ policyVersion, tokens, kv, priority }: LocalSequence, length: number): Sequence {
    return this.track(policyVersion, kv.fork(length), tokens.slice(0, length), priority);
  }

  /** @internal */
  release(sequence: LocalSequence): void {
    const { policyVersion } = sequence;
    this.sequences.delete(sequence);
    // A stopped engine has no versions any more.
    const loaded = this.versions.get(policyVersion);
    if (loaded === undefined) return;
    loaded.openSequences--;
    void this.disposeIfDrained(policyVersion);
  }

  private track(
    policyVersion: number,
    kv: SequenceKv,
    tokens: number[],
    priority: Priority,
  ): Sequence {
    requireSequenceSlot(this.sequences.size, this.options.sequencesMax);
    const loaded = must(this.versions.get(policyVersion), 'version of a sequence');
    loaded.openSequences++;
    const { contextTokens } = loaded;
    const options = { policyVersion, priority, contextTokens, kv, tokens };
    const sequence = new LocalSequence(this, options);
    this.sequences.add(sequence);
    return sequence;
  }

  private async build(policy: EnginePolicy): Promise<BatchModel> {
    const create = (weights: ModelWeights, adapters: boolean) =>
      createPolicySessions(policy.config, weights, { ...this.options, adapters });
    if (!('adapter' in policy)) {
      return new BatchModel(policy.config, await create(policy.weights, false), null, this.memory);
    }
    const { config, adapter, baseKey } = policy;
    const sessions = await this.shared.take(baseKey, () => create(policy.baseWeights(), true));
    return new BatchModel(config, sessions, adapter, this.memory);
  }

  private async disposeIfDrained(version: number): Promise<void> {
    const loaded = this.versions.get(version);
    if (!loaded?.retired || loaded.openSequences > 0) return;
    this.versions.delete(version);
    await this.dispose(loaded);
  }

  private async dispose(loaded: LoadedVersion | undefined): Promise<void> {
    if (loaded === undefined) return;
    this.prefixes.clear(loaded.prefixes);
    await loaded.model.dispose();
  }

  /** Works until no job is left. Never rejects: nobody waits for it. */
  private async run(): Promise<void> {
    while (this.jobs.size > 0 && !this.closed) {
      try {
        await this.takeTurn();
      } catch (thrown) {
        // Nothing says whose fault it is, and a job that stays would bring it up again.
        this.fail([...this.jobs], toAppError(thrown));
      }
      this.running.clear();
    }
    this.pump = null;
  }

  /** Between runs the event loop turns once, so that callers can react. */
  private async takeTurn(): Promise<void> {
    await new Promise(setImmediate);
    this.settleEnded();
    const { batchRowsMax: rowsMax, agingTurns } = this.options;
    const turns = planTurn(this.jobs, { rowsMax, agingTurns });
    for (const { jobs } of turns) for (const job of jobs) this.running.add(job);
    for (const [index, turn] of turns.entries()) {
      if (index > 0) await new Promise(setImmediate);
      this.settleEnded();
      await this.serve(turn);
    }
  }

  private async serve({ version, jobs }: Turn<Job>): Promise<void> {
    // With its last client a version that drains goes too.
    if (this.left(jobs).length === 0) return;
    try {
      const loaded = must(this.versions.get(version), 'version of a job');
      await this.prefiller.run(loaded, this.left(jobs));
      await this.decode(loaded, this.left(jobs).filter(isReady));
    } catch (thrown) {
      this.fail(jobs, toAppError(thrown));
    }
  }

  private left(jobs: readonly Job[]): Job[] {
    return jobs.filter((job) => this.jobs.has(job));
  }

  private async decode(loaded: LoadedVersion, ready: readonly Job[]): Promise<void> {
    const { model, contextTokens } = loaded;
    const growth = (job: Job) => Math.min(this.options.chunkTokens, roomOf(job, contextTokens));
    let ran = 0;
    const begun = new Map(ready.map((job) => [job, kindOf(job)]));
    for (const kind of TURN_RUNS) {
      const rows = this.left(ready).filter((j) => kindOf(j) === kind && begun.get(j) === kind);
      const fit = model.decodeRowsThatFit(rows.map(({ sequence }) => sequence.kv));
      // Who gave memory to another one is not ready any more.
      const jobs = this.admission.admit(rows.slice(0, fit).filter(isReady), growth).filter(isReady);
      if (jobs.length > 0) await this.decodeBatch(loaded, kind, jobs);
      ran += jobs.length;
    }
    if (ran > 0) return;
    const [oldest] = this.admission.admitOldest(ready.filter(isReady), growth);
    if (oldest !== undefined) await this.decodeBatch(loaded, kindOf(oldest), [oldest]);
  }

  private async decodeBatch(
    loaded: LoadedVersion,
    kind: RunKind,
    jobs: readonly Job[],
  ): Promise<void> {
    const { model, contextTokens } = loaded;
    const room = (job: Job) => roomOf(job, contextTokens);
    const shaped = jobs.map(({ options }) => options.shapedSteps ?? Infinity);
    const most = chunkLength(model.parameters, jobs.length, this.options.chunkTokens);
    const chunk = chunkOf(kind, most);
    const steps = Math.min(chunk, Math.max(...jobs.map(room)), ...shaped);
    const rowOf = (job: Job) => ({
      kv: job.sequence.kv,
      lastToken: must(job.sequence.tokens.at(-1), 'last token'),
      sampling: job.request.sampling,
      stopTokens: job.request.stopTokens,
      maxTokens: Math.min(steps, room(job)),
      shape: job.options.shape(job.sequence.tokens),
      likeliest: job.request.likeliest ?? 0,
    });
    // A constraint that cannot be followed any further is its own request's failure.
    const rows = jobs.flatMap((job) => {
      const row = this.forOne(job, () => rowOf(job));
      return row === undefined ? [] : [{ job, row }];
    });
    if (rows.length === 0) return;
    const decoded = await model.decode(
      rows.map(({ row }) => row),
      steps,
      kind === 'begin',
    );
    rows.forEach(({ job }, i) =>
      this.forOne(job, () => {
        job.waits = 0;
        this.deliver(job, decoded[i] as DecodedRow, contextTokens);
        this.prefiller.publish(loaded, job.sequence);
      }),
    );
  }

  private deliver(job: Job, decoded: DecodedRow, contextTokens: number): void {
    if (!this.jobs.has(job)) return;
    const row = job.options.take(decoded);
    for (const token of row.tokens) job.sequence.tokens.push(token);
    job.sequence.kv.truncate(job.sequence.length - 1);
    job.parts.push(row);
    job.request.onTokens?.(row);
    if (row.stopped) this.finish(job, 'stop');
    else if (job.options.left === 0) this.finish(job, 'length');
    else if (job.sequence.length >= contextTokens) this.finish(job, 'context');
  }

  private settleEnded(): void {
    const now = this.options.clock.now();
    for (const job of this.jobs) {
      if (job.request.signal?.aborted) this.finish(job, 'cancelled');
      else if (now >= job.deadline) {
        const limit = `${job.request.deadlineMs} ms`;
        this.fail([job], new AppError('request_timeout', `no answer within ${limit}`));
      }
    }
  }

  private finish(job: Job, finish: SampleResult['finish']): void {
    this.jobs.delete(job);
    // The last token is always computed; memory shortage may have it computed more than once.
    const cachedTokens = Math.max(0, job.context - 1 - job.prefilled);
    job.resolve({ ...joinTokens(job.parts), cachedTokens, finish });
  }

  /** Work of one job, whose failure is that job's alone. */
  private forOne<T>(job: Job, work: () => T): T | undefined {
    try {
      return work();
    } catch (thrown) {
      this.fail([job], toAppError(thrown));
      return undefined;
    }
  }

  private fail(jobs: readonly Job[], error: AppError): void {
    for (const job of jobs) {
      if (this.jobs.delete(job)) job.reject(error);
    }
  }
}

/** A trainer's engine: one version whose weights, or adapter, an optimiser changes in place. */
export async function createLocalEngine(
  options: EnginePolicy & LocalEngineOptions & { version: number },
) {
  const engine = new LocalEngine(options);
  await engine.load(options.version, options);
  return Object.assign(engine, { reload: () => engine.load(options.version, options) });
}
