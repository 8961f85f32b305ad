/** Advantages against the vectors, and the properties that any group must have. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import vectors from '../../test/fixtures/arpo-vectors.json' with { type: 'json' };
import { groupAdvantages, isZeroVariance, treeAdvantages } from './advantage.ts';

function expectClose(actual: readonly number[], expected: readonly number[], digits = 9): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => expect(value).toBeCloseTo(expected[i] as number, digits));
}

describe('advantage', () => {
  it.each(vectors.advantage)('vector $rewards', ({ rewards, std, mean, zeroVariance }) => {
    expectClose(groupAdvantages(rewards, 'std'), std);
    expectClose(groupAdvantages(rewards, 'mean'), mean, 12);
    expect(isZeroVariance(rewards)).toBe(zeroVariance);
  });
  it.each(vectors.treeAdvantage)('tree vector', ({ rewards, tree, expected }) => {
    expectClose(treeAdvantages(rewards, tree), expected);
  });
  it('sums to zero in a group and does not depend on the order', () => {
    const random = new Prng(11);
    for (let trial = 0; trial < 50; trial++) {
      const rewards = Array.from({ length: 2 + random.below(15) }, () => random.below(5) / 4);
      const advantages = groupAdvantages(rewards);
      expect(advantages.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 9);
      expectClose(groupAdvantages([...rewards].reverse()), [...advantages].reverse(), 9);
    }
  });
  it('leave-one-out compares each with the mean of the others', () => {
    expectClose(groupAdvantages([1, 0, 0.5], 'leave-one-out'), [0.75, -0.75, 0], 12);
    const random = new Prng(12);
    for (let trial = 0; trial < 50; trial++) {
      const rewards = Array.from({ length: 2 + random.below(15) }, () => random.gaussian());
      const expected = rewards.map((reward, i) => {
        const others = rewards.filter((_, j) => j !== i);
        return reward - others.reduce((a, b) => a + b, 0) / others.length;
      });
      expectClose(groupAdvantages(rewards, 'leave-one-out'), expected);
    }
  });
  it('tree parts are normalised as the group is', () => {
    const [rewards, trees] = [
      [3, 1, 2, 6],
      [0, 0, 1, 1],
    ];
    expectClose(treeAdvantages(rewards, trees, 'mean'), [1, -3, -3, 5], 12);
    expectClose(treeAdvantages(rewards, [0, 1, 2, 3], 'mean'), groupAdvantages(rewards, 'mean'));
  });
  it('a group of one and a group of equal rewards give exact zeros', () => {
    expect(groupAdvantages([0.7])).toEqual([0]);
    expect(groupAdvantages([0.1, 0.1, 0.1])).toEqual([0, 0, 0]);
    expect(groupAdvantages([0.7], 'leave-one-out')).toEqual([0]);
    expect(isZeroVariance([0.7])).toBe(true);
  });
});
