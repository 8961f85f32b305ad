/** Token blobs: the byte order is fixed, and every bit pattern comes back. */
import { expect, test } from 'vitest';
import { AppError } from '../core/errors.ts';
import { Prng } from '../core/prng.ts';
import { floatsFromBlob, toBlob, tokensFromBlob } from './token-blob.ts';

test('the bytes are little-endian', () => {
  expect(toBlob(Uint32Array.of(1, 0xa1b2c3d4)).toString('hex')).toBe('01000000d4c3b2a1');
  expect(toBlob(Float32Array.of(1, -2)).toString('hex')).toBe('0000803f000000c0');
});

test('every bit pattern comes back, NaN payloads, infinities and -0 included', () => {
  const prng = new Prng(7);
  const bits = Uint32Array.from({ length: 5_000 }, () => prng.below(2 ** 32));
  bits.set([0, 0x80000000, 0x7fc00001, 0xffffffff, 0x7f800000, 0xff800000, 1]);
  expect(tokensFromBlob(toBlob(bits))).toEqual(bits);
  const back = floatsFromBlob(toBlob(new Float32Array(bits.buffer)));
  expect(new Uint32Array(back.buffer)).toEqual(bits);
});

test('views and unaligned buffers are read at their own place', () => {
  const view = Uint32Array.of(9, 8, 7, 6).subarray(1, 3);
  const blob = toBlob(view);
  expect(tokensFromBlob(blob)).toEqual(Uint32Array.of(8, 7));
  const unaligned = Buffer.concat([Buffer.from([0]), blob]).subarray(1);
  expect(tokensFromBlob(unaligned)).toEqual(Uint32Array.of(8, 7));
  expect(tokensFromBlob(Buffer.alloc(0))).toEqual(new Uint32Array(0));
});

test('a blob is a copy: the array may change afterwards', () => {
  const tokens = Uint32Array.of(1, 2);
  const blob = toBlob(tokens);
  tokens.fill(0);
  expect(tokensFromBlob(blob)).toEqual(Uint32Array.of(1, 2));
});

test('a cut blob is our bug, said so', () => {
  expect(() => tokensFromBlob(Buffer.alloc(6))).toThrow(AppError);
});
