/**
 * Reads the fixtures that scripts/parity makes in Python: what transformers, PyTorch, peft and
 * tokenizers compute. The reader of expected tensors is its own, a few lines, so that a fault in
 * the product's reader cannot hide itself.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrainRow } from '../../core/model/types.ts';
import { packageRoot } from '../../core/paths.ts';
import type { Sampler } from '../../core/ports.ts';

export const fixtureRoot = join(packageRoot, 'test', 'fixtures', 'parity');

/** Names of the folders (or files) in a fixture folder, sorted. */
export function fixtureNames(folder: string): string[] {
  return readdirSync(join(fixtureRoot, folder)).sort();
}

export function readFixture<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(fixtureRoot, ...path), 'utf8')) as T;
}

/** Float32 tensors of a safetensors fixture, by name. */
export function readTensors(...path: string[]): Map<string, Float32Array> {
  const bytes = readFileSync(join(fixtureRoot, ...path));
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, Float32Array>();
  for (const [name, { dtype, data_offsets: offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    if (dtype !== 'F32') throw new Error(`${name} is ${dtype}`);
    const [from, to] = offsets;
    // Copied, because the file's tensors need not lie on a multiple of 4 bytes.
    const copy = new Uint8Array(bytes.subarray(start + from, start + to));
    tensors.set(name, new Float32Array(copy.buffer));
  }
  return tensors;
}

/** The largest |a - b|; Infinity when the lengths differ or a number is not finite. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}

/** |a - b| / |b| in the Euclidean norm: the relative error of a whole tensor. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += ((a[i] as number) - (b[i] as number)) ** 2;
    size += (b[i] as number) ** 2;
  }
  return size > 0 ? Math.sqrt(difference / size) : Infinity;
}

/** A training row as Python writes it: plain lists, all as long as the tokens. */
export type FixtureRow = Record<'tokens' | 'weights' | 'advantages' | 'oldLogprobs', number[]>;

export function trainRow(row: FixtureRow): TrainRow {
  return {
    tokens: Uint32Array.from(row.tokens),
    weights: Float32Array.from(row.weights),
    advantages: Float32Array.from(row.advantages),
    oldLogprobs: Float32Array.from(row.oldLogprobs),
  };
}

/** What transformers' generate() says without sampling, and how sure it was of each token. */
export interface GreedyRun {
  prompt: number[];
  tokens: number[];
  logprobs: number[];
  entropies: number[];
}

/** The policy version that a test's engine serves. */
export const VERSION = 1;

/** The same by the engine: prefill and chunked decode. */
export async function decodeGreedily(engine: Sampler, { prompt, tokens }: GreedyRun) {
  const sequence = engine.open({ policyVersion: VERSION });
  sequence.append(prompt);
  const sampling = { temperature: 0, topP: 1, topK: 0, seed: 1 };
  const sampled = await sequence.sample({ maxTokens: tokens.length, sampling, stopTokens: [] });
  sequence.close();
  return sampled;
}
