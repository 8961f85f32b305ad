/**
 * Safetensors: what is written is read back, also from the Buffer that readFileSync returns; half
 * precision against values worked out by hand; every lie of a header is refused by name; and
 * whatever the bytes, the reader either loads correctly or throws policy_invalid.
 */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import { Prng } from '../prng.ts';
import { formatSafetensors, parseSafetensors } from './safetensors.ts';
import type { Weights } from './types.ts';

const weights: Weights = new Map([
  ['a', { shape: [2, 2], data: Float32Array.of(1, -2, 3.5, 0) }],
  ['b', { shape: [3], data: Float32Array.of(7, 8, 9) }],
]);

/** A file from a header (an object, or its text) and the bytes after it. */
function fileOf(header: unknown, data: Uint8Array | number): Uint8Array {
  const text = typeof header === 'string' ? header : JSON.stringify(header);
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes, typeof data === 'number' ? Buffer.alloc(data) : data]);
}

describe('round trips', () => {
  it.each([
    ['Uint8Array', (file: Uint8Array) => file],
    ['Buffer', (file: Uint8Array) => Buffer.from(file)],
    ['unaligned', (file: Uint8Array) => Buffer.concat([Buffer.of(0), file]).subarray(1)],
  ])('read back what was written, from a %s', (_, form) => {
    const read = parseSafetensors(form(formatSafetensors(weights)), 'test');
    expect(read).toEqual(weights);
    for (const { data } of read.values()) expect(data.byteLength).toBe(data.buffer.byteLength);
  });

  it('keep random tensors, odd names, empty ones and views into larger arrays', () => {
    const prng = new Prng(4);
    for (let round = 0; round < 50; round++) {
      const made: Weights = new Map();
      for (let t = 0; t < prng.below(5); t++) {
        const shape = Array.from({ length: prng.below(4) }, () => prng.below(4));
        const size = shape.reduce((product, dim) => product * dim, 1);
        const large = Float32Array.from({ length: size + 3 }, () => prng.gaussian());
        const name = prng.pick(['ü.weight', '', 'a"b', '__proto__', 'x.日本']) + t;
        made.set(name, { shape, data: large.subarray(2, 2 + size) });
      }
      const file = formatSafetensors(made);
      expect(parseSafetensors(file, 'test')).toEqual(made);
      // Data starts at a multiple of 8, as mapped readers want it.
      expect(Number(new DataView(file.buffer).getBigUint64(0, true)) % 8).toBe(0);
    }
  });
});

function halves(dtype: 'F16' | 'BF16', bits: readonly number[]): number[] {
  const data = new Uint8Array(Uint16Array.from(bits).buffer);
  const entry = { dtype, shape: [bits.length], data_offsets: [0, data.length] };
  return [...parseSafetensors(fileOf({ h: entry }, data), 'test').get('h')!.data];
}

describe('half precision', () => {
  it('F16: normal, subnormal, signed zero, infinite and NaN', () => {
    const bits = [0x3c00, 0xc000, 0x3555, 0x7bff, 0x0400, 0x0001, 0x03ff, 0x8000, 0x7c00, 0xfc00];
    expect(halves('F16', bits)).toEqual([
      1,
      -2,
      0.333251953125,
      65504,
      2 ** -14,
      2 ** -24,
      1023 * 2 ** -24,
      -0,
      Infinity,
      -Infinity,
    ]);
    expect(halves('F16', [0x7e00, 0x7c01]).every(Number.isNaN)).toBe(true);
  });

  it('BF16: the upper half of a float32', () => {
    const values = [1, -2.5, 2 ** 127, -0, 2 ** -126, Infinity];
    const bits = values.map((value) => new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16);
    expect(halves('BF16', bits)).toEqual(values);
    expect(halves('BF16', [0x7fc0])[0]).toBeNaN();
  });
});

const F32 = (shape: unknown, offsets: unknown, dtype: unknown = 'F32') => ({
  dtype,
  shape,
  data_offsets: offsets,
});

describe('a file that lies', () => {
  const whole = formatSafetensors(weights);

  it.each([
    ['no bytes', new Uint8Array(0), /0 bytes is no safetensors file/],
    ['half a length', whole.subarray(0, 5), /5 bytes is no safetensors file/],
    ['half a header', whole.subarray(0, 40), /header of \d+ bytes does not fit 40 bytes/],
    ['half the data', whole.subarray(0, whole.length - 4), /b: bytes 16 to 28 of 24 do not hold/],
    ['a huge header', Buffer.alloc(64, 0xff), /header of 18446744073709552000 bytes/],
    ['no JSON', fileOf('{"a":', 0), /the header is not JSON/],
    ['a list', fileOf([], 0), /the header is no JSON object/],
    ['null', fileOf(null, 0), /the header is no JSON object/],
    ['an entry that is null', fileOf({ a: null }, 0), /a: dtype undefined is not one of/],
    ['an unknown dtype', fileOf({ a: F32([1], [0, 8], 'F64') }, 8), /a: dtype "F64" is not one of/],
    ['a dtype of Object', fileOf({ a: F32([1], [0, 4], 'toString') }, 4), /a: dtype "toString"/],
    ['too few bytes', fileOf({ a: F32([3], [0, 8]) }, 8), /a: bytes 0 to 8 of 8 do not hold \[3\]/],
    ['an end before the begin', fileOf({ a: F32([1], [8, 4]) }, 8), /a: bytes 8 to 4 of 8/],
    ['bytes past the end', fileOf({ a: F32([2], [4, 12]) }, 8), /a: bytes 4 to 12 of 8/],
    ['a negative offset', fileOf({ a: F32([1], [-4, 0]) }, 8), /a: data_offsets \[-4,0\]/],
    ['three offsets', fileOf({ a: F32([1], [0, 4, 8]) }, 8), /a: data_offsets \[0,4,8\]/],
    ['a fraction of a size', fileOf({ a: F32([1.5], [0, 6]) }, 8), /a: shape \[1.5\] is wrong/],
    ['a negative size', fileOf({ a: F32([-1, -1], [0, 4]) }, 8), /a: shape \[-1,-1\] is wrong/],
    ['no shape', fileOf({ a: F32(undefined, [0, 4]) }, 4), /a: shape undefined is wrong/],
    ['an overflowing shape', fileOf({ a: F32([2 ** 52, 2 ** 52], [0, 4]) }, 4), /do not hold/],
    [
      'an overlap',
      fileOf({ a: F32([2], [0, 8]), b: F32([2], [4, 12]) }, 12),
      /weights.bin: b overlaps a/,
    ],
  ])('is refused: %s', (_name, file, message) => {
    expect(() => parseSafetensors(file, 'weights.bin')).toThrowError(message);
    expect(() => parseSafetensors(file, 'weights.bin')).toThrowError(/^weights\.bin: /);
    expect(fate(file)).toBe('policy_invalid');
  });
});

/** `loaded`, or the code of the error; anything else thrown fails the test. */
function fate(file: Uint8Array): string {
  try {
    const read = parseSafetensors(file, 'weights.bin');
    for (const { shape, data } of read.values()) {
      expect(data.length).toBe(shape.reduce((product, dim) => product * dim, 1));
    }
    return 'loaded';
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return error.code;
  }
}

describe('mutations', () => {
  it.each([1, 2, 3])('of a good file load correctly or are refused (seed %i)', (seed) => {
    const prng = new Prng(seed);
    const good = formatSafetensors(weights);
    const fates: Record<string, number> = { loaded: 0, policy_invalid: 0 };
    for (let round = 0; round < 1500; round++) {
      let bytes = Buffer.from(good);
      for (let change = prng.below(3); change >= 0; change--) {
        const at = prng.below(bytes.length);
        const kind = prng.below(4);
        if (kind === 0) bytes[at] = prng.below(256);
        else if (kind === 1) bytes = bytes.subarray(0, at + 1);
        else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]);
        // A digit for a digit keeps the JSON whole, so the checks behind it are reached.
        else bytes = swapDigit(bytes, at, prng.below(10));
      }
      fates[fate(bytes)]!++;
    }
    expect(Object.keys(fates)).toEqual(['loaded', 'policy_invalid']);
    expect(Math.min(...Object.values(fates))).toBeGreaterThan(40);
  });
});

function swapDigit<B extends Uint8Array>(bytes: B, from: number, digit: number): B {
  const at = bytes.findIndex((byte, i) => i >= from && byte >= 0x30 && byte <= 0x39);
  if (at >= 0) bytes[at] = 0x30 + digit;
  return bytes;
}
