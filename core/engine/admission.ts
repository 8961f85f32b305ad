/**
 * Who may grow when memory for keys and values is short. Cached blocks that nobody uses go first,
 * then the caches of idle sequences, which are prefilled again when they go on. Beyond that only
 * the oldest request may take from the others, the youngest first: so there is always one that gets
 * done, and two never take from each other in turns. Who gets nothing waits.
 */
import type { KvMemory } from './kv-memory.ts';
import type { LocalSequence } from './local-sequence.ts';
import type { PrefixCache } from './prefix-cache.ts';
import { PRIORITIES, type Waiting } from './scheduler.ts';

interface GrowingJob extends Waiting {
  readonly sequence: LocalSequence;
}

export interface AdmissionOptions<T> {
  memory: KvMemory;
  prefixes: PrefixCache;
  /** All jobs and all open sequences of the engine; read at each call. */
  jobs: ReadonlySet<T>;
  sequences: ReadonlySet<LocalSequence>;
}

export class Admission<T extends GrowingJob> {
  private readonly all: AdmissionOptions<T>;

  constructor(options: AdmissionOptions<T>) {
    this.all = options;
  }

  /**
   * The jobs, in their order, whose sequences may grow by so many tokens in the next run. Who is
   * left out may have lost its cache.
   */
  admit(jobs: readonly T[], growth: (job: T) => number): T[] {
    if (jobs.length === 0) return [];
    const oldest = Math.min(...[...this.all.jobs].map(({ order }) => order));
    const isOldest = (job: T) => job.order === oldest;
    const admitted = new Set<T>();
    let promised = 0;
    for (const job of [...jobs].sort((a, b) => +isOldest(b) - +isOldest(a))) {
      const needed = promised + job.sequence.kv.bytesToGrow(growth(job));
      if (!this.makeRoom(needed, isOldest(job) ? job : null)) continue;
      promised = needed;
      admitted.add(job);
    }
    return jobs.filter((job) => admitted.has(job));
  }

  /** The first arrived of `jobs`, admitted if it can be: what to try when no other can run. */
  admitOldest(jobs: readonly T[], growth: (job: T) => number): T[] {
    const first = Math.min(...jobs.map(({ order }) => order));
    return this.admit(
      jobs.filter(({ order }) => order === first),
      growth,
    );
  }

  /** Frees memory until blocks have room for `bytes`; `oldest` may take from all other jobs. */
  private makeRoom(bytes: number, oldest: T | null): boolean {
    if (this.hasRoom(bytes)) return true;
    for (const { kv } of this.victims(oldest)) {
      if (kv.length === 0) continue;
      kv.truncate(0);
      if (this.hasRoom(bytes)) return true;
    }
    return false;
  }

  private hasRoom(bytes: number): boolean {
    const { memory, prefixes } = this.all;
    prefixes.evict(bytes - memory.blockRoom);
    return memory.blockRoom >= bytes;
  }

  private victims(oldest: T | null): LocalSequence[] {
    const rank = ({ priority }: LocalSequence) => PRIORITIES.indexOf(priority);
    const idle = [...this.all.sequences].filter((sequence) => sequence.isIdle);
    const jobs = oldest === null ? [] : [...this.all.jobs].filter((job) => job !== oldest);
    return [
      ...idle.sort((a, b) => rank(b) - rank(a)),
      ...jobs.sort((a, b) => b.order - a.order).map(({ sequence }) => sequence),
    ];
  }
}
