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

export function tokensFromBlob(blob: Buffer): Uint32Array {
  return new Uint32Array(alignedBytes(blob));
}

export function floatsFromBlob(blob: Buffer): Float32Array {
  return new Float32Array(alignedBytes(blob));
}

/** A copy that starts at an aligned address: SQLite's own buffers need not. */
function alignedBytes(blob: Buffer): ArrayBuffer {
  assert(blob.byteLength % BYTES === 0, `a token blob of ${blob.byteLength} bytes`);
  const bytes = new ArrayBuffer(blob.byteLength);
  const copy = Buffer.from(bytes);
  copy.set(blob);
  if (!isLittleEndian) copy.swap32();
  return bytes;
}
