/** Curves by hand, and intervals that must hold what they say. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../../core/prng.ts';
import { costRatio, estimate, firstReach, interpolate, pairedDifference } from './statistics.ts';

const curve = [
  { x: 0, y: 0.3 },
  { x: 100, y: 0.5 },
  { x: 200, y: 0.4 },
];

describe('curves', () => {
  it.each([
    [0, 0.3],
    [25, 0.35],
    [100, 0.5],
    [150, 0.45],
    [200, 0.4],
  ])('at %i is %f', (x, y) => expect(interpolate(curve, x)).toBeCloseTo(y, 12));

  it('say nothing outside of what was measured', () => {
    expect(interpolate(curve, 201)).toBeNull();
    expect(interpolate([], 0)).toBeNull();
  });

  it('reach a value where they first cross it', () => {
    expect(firstReach(curve, 0.4)).toBeCloseTo(50, 12);
    expect(firstReach(curve, 0.3)).toBe(0);
    expect(firstReach(curve, 0.51)).toBeNull();
  });
});

describe('estimates', () => {
  it('pair what has the same seed', () => {
    const a = new Map([
      [1, 0.9],
      [2, 0.5],
      [3, 0.1],
    ]);
    const b = new Map([
      [2, 0.3],
      [3, -0.1],
      [4, 5],
    ]);
    expect(pairedDifference(a, b)).toMatchObject({ seeds: 2 });
    expect(pairedDifference(a, b)!.mean).toBeCloseTo(0.2, 12);
    expect(pairedDifference(a, new Map())).toBeNull();
    expect(estimate([])).toBeNull();
  });

  it('cover the true mean of 8 seeds in about nine cases of ten', () => {
    const random = new Prng(7);
    let covered = 0;
    for (let trial = 0; trial < 100; trial++) {
      const { low, high } = estimate(Array.from({ length: 8 }, () => random.gaussian()))!;
      if (low <= 0 && 0 <= high) covered++;
    }
    expect(covered).toBeGreaterThan(82);
    expect(covered).toBeLessThan(98);
  });
});

describe('costRatio', () => {
  const reference = [
    { x: 0, y: 0 },
    { x: 1_000, y: 0.5 },
  ];
  const steep = [
    { x: 0, y: 0 },
    { x: 400, y: 0.8 },
  ];

  it('is the share of the calls at which the same accuracy is there', () => {
    const found = costRatio([1, 2, 3].map(() => ({ arm: steep, reference })))!;
    expect(found.ratio).toBeCloseTo(0.25, 2);
    expect(found).toMatchObject({ reached: true, reachedShare: 1 });
    expect(found.low).toBeCloseTo(found.high, 12);
  });

  it('says when it is not reached', () => {
    const flat = steep.map(({ x, y }) => ({ x, y: y / 4 }));
    const found = costRatio([{ arm: flat, reference }])!;
    expect(found).toMatchObject({ ratio: 0.4, reached: false, reachedShare: 0 });
  });

  it('is 1 of the reference itself', () => {
    expect(costRatio([{ arm: reference, reference }])!.ratio).toBe(1);
    expect(costRatio([])).toBeNull();
  });
});
