/** Verifiers and the reward of a trajectory: format penalty, best truth, multi-tool bonus. */
import { describe, expect, it } from 'vitest';
import vectors from '../../test/fixtures/arpo-vectors.json' with { type: 'json' };
import { f1, judge, normalise, verify } from './reward.ts';

describe('verify', () => {
  it('takes the best of the accepted truths', () => {
    const task = { verifier: 'qa-f1', truths: ['Kingdom of Norway', 'Norway'] } as const;
    expect(verify({ ...task, truths: [...task.truths] }, 'norway')).toBe(1);
    expect(verify({ verifier: 'qa-f1', truths: [] }, 'norway')).toBe(0);
  });

  it('exact forgives case, articles and punctuation, nothing else', () => {
    const exact = (answer: string) => verify({ verifier: 'exact', truths: ['The Hague'] }, answer);
    expect(exact('hague.')).toBe(1);
    expect(exact('hague netherlands')).toBe(0);
  });

  it('a text that normalisation empties is compared as it stands', () => {
    for (const verifier of ['qa-f1', 'exact', 'math'] as const) {
      expect(verify({ verifier, truths: ['A'] }, ' a')).toBe(1);
      expect(verify({ verifier, truths: ['A'] }, 'the')).toBe(0);
      expect(verify({ verifier, truths: ['A'] }, '')).toBe(0);
      expect(verify({ verifier, truths: ['x'] }, '!')).toBe(0);
    }
  });

  it('math compares numbers, or texts where the truth is none', () => {
    const math = (answer: string, truth: string) =>
      verify({ verifier: 'math', truths: [truth] }, answer);
    expect(math('42.0', '42')).toBe(1);
    expect(math('43', '42')).toBe(0);
    expect(math('forty two', '42')).toBe(0);
    expect(math('Infinity', 'infinity')).toBe(1);
  });

  it('normalises articles as words only, beside letters of any script', () => {
    expect(normalise("  The a-b  an Éa côte d'Ivoire! ")).toBe('ab éa côte divoire');
  });
});

describe('f1', () => {
  it.each(vectors.f1)('$prediction against $truth', ({ prediction, truth, f1: expected }) => {
    expect(f1(prediction, truth)).toBeCloseTo(expected, 12);
  });
});

describe('judge', () => {
  const task = { verifier: 'qa-f1' as const, truths: ['new york'] };
  const outcome = { answer: 'New York', formatError: null, toolsUsed: ['search'] };

  it('gives -1 for a wrong format, even with the right answer in it', () => {
    const broken = { ...outcome, formatError: 'unpaired tag', toolsUsed: ['a', 'b'] };
    expect(judge(task, broken, 0.1)).toEqual({ reward: -1, score: 0, correct: false });
    expect(judge(task, { ...outcome, answer: null }, 0.1).reward).toBe(-1);
  });

  it('adds the bonus for two different tools and a score above 0 only', () => {
    const both = ['search', 'search', 'javascript'];
    expect(judge(task, outcome, 0.1).reward).toBe(1);
    expect(judge(task, { ...outcome, toolsUsed: ['search', 'search'] }, 0.1).reward).toBe(1);
    expect(judge(task, { ...outcome, toolsUsed: both }, 0.1).reward).toBeCloseTo(1.1, 12);
    expect(judge(task, { ...outcome, toolsUsed: both }, 0).reward).toBe(1);
    expect(judge(task, { ...outcome, answer: 'Oslo', toolsUsed: both }, 0.1).reward).toBe(0);
  });

  it('calls only a full score correct', () => {
    const half = judge(task, { ...outcome, answer: 'York' }, 0.1);
    expect(half.reward).toBeCloseTo(2 / 3, 12);
    expect(half.correct).toBe(false);
    expect(judge(task, outcome, 0.1).correct).toBe(true);
  });
});
