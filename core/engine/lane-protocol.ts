/**
 * Messages between an engine and its lane threads. The engine starts a thread with `LaneSettings`
 * as its data; the thread answers `ready` or `failed`, then every `run` with one `done` or
 * `failed`, in order. Cached keys and values travel by transfer: the sender loses them, and `done`
 * and `failed` bring them back in `lent`, so that nothing is copied and nobody else reads them
 * meanwhile.
 */
import type { Feeds, TensorLike } from '../model/session.ts';
import type { ComputeType, ModelConfig, ModelWeights } from '../model/types.ts';

export interface LaneSettings {
  config: ModelConfig;
  weights: ModelWeights;
  /** Intra-op threads of the thread's session. */
  threads: number;
  dtype: ComputeType;
  adapters: boolean;
  entropyCandidates: number;
}

export type ToLane =
  /** `lent` are further inputs, whose buffers are transferred. */
  { type: 'run'; feeds: Feeds; lent: Feeds } | { type: 'stop' };

export type FromLane =
  | { type: 'ready' }
  | { type: 'done'; outputs: Record<string, TensorLike>; lent: Feeds }
  | { type: 'failed'; message: string; lent: Feeds };
