/**
 * Writes a random checkpoint of any size, tensor by tensor and seeded: a table of random values is
 * read from another place for every tensor, so that no two tensors are alike (onnxruntime shares
 * equal packed ones) and a gigabyte takes a second.
 */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { toHalf } from '../../half.ts';
import { Prng } from '../../prng.ts';
import { formatModelConfig } from '../config.ts';
import { parameterShapes } from '../parameters.ts';
import type { ModelConfig, StoredTensor } from '../types.ts';

/** A prime, so that tensors do not repeat with the same phase. */
const TABLE_VALUES = 1_048_573;
const BYTES = { F32: 4, F16: 2, BF16: 2 } as const;

export interface CheckpointOptions {
  dtype: StoredTensor['dtype'];
  seed: number;
  /** More than one: that many files and their index. */
  shards?: number;
}

/** Values of deviation 0.5 / sqrt(hidden), norms 1. Makes the directory. */
export function writeCheckpoint(
  directory: string,
  config: ModelConfig,
  { dtype, seed, shards = 1 }: CheckpointOptions,
): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify(formatModelConfig(config)));
  const prng = new Prng(seed);
  const deviation = Math.min(0.2, 0.5 / Math.sqrt(config.hidden));
  const noise = Float32Array.from({ length: TABLE_VALUES }, () => deviation * prng.gaussian());
  const random = encoded(noise, dtype);
  const ones = encoded(new Float32Array(TABLE_VALUES).fill(1), dtype);
  const shapes = [...parameterShapes(config)];
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const file = shards === 1 ? 'model.safetensors' : shardName(shard, shards);
    const own = shapes.filter((_, i) => i % shards === shard);
    for (const [name] of own) weightMap[name] = file;
    writeFile(join(directory, file), own, dtype, (name) => ({
      table: name.includes('norm') ? ones : random,
      from: BYTES[dtype] * prng.below(TABLE_VALUES),
    }));
  }
  if (shards === 1) return;
  const index = JSON.stringify({ metadata: {}, weight_map: weightMap });
  writeFileSync(join(directory, 'model.safetensors.index.json'), index);
}

function shardName(shard: number, shards: number): string {
  const digits = (n: number) => String(n).padStart(5, '0');
  return `model-${digits(shard + 1)}-of-${digits(shards)}.safetensors`;
}

function writeFile(
  path: string,
  shapes: readonly [string, readonly number[]][],
  dtype: StoredTensor['dtype'],
  valuesOf: (name: string) => { table: Uint8Array; from: number },
): void {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, shape] of shapes) {
    const end = offset + shape.reduce((product, dim) => product * dim, BYTES[dtype]);
    header[name] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  const text = JSON.stringify(header);
  const padded = text.padEnd(8 * Math.ceil(text.length / 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const descriptor = openSync(path, 'w');
  try {
    writeSync(descriptor, length);
    writeSync(descriptor, padded);
    for (const [name, shape] of shapes) {
      let left = shape.reduce((product, dim) => product * dim, BYTES[dtype]);
      const { table, from } = valuesOf(name);
      for (let at = from; left > 0; at = 0) {
        const count = Math.min(left, table.byteLength - at);
        left -= writeSync(descriptor, table, at, count);
      }
    }
  } finally {
    closeSync(descriptor);
  }
}

function encoded(values: Float32Array, dtype: StoredTensor['dtype']): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.buffer);
  if (dtype === 'F16') return new Uint8Array(toHalf(values).buffer);
  const words = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}
