/**
 * Reads tensors out of files as float32: whole ones without a second copy, or single rows of a
 * table. Knows where a tensor lies (safetensors.ts has found and checked that), not what it is for.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { assert } from '../assert.ts';
import { AppError } from '../errors.ts';
import { fromHalf } from '../half.ts';
import type { HeldTensor, StoredTensor } from './types.ts';

/** Read and converted at a time: some pages, so that no second copy of a tensor exists. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** A file's bytes, whether they are in memory or on disk. */
export interface ByteSource {
  size: number;
  /** Fills `into` from `offset` on; throws when there are not so many bytes. */
  read(into: Uint8Array, offset: number): void;
}

export function isHeld(tensor: HeldTensor | StoredTensor): tensor is HeldTensor {
  return 'data' in tensor;
}

/** The tensor in memory; one that is there already is not copied. Throws policy_invalid. */
export function heldTensor(tensor: HeldTensor | StoredTensor): HeldTensor {
  if (isHeld(tensor)) return tensor;
  const data = withFile(tensor.path, (source) => readTensor(source, tensor));
  return { shape: tensor.shape, data };
}

/** Opens a file to read from. What is wrong with it becomes policy_invalid, naming it. */
export function withFile<R>(path: string, use: (source: ByteSource) => R): R {
  let descriptor: number | null = null;
  try {
    descriptor = openSync(path, 'r');
    return use(fileSource(descriptor));
  } catch (error) {
    throw unreadable(path, error);
  } finally {
    if (descriptor !== null) closeSync(descriptor);
  }
}

export function readTensor(
  source: ByteSource,
  { dtype, offset, byteLength }: Pick<StoredTensor, 'dtype' | 'offset' | 'byteLength'>,
): Float32Array {
  if (dtype === 'F32') {
    const data = new Float32Array(byteLength / 4);
    source.read(bytesOf(data), offset);
    return data;
  }
  const data = new Float32Array(byteLength / 2);
  const piece = new Uint16Array(Math.min(byteLength, PIECE_BYTES) / 2);
  for (let at = 0; at < data.length; at += piece.length) {
    const halves = piece.subarray(0, data.length - at);
    source.read(new Uint8Array(piece.buffer, 0, halves.byteLength), offset + 2 * at);
    if (dtype === 'F16') data.set(fromHalf(halves), at);
    else widen(halves, data, at);
  }
  return data;
}

/** Rows of a table (n, D), read when they are asked for: a token needs one row of many. */
export class TableRows {
  private readonly table: HeldTensor | StoredTensor;
  private readonly source: ByteSource | null = null;
  private descriptor: number | null = null;

  /** Keeps the file open until `close`. Throws policy_invalid. */
  constructor(table: HeldTensor | StoredTensor) {
    this.table = table;
    if (isHeld(table)) return;
    try {
      this.descriptor = openSync(table.path, 'r');
      this.source = fileSource(this.descriptor);
    } catch (error) {
      throw unreadable(table.path, error);
    }
  }

  /** float32 (ids, D). */
  read(ids: BigInt64Array): Float32Array {
    const [rows, width] = this.table.shape as [number, number];
    const out = new Float32Array(ids.length * width);
    ids.forEach((id, i) => out.set(this.row(Number(id), rows, width), i * width));
    return out;
  }

  close(): void {
    if (this.descriptor !== null) closeSync(this.descriptor);
    this.descriptor = null;
  }

  private row(id: number, rows: number, width: number): Float32Array {
    const { table, source } = this;
    assert(id >= 0 && id < rows, `row ${id} of ${rows}`);
    if (isHeld(table)) return table.data.subarray(id * width, (id + 1) * width);
    const byteLength = table.byteLength / rows;
    const offset = table.offset + id * byteLength;
    return readTensor(source as ByteSource, { dtype: table.dtype, offset, byteLength });
  }
}

export function bytesOf(data: Float32Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** bfloat16 is the upper half of a float32. */
function widen(halves: Uint16Array, into: Float32Array, at: number): void {
  const words = new Uint32Array(into.buffer, into.byteOffset + 4 * at, halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = (halves[i] as number) << 16;
}

function fileSource(descriptor: number): ByteSource {
  const status = fstatSync(descriptor);
  if (!status.isFile()) throw new Error('is not a file');
  return {
    size: status.size,
    read(into, offset) {
      for (let done = 0; done < into.byteLength;) {
        const wanted = Math.min(into.byteLength - done, PIECE_BYTES);
        const got = readSync(descriptor, into, done, wanted, offset + done);
        if (got === 0) throw new Error(`ends at byte ${offset + done}, it was cut off meanwhile`);
        done += got;
      }
    },
  };
}

function unreadable(path: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new AppError('policy_invalid', `${path}: ${reason}`, { cause: error });
}
