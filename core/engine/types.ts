/** The engine as the server sees it: versions side by side, sequences on them. */
import type { Priority, Sampler } from '../ports.ts';

export interface EngineStats {
  state: 'starting' | 'ready' | 'stopping' | 'stopped';
  /** The process that computes; null while there is none, or when it is this one's own engine. */
  pid: number | null;
  /** Those that can be opened; one that a new worker could not load again is not among them. */
  versions: number[];
  openSequences: number;
  /** Sequences that wait for a batch row. */
  queued: number;
  /** Sequences in the running batch. */
  running: number;
}

/** What an operator wants to know of the memory for keys and values and of shared prefixes. */
export interface KvStats {
  queuedBy: Record<Priority, number>;
  /** Blocks of sequences, cached blocks, buffers of freed ones, and batch rows. */
  bytesUsed: number;
  bytesMax: number;
  /** Full blocks that new sequences can take, in use or not. */
  cachedBlocks: number;
  /** Samples whose prompt began with cached blocks, and those that had to prefill a whole block. */
  prefixHits: number;
  prefixMisses: number;
  /** Tokens taken from the cache, and tokens prefilled, of all samples. */
  hitTokens: number;
  prefilledTokens: number;
}

/**
 * A policy engine with several versions loaded. A running conversation keeps the version that it
 * was opened on; `unload` takes effect when the last sequence on the version is closed.
 */
export interface PolicyEngine extends Sampler {
  /** Builds the sessions of a policy directory beside the others. Throws policy_invalid. */
  load(version: number, directory: string): Promise<void>;
  unload(version: number): Promise<void>;
  stats(): EngineStats;
  /** Rejects what is queued with engine_unavailable, ends the worker. */
  stop(): Promise<void>;
}
