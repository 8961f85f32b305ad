/** The wire format against a decoder written from the protobuf specification, and known bytes. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { ProtoWriter } from './protobuf.ts';

const hex = (writer: ProtoWriter) => Buffer.from(writer.finish()).toString('hex');

/** The first varint of some bytes, as an unsigned 64-bit number, and the bytes after it. */
function readVarint(bytes: Uint8Array): { value: bigint; rest: Uint8Array } {
  let value = 0n;
  for (const [i, byte] of bytes.entries()) {
    value |= BigInt(byte & 0x7f) << BigInt(7 * i);
    if (byte < 0x80) return { value, rest: bytes.subarray(i + 1) };
  }
  throw new Error('a varint without an end');
}

describe('varints', () => {
  it.each([
    [0, '0800'],
    [1, '0801'],
    [127, '087f'],
    [128, '088001'],
    [300, '08ac02'],
    [-1, '08ffffffffffffffffff01'],
    [-2, '08feffffffffffffffff01'],
    [2n ** 63n - 1n, '08ffffffffffffffff7f'],
    [-(2n ** 63n), '0880808080808080808001'],
    [Number.MAX_SAFE_INTEGER, '08ffffffffffffff0f'],
  ])('%s', (value, expected) => {
    expect(hex(new ProtoWriter().varint(1, value))).toBe(expected);
  });

  it('come back from a decoder, whatever their size and sign', () => {
    const prng = new Prng(8);
    for (let i = 0; i < 2000; i++) {
      const word = () => BigInt(prng.below(2 ** 32));
      const bits = BigInt(1 + prng.below(63));
      const size = ((word() << 32n) | word()) & ((1n << bits) - 1n);
      const value = prng.below(2) === 0 ? size : -size;
      const field = 1 + prng.below(2 ** 20);
      const bytes = new ProtoWriter().varint(field, value).finish();
      const tag = readVarint(bytes);
      expect(tag.value).toBe(BigInt(field) << 3n);
      const body = readVarint(tag.rest);
      expect(BigInt.asIntN(64, body.value)).toBe(value);
      expect(body.rest.length).toBe(0);
    }
  });
});

describe('other fields', () => {
  it('are floats, text and bytes in the documented wire types', () => {
    expect(hex(new ProtoWriter().float(2, 1.5))).toBe('150000c03f');
    expect(hex(new ProtoWriter().string(1, 'é'))).toBe('0a02c3a9');
    expect(hex(new ProtoWriter().bytes(9, new Uint8Array(200)))).toBe(`4ac801${'00'.repeat(200)}`);
    expect(hex(new ProtoWriter().string(1, ''))).toBe('0a00');
  });

  it('nest with the length of the inner message', () => {
    const inner = new ProtoWriter().varint(1, 150);
    const outer = new ProtoWriter().message(3, inner).varint(4, 1);
    expect(hex(outer)).toBe('1a030896012001');
    expect(outer.byteLength).toBe(outer.finish().length);
  });
});
