/**
 * The gate: its interval against full enumeration, and what it lets through and what it refuses.
 */
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../limits.ts';
import { Prng } from '../prng.ts';
import type { GateAnswers, GateOutcome } from './gate.ts';
import { bootstrapMean, judgeCandidate } from './gate.ts';
import { testTask } from './testing/test-job.ts';

const SETTINGS = { tolerance: 0.02, seed: 1 };

function outcomes(right: readonly boolean[], wrongFormat = 0): GateAnswers {
  return { sampled: [answers(right, wrongFormat)], greedy: null };
}

function answers(right: readonly boolean[], wrongFormat = 0): GateOutcome[] {
  return right.map((correct, i) => ({
    task: testTask({ id: `task_${i}`, family: i % 2 === 0 ? 'math' : 'knowledge' }),
    correct,
    formatOk: i >= wrongFormat,
    toolCalls: i % 3,
  }));
}

/** `right` of `count` tasks answered, the first ones. */
const answered = (count: number, right: number): boolean[] =>
  Array.from({ length: count }, (_, i) => i < right);

/** Every resample there is: n^n of them, all equally likely. */
function allMeans(values: readonly number[]): number[] {
  const n = values.length;
  const means: number[] = [];
  for (let code = 0; code < n ** n; code++) {
    let sum = 0;
    for (let k = 0, rest = code; k < n; k++, rest = Math.floor(rest / n)) {
      sum += values[rest % n] as number;
    }
    means.push(sum / n);
  }
  return means.sort((a, b) => a - b);
}

describe('bootstrapMean', () => {
  it('finds the percentiles of the full enumeration', () => {
    const values = [0.9, -0.4, 0.15, 0.3, -0.05, 0.55];
    const exact = allMeans(values);
    const at = (share: number): number => exact[Math.floor(share * (exact.length - 1))] as number;
    const got = bootstrapMean(values, { seed: 3, resamples: 20_000 });
    expect(got.mean).toBeCloseTo(1.45 / 6, 12);
    // Between neighbouring percentiles: 20,000 draws place a 2.5 % quantile to about 0.1 %.
    expect(got.low).toBeGreaterThanOrEqual(at(0.021));
    expect(got.low).toBeLessThanOrEqual(at(0.029));
    expect(got.high).toBeGreaterThanOrEqual(at(0.971));
    expect(got.high).toBeLessThanOrEqual(at(0.979));
  });

  it('is a function of its seed', () => {
    const values = [1, 0, -1, 0.5, 0.25];
    expect(bootstrapMean(values, { seed: 9 })).toEqual(bootstrapMean(values, { seed: 9 }));
    expect(bootstrapMean([0.5, 0.5], { seed: 9 })).toEqual({ mean: 0.5, low: 0.5, high: 0.5 });
  });

  it('covers the true mean about as often as it says', () => {
    const random = new Prng(4);
    let covered = 0;
    for (let trial = 0; trial < 300; trial++) {
      const sample = Array.from({ length: 100 }, () => (random.next() < 0.3 ? 1 : 0));
      const { low, high } = bootstrapMean(sample, { seed: trial, resamples: 400 });
      if (low <= 0.3 && 0.3 <= high) covered++;
    }
    expect(covered / 300).toBeGreaterThan(0.9);
    expect(covered / 300).toBeLessThan(0.99);
  });
});

describe('judgeCandidate', () => {
  it('passes a better candidate and reports both by family', () => {
    const report = judgeCandidate(
      outcomes(answered(100, 40)),
      outcomes(answered(100, 70)),
      SETTINGS,
    );
    expect(report.passed).toBe(true);
    expect(report.tasks).toBe(100);
    expect(report.base['all']?.accuracy).toBe(0.4);
    expect(report.candidate['math']).toMatchObject({ tasks: 50, accuracy: 0.7, formatErrors: 0 });
    expect(report.difference.mean).toBeCloseTo(0.3, 12);
    expect(report.difference.low).toBeGreaterThan(0.2);
  });

  it('passes an equal candidate when the tolerance allows for it', () => {
    const same = outcomes(answered(50, 20));
    expect(judgeCandidate(same, same, SETTINGS)).toMatchObject({
      passed: true,
      difference: { mean: 0, low: 0, high: 0 },
    });
    expect(judgeCandidate(same, same, { ...SETTINGS, tolerance: 0 }).passed).toBe(false);
  });

  it('refuses a worse candidate, by accuracy', () => {
    const report = judgeCandidate(
      outcomes(answered(100, 70)),
      outcomes(answered(100, 60)),
      SETTINGS,
    );
    expect(report.passed).toBe(false);
    expect(report.reason).toContain('accuracy may be worse');
  });

  it('refuses to judge by fewer tasks than an interval needs, however often they are asked', () => {
    const many = (tasks: number): GateAnswers => ({
      sampled: Array.from({ length: 120 }, () => answers(answered(tasks, tasks))),
      greedy: null,
    });
    expect(judgeCandidate(many(LIMITS.gateTasksMin), many(LIMITS.gateTasksMin), SETTINGS)).toEqual(
      expect.objectContaining({ passed: true }),
    );
    for (const tasks of [1, LIMITS.gateTasksMin - 1]) {
      expect(judgeCandidate(many(tasks), many(tasks), SETTINGS)).toMatchObject({
        passed: false,
        reason: `held-out tasks are too few to compare on: ${tasks}, at least 20`,
      });
    }
  });

  it('refuses a candidate whose gain could be chance', () => {
    const random = new Prng(2);
    const noise = (): boolean[] => Array.from({ length: 60 }, () => random.below(2) === 1);
    const report = judgeCandidate(outcomes(noise()), outcomes(noise()), SETTINGS);
    expect(report.difference.low).toBeLessThan(-0.02);
    expect(report.passed).toBe(false);
  });

  it('refuses a candidate that breaks the format more often, even at higher accuracy', () => {
    const report = judgeCandidate(
      outcomes(answered(100, 40)),
      outcomes(answered(100, 80), 10),
      SETTINGS,
    );
    expect(report.passed).toBe(false);
    expect(report.reason).toBe('format errors rose from 0.000 to 0.100, tolerance 0.02');
  });

  it('refuses to compare different tasks', () => {
    const base = answers([true, false]);
    const reversed = { sampled: [[...base].reverse()], greedy: null };
    expect(() => judgeCandidate({ sampled: [base], greedy: null }, reversed, SETTINGS)).toThrow(
      'gate pair 0',
    );
  });

  it('averages several samples of a task, and reports pass@k and greedy figures beside', () => {
    const base = {
      sampled: [answers([true, false, false, false]), answers([false, false, true, false])],
      greedy: answers([true, true, false, false]),
    };
    const candidate = {
      sampled: [answers([true, true, true, false]), answers([true, false, true, false])],
      greedy: answers([true, true, true, false]),
    };
    const report = judgeCandidate(base, candidate, { tolerance: 1, seed: 1 });
    // By task: 1/2, 1/2, 1/2, 0.
    expect(report.difference.mean).toBeCloseTo(1.5 / 4, 12);
    expect(report).toMatchObject({ tasks: 4, samples: 2 });
    expect(report.base['all']).toMatchObject({
      tasks: 4,
      accuracy: 0.25,
      passAtK: 0.5,
      greedyAccuracy: 0.5,
    });
    expect(report.candidate['all']).toMatchObject({ accuracy: 0.625, passAtK: 0.75 });
    expect(report.candidate['math']).toMatchObject({ tasks: 2, accuracy: 1, passAtK: 1 });
  });
});
