/**
 * Safetensors files (8-byte header length, JSON header, tensor data), the weight format of Hugging
 * Face. Everything that a header says is checked before a tensor is read or memory is taken for it.
 * A file is opened by its header alone; what its tensors are used for is not known here.
 */
import { closeSync, openSync, realpathSync, writeSync } from 'node:fs';
import { parseBoundedJson } from '../bounded-json.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { bytesOf, readTensor, withFile, type ByteSource } from './tensor-file.ts';
import type { StoredTensor, StoredWeights, Weights } from './types.ts';

/** The lowest length that a header can have: `{}`. */
const HEADER_BYTES_MIN = 2;
/** Written at a time. */
const PIECE_BYTES = 4 * 1024 * 1024;
const METADATA = '__metadata__';
const BYTES_PER_ELEMENT: ReadonlyMap<unknown, number> = new Map([
  ['F32', 4],
  ['F16', 2],
  ['BF16', 2],
]);

/**
 * The tensors of a file on disk, of which only the header is read. Throws policy_invalid naming the
 * file and what is wrong.
 */
export function openSafetensors(path: string): StoredWeights {
  return withFile(path, (source) => {
    const weights: StoredWeights = new Map();
    // onnxruntime refuses links that lead out of a folder, as those of the Hugging Face cache do.
    const real = realpathSync(path);
    for (const { name, ...place } of readHeader(source, path)) {
      weights.set(name, { path: real, ...place });
    }
    return weights;
  });
}

/** The tensors of a file in memory, as float32. Throws policy_invalid naming what is wrong. */
export function parseSafetensors(file: Uint8Array, where: string): Weights {
  const source: ByteSource = {
    size: file.byteLength,
    read: (into, offset) => into.set(file.subarray(offset, offset + into.byteLength)),
  };
  const weights: Weights = new Map();
  for (const { name, ...place } of readHeader(source, where)) {
    weights.set(name, { shape: place.shape, data: readTensor(source, place) });
  }
  return weights;
}

/** The bytes of a safetensors file with float32 tensors, in the order of the map. */
export function formatSafetensors(weights: Weights): Uint8Array {
  const header = formatHeader(weights);
  const dataBytes = [...weights.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
  const file = new Uint8Array(header.byteLength + dataBytes);
  file.set(header);
  let at = header.byteLength;
  for (const { data } of weights.values()) {
    file.set(bytesOf(data), at);
    at += data.byteLength;
  }
  return file;
}

/** Writes what `formatSafetensors` makes, tensor by tensor: weights are not held twice. */
export function writeSafetensors(path: string, weights: Weights): void {
  const descriptor = openSync(path, 'w');
  try {
    writeAll(descriptor, formatHeader(weights));
    for (const { data } of weights.values()) writeAll(descriptor, bytesOf(data));
  } finally {
    closeSync(descriptor);
  }
}

/** Length and header of a file with these float32 tensors; its tensors begin right after. */
function formatHeader(weights: Weights): Uint8Array {
  const header: Record<string, unknown> = { [METADATA]: { format: 'pt' } };
  let offset = 0;
  for (const [name, { shape, data }] of weights) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  // Spaces pad the header to 8 bytes, so that tensors are aligned for readers that map the file.
  const text = JSON.stringify(header);
  const padded = text + ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const bytes = new Uint8Array(8 + Buffer.byteLength(padded));
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.byteLength - 8), true);
  bytes.set(Buffer.from(padded), 8);
  return bytes;
}

type Place = Omit<StoredTensor, 'path'> & { name: string };

function readHeader(source: ByteSource, where: string): Place[] {
  if (source.size < 8 + HEADER_BYTES_MIN) {
    throw invalid(where, `${source.size} bytes is no safetensors file`);
  }
  const length = new Uint8Array(8);
  source.read(length, 0);
  const headerBytes = Number(new DataView(length.buffer).getBigUint64(0, true));
  if (headerBytes > source.size - 8) {
    throw invalid(where, `header of ${headerBytes} bytes does not fit ${source.size} bytes`);
  }
  if (headerBytes > LIMITS.modelJsonBytesMax) {
    const most = LIMITS.modelJsonBytesMax;
    throw invalid(where, `header of ${headerBytes} bytes is longer than ${most}`);
  }
  const bytes = new Uint8Array(headerBytes);
  source.read(bytes, 8);
  const dataStart = 8 + headerBytes;
  const places = Object.entries(parseHeader(bytes, where))
    .filter(([name]) => name !== METADATA)
    .map(([name, entry]) => checkEntry(name, entry, source.size - dataStart, where));
  checkOverlap(places, where);
  return places.map((place) => ({ ...place, offset: dataStart + place.offset }));
}

function parseHeader(bytes: Uint8Array, where: string): object {
  let header: unknown;
  try {
    header = parseBoundedJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new AppError('policy_invalid', `${where}: the header is not JSON`, { cause });
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw invalid(where, 'the header is no JSON object');
  }
  return header;
}

/** Offsets of the result count from the first tensor byte, as in the header. */
function checkEntry(name: string, entry: unknown, dataBytes: number, where: string): Place {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  const width = BYTES_PER_ELEMENT.get(dtype);
  if (width === undefined) {
    const known = [...BYTES_PER_ELEMENT.keys()].join(', ');
    throw invalid(where, `${name}: dtype ${JSON.stringify(dtype)} is not one of ${known}`);
  }
  if (!isSizes(shape)) throw invalid(where, `${name}: shape ${JSON.stringify(shape)} is wrong`);
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw invalid(where, `${name}: data_offsets ${JSON.stringify(offsets)} are wrong`);
  }
  const [begin, end] = offsets as [number, number];
  const expected = shape.reduce((product, dim) => product * dim, width);
  if (end - begin !== expected || end > dataBytes) {
    const given = `bytes ${begin} to ${end} of ${dataBytes}`;
    throw invalid(where, `${name}: ${given} do not hold [${shape.join()}] of ${String(dtype)}`);
  }
  const byteLength = end - begin;
  return { name, dtype: dtype as StoredTensor['dtype'], shape, offset: begin, byteLength };
}

function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && Number(item) >= 0)
  );
}

function checkOverlap(places: readonly Place[], where: string): void {
  const end = (place: Place) => place.offset + place.byteLength;
  // An empty tensor may share its place with the next one, so it goes first.
  const sorted = [...places].sort((a, b) => a.offset - b.offset || end(a) - end(b));
  sorted.forEach((place, i) => {
    const before = sorted[i - 1];
    if (before !== undefined && place.offset < end(before)) {
      throw invalid(where, `${place.name} overlaps ${before.name}`);
    }
  });
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength;) {
    done += writeSync(descriptor, bytes, done, Math.min(bytes.byteLength - done, PIECE_BYTES));
  }
}

function invalid(where: string, what: string): AppError {
  return new AppError('policy_invalid', `${where}: ${what}`);
}
