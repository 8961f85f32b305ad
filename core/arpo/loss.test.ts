/**
 * Flat and packed loss against the vectors, finite differences in every clip region, and each
 * other.
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import vectors from '../../test/fixtures/arpo-vectors.json' with { type: 'json' };
import { flatLoss, packedCoefficients, packedObjective, tokenObjective } from './loss.ts';

describe('loss', () => {
  const { epsLow, epsHigh, dualClip, unique, trajectories, loss, gradLogp, packed } = vectors.loss;
  const clip = { epsLow, epsHigh, dualClip };
  const byId = new Map(unique.map((token) => [token.id, token]));
  const flat = trajectories.flatMap(({ tokens, A }) =>
    tokens.map((id) => {
      const { logp, old } = byId.get(id) as (typeof unique)[number];
      return { id, logp, old, advantage: A, weight: 1 };
    }),
  );
  const coefficients = packedCoefficients(
    trajectories.map(({ tokens, A }) => ({ tokens, advantage: A })),
  );

  it('flat form gives the vector loss and gradient', () => {
    const result = flatLoss(flat, clip);
    expect(result.loss).toBeCloseTo(loss, 12);
    for (const [id, expected] of Object.entries(gradLogp)) {
      const sum = flat.reduce(
        (total, token, t) => total + (token.id === id ? (result.gradients[t] as number) : 0),
        0,
      );
      expect(sum).toBeCloseTo(expected, 12);
    }
  });

  it('packed coefficients are those of the vector, and give the same loss', () => {
    let total = 0;
    for (const [id, expected] of Object.entries(packed)) {
      const held = coefficients.get(id);
      expect(held?.d).toBe(expected.d);
      expect(held?.plus).toBeCloseTo(expected.plus, 12);
      expect(held?.minus).toBeCloseTo(expected.minus, 12);
      const { logp, old } = byId.get(id) as (typeof unique)[number];
      total += packedObjective(logp, old, held ?? { plus: 0, minus: 0, d: 0 }, clip).value;
    }
    expect(-total / vectors.loss.tokens).toBeCloseTo(loss, 12);
  });

  it('gradient equals finite differences in every clip region, weights included', () => {
    const random = new Prng(3);
    const step = 1e-6;
    for (let trial = 0; trial < 200; trial++) {
      const tokens = Array.from({ length: 4 }, () => {
        const old = -3 * random.next();
        // Ratios between 0.3 and 5 reach all four regions; kinks themselves have probability 0.
        return {
          logp: old + Math.log(0.3 + 4.7 * random.next()),
          old,
          advantage: random.gaussian(),
          weight: random.pick([0, 1, 1, 0.5]),
        };
      });
      const { gradients } = flatLoss(tokens, clip);
      tokens.forEach((token, t) => {
        const moved = (by: number) =>
          flatLoss(
            tokens.map((other, k) => (k === t ? { ...token, logp: token.logp + by } : other)),
            clip,
          ).loss;
        expect(gradients[t]).toBeCloseTo((moved(step) - moved(-step)) / (2 * step), 6);
      });
    }
  });

  it('packed equals flat, value and gradient, on random sets of trajectories through a token', () => {
    const random = new Prng(17);
    for (let trial = 0; trial < 500; trial++) {
      const old = -2 * random.next();
      const logp = old + 2 * random.gaussian();
      const advantages = Array.from({ length: 1 + random.below(8) }, () => random.gaussian());
      const objectives = advantages.map((A) => tokenObjective(logp, old, A, clip));
      const shared = packedCoefficients(
        advantages.map((advantage) => ({ tokens: ['t'], advantage })),
      ).get('t');
      const joined = packedObjective(logp, old, shared ?? { plus: 0, minus: 0, d: 0 }, clip);
      const sum = (of: 'value' | 'gradient') => objectives.reduce((a, o) => a + o[of], 0);
      expect(joined.value).toBeCloseTo(sum('value'), 9);
      expect(joined.gradient).toBeCloseTo(sum('gradient'), 9);
    }
  });

  it('has no part for tokens of weight 0, and is 0 when nothing was sampled', () => {
    const token = { logp: -1, old: -1, advantage: 1, weight: 1 };
    const alone = flatLoss([token], clip);
    const withContext = flatLoss([{ ...token, logp: -9, weight: 0 }, token], clip);
    expect(withContext.loss).toBe(alone.loss);
    expect(withContext.gradients[0]).toBe(0);
    expect(flatLoss([{ ...token, weight: 0 }], clip).loss).toBe(0);
  });
});
