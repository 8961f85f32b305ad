/** What the curriculum draws, against its weights, and that draws are keyed. */
import { describe, expect, it } from 'vitest';
import { Curriculum } from './curriculum.ts';
import { testTask } from './testing/test-job.ts';

const FLOOR = 0.05;
const tasks = Array.from({ length: 12 }, (_, i) =>
  testTask({ id: `task_${i}`, family: i < 8 ? 'large' : 'small' }),
);

/** How often each value of `key` is drawn, as a share, over many steps of one task each. */
function shares(curriculum: Curriculum, key: 'id' | 'family', steps = 6_000): Map<string, number> {
  const counts = new Map<string, number>();
  for (let step = 1; step <= steps; step++) {
    for (const task of curriculum.deal(1, { step, round: 0 })) {
      counts.set(task[key], (counts.get(task[key]) ?? 0) + 1 / steps);
    }
  }
  return counts;
}

/** Observes a task so often that its share is what was observed. */
function teach(curriculum: Curriculum, index: number, solved: number): void {
  for (let i = 0; i < 60; i++) curriculum.learn(tasks[index] as (typeof tasks)[0], solved);
}

describe('the curriculum', () => {
  it('draws families alike at first, whatever their sizes', () => {
    const drawn = shares(new Curriculum(tasks, 1, FLOOR), 'family');
    expect(drawn.get('large')).toBeCloseTo(0.5, 1);
  });

  it('draws by p (1 - p) + floor, families and then tasks in them', () => {
    const curriculum = new Curriculum(tasks, 1, FLOOR);
    // small: two always solved, then two half solved, which leaves the family at half.
    for (const [index, solved] of [
      [8, 1],
      [9, 1],
      [10, 0.5],
      [11, 0.5],
    ] as const) {
      teach(curriculum, index, solved);
    }
    const weights = [FLOOR, FLOOR, 0.25 + FLOOR, 0.25 + FLOOR];
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const drawn = shares(curriculum, 'id');
    const small = [8, 9, 10, 11].map((i) => drawn.get(`task_${i}`) ?? 0);
    const family = small.reduce((sum, share) => sum + share, 0);
    expect(family).toBeCloseTo(0.5, 1);
    small.forEach((share, i) => {
      expect(share / family).toBeCloseTo((weights[i] as number) / total, 1);
    });
  });

  it('draws a family less that is never solved, but still draws it', () => {
    const curriculum = new Curriculum(tasks, 1, FLOOR);
    for (let i = 8; i < 12; i++) teach(curriculum, i, 0);
    const drawn = shares(curriculum, 'family').get('small') ?? 0;
    expect(drawn).toBeCloseTo(FLOOR / (FLOOR + 0.25 + FLOOR), 1);
    expect(drawn).toBeGreaterThan(0);
  });

  it('repeats no task in a step while its family has others', () => {
    const curriculum = new Curriculum(tasks, 3, FLOOR);
    for (let step = 1; step <= 50; step++) {
      const small = curriculum
        .deal(6, { step, round: 0 })
        .filter(({ family }) => family === 'small')
        .map(({ id }) => id);
      expect(new Set(small).size).toBe(Math.min(4, small.length));
    }
  });

  it('is a function of seed, step, round and what it learned', () => {
    const one = new Curriculum(tasks, 5, FLOOR);
    const two = new Curriculum(tasks, 5, FLOOR);
    const ids = (curriculum: Curriculum, step: number, round = 0): string[] =>
      curriculum.deal(4, { step, round }).map(({ id }) => id);
    // Asked in another order, or for the second time.
    const later = ids(one, 7);
    expect(ids(one, 3)).toEqual(ids(two, 3));
    expect(ids(two, 7)).toEqual(later);
    expect(ids(one, 7, 1)).not.toEqual(later);
    teach(one, 2, 0.3);
    teach(one, 9, 1);
    const state = JSON.parse(JSON.stringify(one.state())) as ReturnType<Curriculum['state']>;
    two.restore(state);
    for (let step = 1; step < 20; step++) expect(ids(two, step)).toEqual(ids(one, step));
  });

  it('needs tasks', () => {
    expect(() => new Curriculum([], 1, FLOOR)).toThrowError(
      expect.objectContaining({ code: 'invalid_request' }),
    );
  });
});
