/** Safetensors: what is written is read back, also from the Buffer that readFileSync returns. */
import { expect, it } from 'vitest';
import { formatSafetensors, parseSafetensors } from './safetensors.ts';

const weights = new Map([
  ['a', { shape: [2, 2], data: Float32Array.of(1, -2, 3.5, 0) }],
  ['b', { shape: [3], data: Float32Array.of(7, 8, 9) }],
]);

it.each([
  ['Uint8Array', (file: Uint8Array) => file],
  ['Buffer', (file: Uint8Array) => Buffer.from(file)],
  ['unaligned', (file: Uint8Array) => Buffer.concat([Buffer.of(0), file]).subarray(1)],
])('reads back what was written, from a %s', (_, form) => {
  const read = parseSafetensors(form(formatSafetensors(weights)), 'test');
  expect(read).toEqual(weights);
  for (const { data } of read.values()) expect(data.byteLength).toBe(data.buffer.byteLength);
});
