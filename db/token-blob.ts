/**
 * Token ids and their figures as SQLite blobs: 32-bit little-endian, four bytes an element, no
 * header. Bits are copied, never converted, so a NaN or a -0 comes back as it went in.
 */
import { endianness } from 'node:os';
import { assert } from '../core/assert.ts';

const BYTES = 4;
const isLittleEndian = endianness() === 'LE';

/** A copy of the array's bytes in little-endian order; the array may change afterwards. */
export function toBlob(array: Uint32Array | Float32Array): Buffer {
  const copy = Buffer.from(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  return isLittleEndian ? copy : copy.swap32();
}

/** May share the blob's memory, as that of figures may. */
export function tokensFromBlob(blob: Buffer): Uint32Array {
  return new Uint32Array(alignedBytes(blob));
}

export function floatsFromBlob(blob: Buffer): Float32Array {
  return new Float32Array(alignedBytes(blob));
}

/** At an aligned address: a buffer with memory of its own, as SQLite's rows have, is used as is. */
function alignedBytes(blob: Buffer): ArrayBuffer {
  assert(blob.byteLength % BYTES === 0, `a token blob of ${blob.byteLength} bytes`);
  const own = blob.byteLength === blob.buffer.byteLength && blob.buffer instanceof ArrayBuffer;
  if (own && isLittleEndian) return blob.buffer;
  const bytes = new ArrayBuffer(blob.byteLength);
  const copy = Buffer.from(bytes);
  copy.set(blob);
  if (!isLittleEndian) copy.swap32();
  return bytes;
}
