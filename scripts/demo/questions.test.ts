/** The choice of questions: even, seeded, and apart from what is asked during training. */
import { expect, it } from 'vitest';
import { chooseQuestions, readTestTasks } from './questions.ts';

const tasks = readTestTasks();

it('takes as many of each family and leaves the others', () => {
  const { questions, rest } = chooseQuestions(tasks, 60, 1);
  const families = [...new Set(questions.map(({ family }) => family))];
  for (const family of families) {
    expect(questions.filter((task) => task.family === family)).toHaveLength(20);
  }
  expect(families).toHaveLength(3);
  expect(questions.every(({ split }) => split === 'test')).toBe(true);
  const ids = new Set([...questions, ...rest].map(({ id }) => id));
  expect(ids.size).toBe(tasks.length);
});

it('depends on the seed only', () => {
  const ids = (seed: number): string[] =>
    chooseQuestions(tasks, 60, seed).questions.map(({ id }) => id);
  expect(ids(2)).toEqual(ids(2));
  expect(ids(2)).not.toEqual(ids(3));
});

it('spreads a count that does not divide, and refuses one that is too large', () => {
  const { questions } = chooseQuestions(tasks, 61, 1);
  expect(questions).toHaveLength(61);
  expect(() => chooseQuestions(tasks, 700, 1)).toThrow(/--questions 700: family deep-search/);
});
