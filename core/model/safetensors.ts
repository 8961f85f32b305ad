/**
 * Reads and writes safetensors files (8-byte header length, JSON header, tensor data), the weight
 * format of Hugging Face. Everything that the header says is checked before any tensor is read.
 */
import { AppError } from '../errors.ts';
import type { Weights } from './types.ts';

const HEADER_BYTES_MAX = 100 * 1024 * 1024;
const BYTES_PER_ELEMENT: ReadonlyMap<unknown, number> = new Map([
  ['F32', 4],
  ['F16', 2],
  ['BF16', 2],
]);

interface TensorEntry {
  name: string;
  dtype: string;
  shape: number[];
  begin: number;
  end: number;
}

/** The tensors of a file as float32. Throws policy_invalid naming what is wrong. */
export function parseSafetensors(file: Uint8Array, where: string): Weights {
  const { entries, dataStart } = readHeader(file, where);
  const weights: Weights = new Map();
  for (const { name, dtype, shape, begin, end } of entries) {
    const bytes = file.subarray(dataStart + begin, dataStart + end);
    weights.set(name, { shape, data: toFloat32(bytes, dtype) });
  }
  return weights;
}

/** The bytes of a safetensors file with float32 tensors, in the order of the map. */
export function formatSafetensors(weights: Weights): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const [name, { shape, data }] of weights) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  // Spaces pad the header to 8 bytes, so that tensors are aligned for readers that map the file.
  const text = JSON.stringify(header);
  const padding = ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const headerBytes = new TextEncoder().encode(text + padding);
  const file = new Uint8Array(8 + headerBytes.length + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes.length), true);
  file.set(headerBytes, 8);
  let at = 8 + headerBytes.length;
  for (const { data } of weights.values()) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}

function readHeader(file: Uint8Array, where: string) {
  if (file.byteLength < 8) throw invalid(where, `${file.byteLength} bytes is no safetensors file`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const headerBytes = Number(view.getBigUint64(0, true));
  if (headerBytes > HEADER_BYTES_MAX || 8 + headerBytes > file.byteLength) {
    throw invalid(where, `header of ${headerBytes} bytes does not fit ${file.byteLength} bytes`);
  }
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + headerBytes)));
  } catch (cause) {
    throw new AppError('policy_invalid', `${where}: the header is not JSON`, { cause });
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw invalid(where, 'the header is no JSON object');
  }
  const dataStart = 8 + headerBytes;
  const dataBytes = file.byteLength - dataStart;
  const entries = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]) => checkEntry(name, entry, dataBytes, where));
  checkOverlap(entries, where);
  return { entries, dataStart };
}

function checkEntry(name: string, entry: unknown, dataBytes: number, where: string): TensorEntry {
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
  return { name, dtype: dtype as string, shape, begin, end };
}

function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && Number(item) >= 0)
  );
}

function checkOverlap(entries: readonly TensorEntry[], where: string): void {
  // An empty tensor may share its place with the next one, so it goes first.
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  sorted.forEach((entry, i) => {
    const before = sorted[i - 1];
    if (before !== undefined && entry.begin < before.end) {
      throw invalid(where, `${entry.name} overlaps ${before.name}`);
    }
  });
}

function toFloat32(bytes: Uint8Array, dtype: string): Float32Array {
  // A copy: the source may be unaligned, and the file's buffer should not live on. Not slice(),
  // which on a Buffer (what readFileSync returns) is a view of the whole file.
  const copy = new Uint8Array(bytes).buffer;
  if (dtype === 'F32') return new Float32Array(copy);
  const halves = new Uint16Array(copy);
  return Float32Array.from(halves, dtype === 'BF16' ? bfloat16 : float16);
}

const scratch = new DataView(new ArrayBuffer(4));

function bfloat16(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

function float16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function invalid(where: string, what: string): AppError {
  return new AppError('policy_invalid', `${where}: ${what}`);
}
