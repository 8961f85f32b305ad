/** Importance weights by their definitions, and the age of logged trajectories. */
import { describe, expect, it } from 'vitest';
import type { StepRecord } from '../records.ts';
import { importanceWeights } from './importance.ts';
import { isAdmissible, staleness } from './staleness.ts';

const TOKENS = { old: [-1, -2, -0.5], behaviour: [-1.5, -1.8, -2.5] };

describe('importance weights', () => {
  it('token: the ratio of each, cut at the cap', () => {
    const weights = importanceWeights(TOKENS, { importance: 'token', importanceCap: 2 });
    [Math.exp(0.5), Math.exp(-0.2), 2].forEach((expected, t) =>
      expect(weights[t]).toBeCloseTo(expected, 12),
    );
  });

  it('sequence: the product of the ratios, cut at the cap, for every token', () => {
    const high = importanceWeights(TOKENS, { importance: 'sequence', importanceCap: 2 });
    expect(high).toEqual([2, 2, 2]);
    const loose = importanceWeights(TOKENS, { importance: 'sequence', importanceCap: 100 });
    for (const weight of loose) expect(weight).toBeCloseTo(Math.exp(2.3), 10);
  });

  it('the mask looks at the geometric mean, whatever the length', () => {
    const ratio = Math.exp(2.3 / 3);
    const within = importanceWeights(TOKENS, { geometricMask: [ratio - 0.01, ratio + 0.01] });
    expect(within).toEqual([1, 1, 1]);
    expect(importanceWeights(TOKENS, { geometricMask: [0.5, ratio - 0.01] })).toEqual([0, 0, 0]);
    expect(importanceWeights(TOKENS, { geometricMask: [ratio + 0.01, 9] })).toEqual([0, 0, 0]);
  });

  it('are exactly 1 where the policy itself sampled, and without a setting', () => {
    const fresh = { old: TOKENS.old, behaviour: TOKENS.old };
    for (const importance of ['none', 'token', 'sequence'] as const) {
      const settings = { importance, importanceCap: 2, geometricMask: [0.999, 1.001] } as const;
      expect(importanceWeights(fresh, settings)).toEqual([1, 1, 1]);
    }
    expect(importanceWeights(TOKENS, {})).toEqual([1, 1, 1]);
    expect(importanceWeights({ old: [], behaviour: [] }, { geometricMask: [0.9, 1.1] })).toEqual(
      [],
    );
  });
});

describe('staleness', () => {
  const sampledBy = (...versions: number[]) => [
    { kind: 'prompt', policyVersion: 0 } as StepRecord,
    ...versions.map((policyVersion) => ({ kind: 'policy', policyVersion }) as StepRecord),
  ];

  it('is that of the token furthest from now, in either direction; prompts do not count', () => {
    expect(staleness(sampledBy(7, 5, 6), 8)).toBe(3);
    expect(staleness(sampledBy(9), 6)).toBe(3);
    expect(staleness(sampledBy(), 6)).toBe(0);
  });

  it('admits up to its limit, and everything without one', () => {
    const trajectory = { steps: sampledBy(4, 7) };
    expect(isAdmissible(trajectory, 8, { maxStaleness: 4 })).toBe(true);
    expect(isAdmissible(trajectory, 8, { maxStaleness: 3 })).toBe(false);
    expect(isAdmissible(trajectory, 80, {})).toBe(true);
  });
});
