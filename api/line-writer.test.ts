/** Numbers as text: the same bits come back, whatever they are, and JSON reads the arrays. */
import { expect, test } from 'vitest';
import { freshSeed, Prng } from '../core/prng.ts';
import { LineWriter } from './line-writer.ts';

const bitsOf = (values: Float32Array): number[] => [
  ...new Uint32Array(values.buffer, values.byteOffset, values.length),
];

function readBack(values: Float32Array): Float32Array {
  const writer = new LineWriter(16);
  writer.figures(values);
  return Float32Array.from(JSON.parse(writer.take().toString()) as (number | string)[], Number);
}

test('random bits of 32-bit floats come back as they were', () => {
  const seed = freshSeed();
  const prng = new Prng(seed);
  for (let round = 0; round < 200; round++) {
    const bits = Uint32Array.from({ length: 1_000 }, () => prng.below(2 ** 32));
    // The payload of a NaN is no figure.
    const values = new Float32Array(bits.buffer).filter((value) => !Number.isNaN(value));
    expect(bitsOf(readBack(values)), `seed ${seed}`).toEqual(bitsOf(values));
  }
});

test('log-probabilities of every size come back, and so do the edges', () => {
  const prng = new Prng(freshSeed());
  const edges = [0, -0, 1, -1, 10, 9.9999995, 0.1, 0.099999994, 1e-6, 9.9999994e-7, 1e-7, 1e9];
  const odd = [999999936, 1.4e-45, 3.4028234663852886e38, Infinity, -Infinity, 16777216, 0.3];
  const random = Array.from({ length: 50_000 }, () => -Math.exp(20 * prng.next() - 17));
  const values = Float32Array.from([...edges, ...odd, ...random]);
  expect(bitsOf(readBack(values))).toEqual(bitsOf(values));
  expect(readBack(Float32Array.of(NaN))[0]).toBeNaN();
});

test('figures have no more than nine digits and no zeros at their end', () => {
  const writer = new LineWriter(1);
  writer.figures(Float32Array.of(0.5, -2, 1e-7, 0.1, 123456789, -0.000025, 7));
  const text = writer.take().toString();
  expect(text).toBe('[0.5,-2,1.00000001e-7,0.100000001,123456792,-0.0000249999994,7]');
});

test('integers, texts and bytes follow each other in a buffer that grows', () => {
  const writer = new LineWriter(1);
  const tokens = Uint32Array.of(0, 9, 10, 4_294_967_295, 151_643);
  writer.text('{"é😀":');
  writer.integers(tokens);
  writer.text(',"b":');
  writer.bytes(Buffer.from('[]}'));
  const bytes = writer.take();
  expect(JSON.parse(bytes.toString())).toEqual({ 'é😀': [...tokens], b: [] });
  expect(writer.length).toBe(0);
  // Nothing else lies in its memory, so it can be moved to another thread.
  expect(bytes.buffer.byteLength).toBe(bytes.length);
});
