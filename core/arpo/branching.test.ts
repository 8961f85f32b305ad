/**
 * Branch probabilities against the vectors, and against the rules simulated as they are written.
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import vectors from '../../test/fixtures/arpo-vectors.json' with { type: 'json' };
import {
  aepoProbability,
  aepoRootCount,
  paperDecision,
  paperProbability,
  releasedCodeProbability,
} from './branching.ts';
import { clamp } from './number.ts';

describe('branch probability', () => {
  const { paper, releasedCode, aepo, aepoRoots } = vectors.branchProbability;

  it.each(paper)('paper dH=$dH', ({ dH, alpha, beta, p }) => {
    expect(paperProbability(dH, { alpha, beta })).toBeCloseTo(p, 12);
  });
  it.each(releasedCode)('released code dH=$dH', ({ dH, w, p0, p }) => {
    expect(releasedCodeProbability(dH, { w, p0 })).toBeCloseTo(p, 12);
  });
  it.each(aepo)('aepo dH=$dH c=$consecutive', ({ dH, consecutive, w, p0, p }) => {
    expect(aepoProbability(dH, consecutive, { w, p0 })).toBeCloseTo(p, 12);
  });
  it.each(aepoRoots)('aepo roots at $rootMinusTool', ({ M, rootMinusTool, N }) => {
    expect(aepoRootCount(M, rootMinusTool)).toBe(N);
  });

  it.each([
    [0.2, 0.5],
    [2, 0],
    [2, 1],
  ])('equals the share of branches of the released rules as written, w %f, p0 %f', (w, p0) => {
    const draws = 20_000;
    const random = new Prng(5);
    for (const dH of [-3, -1, -0.2, 0, 0.4, 2, 4]) {
      for (const c of [0, 3, 9, 10, 25]) {
        let released = 0;
        let aepoCount = 0;
        for (let i = 0; i < draws; i++) {
          const u = random.next();
          if (clamp(u - w * dH, 0, 1) <= p0) released++;
          if (clamp((u + w * dH) * Math.max(0, 1 - 0.05 * c), 0, 1) >= p0) aepoCount++;
        }
        const releasedP = releasedCodeProbability(dH, { w, p0 });
        expect(Math.abs(releasedP - released / draws)).toBeLessThan(0.015);
        const p = aepoProbability(dH, c, { w, p0 });
        expect(Math.abs(p - aepoCount / draws)).toBeLessThan(0.015);
      }
    }
  });

  it('decides by the draw, or by the threshold where one is set', () => {
    expect(paperDecision(0.4, null, 0.39)).toBe(true);
    expect(paperDecision(0.4, null, 0.41)).toBe(false);
    expect(paperDecision(0.4, 0.4, 0)).toBe(false);
    expect(paperDecision(0.41, 0.4, 0.999)).toBe(true);
  });
});
