/** Shares of slots: even, whole, and nobody is favoured by his index. */
import { describe, expect, it } from 'vitest';
import { beamsOf, deal } from './branch-slots.ts';

describe('beams', () => {
  it('are runs of slots, the last one with what is left', () => {
    expect(beamsOf([8, 9, 10, 11, 12], 2)).toEqual([[8, 9], [10, 11], [12]]);
    expect(beamsOf([8, 9], 1)).toEqual([[8], [9]]);
    expect(beamsOf([], 3)).toEqual([]);
  });
});

describe('deal', () => {
  it('gives every item to one hand; shares differ by one at most', () => {
    for (let items = 0; items < 12; items++) {
      for (let hands = 1; hands < 6; hands++) {
        for (let first = 0; first < 7; first++) {
          const all = [...Array(items).keys()];
          const dealt = deal(all, hands, first);
          expect(dealt).toHaveLength(hands);
          expect(dealt.flat().sort((a, b) => a - b)).toEqual(all);
          const sizes = dealt.map(({ length }) => length);
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
        }
      }
    }
  });

  it('begins with the hand that was drawn', () => {
    expect(deal(['a', 'b'], 3, 2)).toEqual([['b'], [], ['a']]);
    // The draw is a 32-bit word.
    expect(deal(['a'], 3, 4_294_967_295)).toEqual([['a'], [], []]);
  });
});
