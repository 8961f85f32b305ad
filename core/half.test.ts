/** Half precision: every half comes back, and numbers round to the nearest of two neighbours. */
import { expect, test } from 'vitest';
import { fromHalf, toHalf } from './half.ts';

/** The first place where two arrays differ, -1 for none: quicker than a comparison of the whole. */
const firstDifference = (a: Uint16Array, b: Uint16Array) =>
  a.length === b.length ? a.findIndex((bits, i) => bits !== b[i]) : 0;

const finite = Uint16Array.from({ length: 0x7c00 }, (_, bits) => bits);

test('every finite half, positive and negative, comes back bit for bit', () => {
  expect(firstDifference(toHalf(fromHalf(finite)), finite)).toBe(-1);
  const negative = finite.map((bits) => bits | 0x8000);
  expect(firstDifference(toHalf(fromHalf(negative)), negative)).toBe(-1);
});

test('a number between two halves goes to the nearer one, the middle to the even one', () => {
  const values = fromHalf(finite);
  const wrong = (share: number, expected: (i: number) => number) => {
    const between = values.subarray(1).map((high, i) => {
      const low = values[i]!;
      return low + share * (high - low);
    });
    return firstDifference(
      toHalf(between),
      finite.subarray(1).map((_, i) => expected(i)),
    );
  };
  expect(wrong(0.25, (i) => i)).toBe(-1);
  expect(wrong(0.75, (i) => i + 1)).toBe(-1);
  expect(wrong(0.5, (i) => i + (i % 2))).toBe(-1);
});

test('what is too large is infinite, what is too small is zero, NaN stays', () => {
  const given = Float32Array.of(65_504, 65_519, 65_520, -1e30, Infinity, NaN, 2 ** -25, 3e-8, -0);
  const back = fromHalf(toHalf(given));
  const tiny = 2 ** -24;
  expect([...back]).toEqual([65_504, 65_504, Infinity, -Infinity, Infinity, NaN, 0, tiny, -0]);
});

test('a view into a larger buffer is read from its own start', () => {
  const whole = Float32Array.of(1, 2, 3, 4);
  expect([...fromHalf(toHalf(whole.subarray(2)))]).toEqual([3, 4]);
});
