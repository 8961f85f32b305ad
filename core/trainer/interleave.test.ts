/** Every stretch of what is laid together has its share of each list. */
import { expect, it } from 'vitest';
import { interleave } from './interleave.ts';

it.each([[['a', 'ab', 'abc']], [[]]])('keeps every item: %j', (lists: string[]) => {
  const all = interleave(lists.map((list) => [...list]));
  expect(all.sort()).toEqual(lists.flatMap((list) => [...list]).sort());
});

it('leaves one list as it is, and lays two into one another in their order', () => {
  expect(interleave([[3, 1, 2], []])).toEqual([3, 1, 2]);
  expect(
    interleave([
      [1, 2, 3, 4],
      [10, 20],
    ]),
  ).toEqual([1, 10, 2, 3, 20, 4]);
  expect(
    interleave([
      [1, 2, 3],
      [10, 20],
    ]),
  ).toEqual([1, 10, 2, 20, 3]);
});

it.each([
  [8, 8],
  [8, 3],
  [64, 8],
])('has of %i and %i about as many in each half', (first, second) => {
  const all = interleave([Array<number>(first).fill(0), Array<number>(second).fill(1)]);
  const half = all.slice(0, Math.floor(all.length / 2));
  const ofSecond = half.filter((one) => one === 1).length;
  expect(Math.abs(ofSecond - second / 2)).toBeLessThanOrEqual(1);
});
