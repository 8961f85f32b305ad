/** Dealing tasks: balance, no repeats within a round, same seed same order. */
import { describe, expect, it } from 'vitest';
import type { Task } from '../records.ts';
import { drawGateTasks, TaskDeck } from './task-deck.ts';
import { testTask } from './testing/test-job.ts';

const task = (family: string, n: number): Task => testTask({ id: `${family}_${n}`, family });
const tasks = [
  ...Array.from({ length: 9 }, (_, n) => task('math', n)),
  ...Array.from({ length: 4 }, (_, n) => task('knowledge', n)),
  ...Array.from({ length: 6 }, (_, n) => task('deep-search', n)),
];
const ids = (drawn: Task[]): string[] => drawn.map(({ id }) => id);

describe('TaskDeck', () => {
  it('takes families in turn, so that every step is balanced', () => {
    const deck = new TaskDeck(tasks, 1);
    for (let step = 0; step < 10; step++) {
      const families = deck.deal(6).map(({ family }) => family);
      expect(families.sort()).toEqual([
        'deep-search',
        'deep-search',
        'knowledge',
        'knowledge',
        'math',
        'math',
      ]);
    }
  });

  it('deals a family through before a task comes again, in another order then', () => {
    const deck = new TaskDeck(tasks, 2);
    const math = ids(deck.deal(3 * 27)).filter((id) => id.startsWith('math'));
    const rounds = [math.slice(0, 9), math.slice(9, 18), math.slice(18, 27)];
    for (const round of rounds) expect(new Set(round).size).toBe(9);
    expect(rounds[1]).not.toEqual(rounds[0]);
  });

  it('is a function of its seed', () => {
    expect(ids(new TaskDeck(tasks, 3).deal(20))).toEqual(ids(new TaskDeck(tasks, 3).deal(20)));
    expect(ids(new TaskDeck(tasks, 3).deal(20))).not.toEqual(ids(new TaskDeck(tasks, 4).deal(20)));
  });

  it('refuses to deal from nothing', () => {
    expect(() => new TaskDeck([], 1)).toThrow('no tasks to draw from');
  });
});

describe('drawGateTasks', () => {
  it('draws each task at most once, balanced while families last', () => {
    const drawn = drawGateTasks(tasks, 12, 5);
    expect(new Set(ids(drawn)).size).toBe(12);
    expect(drawn.filter(({ family }) => family === 'knowledge').length).toBe(4);
    expect(ids(drawGateTasks(tasks, 1_000, 5)).sort()).toEqual(ids(tasks).sort());
  });
});
