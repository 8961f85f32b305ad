/** Entropy against the vectors, computed apart from this code, and its windows by hand. */
import { describe, expect, it } from 'vitest';
import vectors from '../../test/fixtures/arpo-vectors.json' with { type: 'json' };
import { releasedCodeStepEntropy, stepEntropy, tokenEntropy } from './entropy.ts';

describe('entropy', () => {
  it.each(vectors.entropy)('vector $stepMean', ({ probabilities, token, stepMean, stepSum }) => {
    const tokens = probabilities.map(tokenEntropy);
    tokens.forEach((h, t) => expect(h).toBeCloseTo(token[t] as number, 12));
    const V = probabilities[0]?.length ?? 0;
    expect(stepEntropy(tokens, V, { mode: 'full', tokens: 20 })).toBeCloseTo(stepMean, 12);
    expect(releasedCodeStepEntropy(probabilities, V)).toBeCloseTo(stepSum, 12);
  });

  it('looks at the first k tokens only; max takes the largest of them', () => {
    const entropies = [0.1, 0.4, 0.2, 5];
    const norm = Math.log(10);
    expect(stepEntropy(entropies, 10, { mode: 'full', tokens: 2 })).toBeCloseTo(0.25 / norm, 12);
    expect(stepEntropy(entropies, 10, { mode: 'max', tokens: 3 })).toBeCloseTo(0.4 / norm, 12);
    const sum = { mode: 'released-code', tokens: 3 } as const;
    expect(stepEntropy(entropies, 10, sum)).toBeCloseTo(0.7 / norm, 12);
    expect(stepEntropy([], 10, { mode: 'full', tokens: 2 })).toBeNull();
  });

  it('released code: a longer step looks more uncertain, and only ten candidates count', () => {
    const flat = new Array<number>(20).fill(1 / 20);
    const once = releasedCodeStepEntropy([flat], 20);
    expect(once).toBeCloseTo(0.5, 12);
    expect(releasedCodeStepEntropy([flat, flat], 20)).toBeCloseTo(2 * once, 12);
  });
});
