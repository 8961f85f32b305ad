/** The hash by which jobs are told apart: of every bit of their conversations, of any length. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { hashOf } from './job-identity.ts';

const sample = (change: (entropies: Float32Array) => void = () => {}) => {
  // A view of a part: only what it shows counts.
  const entropies = new Float32Array(6).subarray(2, 5);
  change(entropies);
  return { id: 'a', steps: [{ tokens: Uint32Array.of(1, 258), entropies }], reward: null };
};

describe('the hash of a field', () => {
  it.each([
    ['plain', { b: [1, 'x', null, { a: 0.1 }], a: { c: true, d: [] } }],
    ['without what is undefined', { a: undefined, b: 1, c: undefined }],
    ['a word', 'text "quoted"'],
    ['a number', 0.30000000000000004],
    ['nothing', null],
  ])('of plain data is that of its JSON text: %s', (_, value) => {
    const text = createHash('sha256').update(JSON.stringify(value)).digest('hex');
    expect(hashOf(value)).toBe(text.slice(0, 16));
  });

  it('tells typed arrays apart by the bit, and is the same for the same', () => {
    expect(hashOf([sample()])).toBe(hashOf([sample()]));
    const others = [
      [sample((entropies) => (entropies[2] = -0))],
      [sample((entropies) => (entropies[0] = 1e-45))],
      [sample(), sample()],
      [{ ...sample(), steps: [{ tokens: Uint32Array.of(1, 258, 0), entropies: [] }] }],
      [{ ...sample(), steps: [{ tokens: Uint16Array.of(1, 0, 258, 0), entropies: [] }] }],
    ];
    expect(new Set([[sample()], ...others].map(hashOf)).size).toBe(others.length + 1);
  });

  it('reads more than a string can hold', () => {
    // As text each would be over 800 million characters, more than a string has.
    const tokens = new Float32Array(2 ** 26).fill(1 / 3);
    expect(hashOf([{ steps: [{ tokens }] }])).toMatch(/^[0-9a-f]{16}$/);
  });
});
