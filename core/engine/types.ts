/** The engine as the server sees it: versions side by side, sequences on them. */
import type { Sampler } from '../ports.ts';

export interface EngineStats {
  state: 'starting' | 'ready' | 'stopping' | 'stopped';
  /** The process that computes; null while there is none, or when it is this one's own engine. */
  pid: number | null;
  versions: number[];
  openSequences: number;
  /** Sequences that wait for a batch row. */
  queued: number;
  /** Sequences in the running batch. */
  running: number;
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
