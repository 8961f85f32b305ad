/**
 * The live test of two versions, by simulation: equal versions that are looked at after every
 * conversation are seldom blamed, worse ones are found soon, and few conversations prove nothing.
 */
import { describe, expect, test } from 'vitest';
import { LIMITS } from '../limits.ts';
import { Prng } from '../prng.ts';
import type { LiveOutcomes } from '../records.ts';
import { compareLive, whyWorse } from './live-comparison.ts';

const TOLERANCE = 0.02;

function outcomes(version: number, rewards: number[], errors = 0): LiveOutcomes {
  const conversations = rewards.length;
  return { version, trajectories: conversations, conversations, errors, rewards };
}

/**
 * Conversations of the candidate until it is blamed; null when it never is. Of all conversations a
 * tenth goes to the candidate, and a look follows each of those.
 */
function blamedAfter(
  prng: Prng,
  rates: { base: number; candidate: number },
  conversations: number,
): number | null {
  const draw = (rate: number): number => (prng.next() < rate ? 1 : 0);
  const base: number[] = [];
  const candidate: number[] = [];
  while (candidate.length < conversations) {
    for (let i = 0; i < 9; i++) base.push(draw(rates.base));
    candidate.push(draw(rates.candidate));
    const seen = compareLive(outcomes(1, base), outcomes(2, candidate), TOLERANCE);
    if (whyWorse(seen) !== null) return candidate.length;
  }
  return null;
}

describe('compareLive', () => {
  test.each([0.05, 0.5, 0.9])('equal versions of reward %d are seldom blamed', (rate) => {
    const prng = new Prng(1);
    const runs = 200;
    let blamed = 0;
    for (let run = 0; run < runs; run++) {
      if (blamedAfter(prng, { base: rate, candidate: rate }, 120) !== null) blamed++;
    }
    expect(blamed / runs).toBeLessThanOrEqual(0.05);
  });

  test('the plain 95 % interval would blame them often: the reason for this one', () => {
    const prng = new Prng(1);
    const runs = 200;
    let blamed = 0;
    for (let run = 0; run < runs; run++) {
      let sum = 0;
      for (let n = 1; n <= 120; n++) {
        sum += prng.next() < 0.5 ? 1 : 0;
        if (n >= LIMITS.liveRatedMin && sum / n + 1.96 * Math.sqrt(0.25 / n) < 0.5) {
          blamed++;
          break;
        }
      }
    }
    expect(blamed / runs).toBeGreaterThan(0.1);
  });

  test.each([
    [{ base: 0.7, candidate: 0.1 }, 20],
    [{ base: 0.6, candidate: 0.3 }, 80],
  ])('a worse one, %o, is found within %i of its conversations, mostly', (rates, within) => {
    const prng = new Prng(2);
    const found = Array.from({ length: 100 }, () => blamedAfter(prng, rates, within));
    expect(found.filter((after) => after !== null).length).toBeGreaterThan(80);
  });

  test('errors count by themselves, without any reward', () => {
    const base = { version: 1, trajectories: 200, conversations: 200, errors: 4, rewards: [] };
    const candidate = { version: 2, trajectories: 20, conversations: 20, errors: 12, rewards: [] };
    const seen = compareLive(base, candidate, TOLERANCE);
    expect(seen.reward).toBeNull();
    expect(seen.candidate).toEqual({
      version: 2,
      conversations: 20,
      errors: 12,
      rated: 0,
      rewardMean: null,
    });
    expect(whyWorse(seen)).toMatch(/^more errors: difference 0\.580 \[/);
    expect(whyWorse(compareLive(base, { ...candidate, errors: 1 }, TOLERANCE))).toBeNull();
  });

  test('few conversations prove nothing', () => {
    const many = Array.from({ length: 500 }, () => 1);
    const few = Array.from({ length: LIMITS.liveRatedMin - 1 }, () => 0);
    expect(whyWorse(compareLive(outcomes(1, many), outcomes(2, few), TOLERANCE))).toBeNull();
    expect(whyWorse(compareLive(outcomes(1, few), outcomes(2, few), TOLERANCE))).toBeNull();
  });

  test('rewards of any scale: the same verdict when all are a hundredfold', () => {
    const base = Array.from({ length: 100 }, (_, i) => i % 2);
    const worse = Array.from({ length: 40 }, (_, i) => (i % 8 === 0 ? 1 : 0));
    const small = compareLive(outcomes(1, base), outcomes(2, worse), 0);
    const times = (list: number[]): number[] => list.map((value) => 100 * value);
    const large = compareLive(outcomes(1, times(base)), outcomes(2, times(worse)), 0);
    expect(large.reward?.high).toBeCloseTo(100 * (small.reward?.high ?? NaN), 8);
    expect(whyWorse(small)).toMatch(/^reward is lower/);
    expect(whyWorse(large)).toMatch(/^reward is lower/);
  });

  test('what always gives the same reward has no spread, and equal ones no difference', () => {
    const same = Array.from({ length: 30 }, () => 0.5);
    const seen = compareLive(outcomes(1, same), outcomes(2, same), TOLERANCE);
    expect(seen.reward).toEqual({ mean: 0, low: 0, high: 0 });
    expect(whyWorse(seen)).toBeNull();
  });
});
