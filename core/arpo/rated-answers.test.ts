/** What an answer is worth by the ratings of others: agreement, conflict, and what is not known. */
import { describe, expect, it } from 'vitest';
import { RatedAnswers, type Rating } from './rated-answers.ts';

const rated = (...ratings: [answer: string, reward: number][]): RatedAnswers =>
  new RatedAnswers(ratings.map(([answer, reward]): Rating => ({ answer, reward })));

const reward = (answers: RatedAnswers, answer: string): number | null =>
  answers.judge({ answer, formatError: null })?.reward ?? null;

describe('RatedAnswers', () => {
  it('gives an answer the rating of the answer that it agrees with', () => {
    const answers = rated(['The Danube', 1], ['the Rhine', -1], ['Loire', 0]);
    expect(reward(answers, 'danube')).toBe(1);
    expect(reward(answers, 'Rhine.')).toBe(-1);
    expect(reward(answers, 'loire')).toBe(0);
    expect(answers.judge({ answer: 'danube', formatError: null })).toEqual({
      reward: 1,
      score: 1,
      correct: true,
    });
    expect(answers.judge({ answer: 'Rhine', formatError: null })).toEqual({
      reward: -1,
      score: 0,
      correct: false,
    });
    expect(answers.liked).toEqual(['The Danube']);
  });

  it('takes another answer for wrong, as far as it differs, where one is liked', () => {
    const answers = rated(['North Dakota', 1], ['Ohio', -1]);
    expect(reward(answers, 'Texas')).toBe(0);
    expect(reward(answers, 'South Dakota')).toBeCloseTo(0.5, 12);
    expect(reward(rated(['North Dakota', 0.5]), 'South Dakota')).toBeCloseTo(0.25, 12);
  });

  it('knows nothing of another answer where none is liked', () => {
    const answers = rated(['Ohio', -1], ['Iowa', 0]);
    expect(reward(answers, 'Texas')).toBeNull();
    expect(reward(answers, 'Ohio')).toBe(-1);
    expect(rated().judge({ answer: 'Texas', formatError: null })).toBeNull();
  });

  it('takes the mean of several ratings, conflicting ones too', () => {
    expect(reward(rated(['Ohio', 1], ['ohio', 0], ['OHIO', -1], ['Ohio', 1]), 'ohio')).toBe(0.25);
    const disputed = rated(['Ohio', 1], ['Ohio', -1]);
    // Liked and disliked as often: no truth, and so nothing about others.
    expect(disputed.liked).toEqual([]);
    expect(reward(disputed, 'Ohio')).toBe(0);
    expect(reward(disputed, 'Texas')).toBeNull();
  });

  it('holds ratings within [-1, 1]', () => {
    expect(reward(rated(['a1', 7]), 'a1')).toBe(1);
    expect(reward(rated(['a1', -7]), 'a1')).toBe(-1);
  });

  it('gives a wrong format its penalty, whatever was said of the answer', () => {
    const answers = rated(['Ohio', 1]);
    const penalty = { reward: -1, score: 0, correct: false };
    expect(answers.judge({ answer: 'Ohio', formatError: 'no <answer>' })).toEqual(penalty);
    expect(answers.judge({ answer: null, formatError: null })).toEqual(penalty);
    expect(rated().judge({ answer: null, formatError: 'cut' })).toEqual(penalty);
  });

  it.each([
    ['48', '48.0', 1],
    ['48 cards', '48', 1],
    ['1.5', '15', 0],
    ['1,500', '1500', 1],
    ['1/2', '0.5', 1],
    ['2 Kings', '2 Samuel', 0.5],
    ['2 Kings', '2 kings', 1],
    ['48', 'forty-eight', 0],
    ['River Thames', 'Thames River', 1],
  ])('%s against a liked %s: %d', (answer, liked, expected) => {
    expect(reward(rated([liked, 1]), answer)).toBe(expected);
  });
});
