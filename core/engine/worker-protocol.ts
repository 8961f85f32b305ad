/**
 * What crosses the border of the policy worker, both ways, and the rules of the wire:
 *
 * - The client names everything: sequences, samples and calls get their numbers from it.
 * - Messages are handled in order, so `append`, `truncate`, `fork`, `close` need no answer: the
 *   client has checked them before (bounds, context window), and a failure there is a bug that ends
 *   the worker.
 * - `load`, `unload` and `stop` are answered by exactly one `done`. A `sample` is answered by any
 *   number of `tokens` (when streamed) and then exactly one `sampled` or `failed`, after a `cancel`
 *   too.
 */
import type { ErrorCode } from '../errors.ts';
import type { ComputeType } from '../model/types.ts';
import type { Priority, SampledTokens, SampleResult } from '../ports.ts';
import type { SamplingParams } from '../records.ts';

export interface WorkerSettings {
  device: 'cpu' | 'cuda' | 'webgpu';
  threads: number;
  dtype?: ComputeType;
  /** Null or left out: a quarter of the memory that is free at the start. */
  kvBytesMax?: number | null;
}

export type ToWorker =
  | { type: 'load'; call: number; version: number; directory: string }
  | { type: 'unload'; call: number; version: number }
  | { type: 'stop'; call: number }
  | { type: 'open'; sequence: number; version: number; priority: Priority }
  | { type: 'append'; sequence: number; tokens: Uint32Array }
  | { type: 'truncate'; sequence: number; length: number }
  | { type: 'fork'; sequence: number; from: number; length: number }
  | { type: 'close'; sequence: number }
  | {
      type: 'sample';
      sequence: number;
      sample: number;
      maxTokens: number;
      sampling: SamplingParams;
      stopTokens: readonly number[];
      stopTexts: readonly string[];
      likeliest: number;
      streamed: boolean;
    }
  | { type: 'cancel'; sample: number };

export interface WireError {
  code: ErrorCode;
  message: string;
  /** The request field at fault. */
  param: string | null;
}

export type FromWorker =
  | { type: 'ready' }
  | { type: 'done'; call: number; error: WireError | null; contextTokens: number }
  | { type: 'tokens'; sample: number; piece: SampledTokens }
  | { type: 'sampled'; sample: number; result: SampleResult }
  | { type: 'failed'; sample: number; error: WireError };
