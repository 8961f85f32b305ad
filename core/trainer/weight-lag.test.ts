/** Which weights the sampler has after each step, and that a checkpoint keeps the queue. */
import { expect, it } from 'vitest';
import type { Weights } from '../model/types.ts';
import { copyOf, WeightLag } from './weight-lag.ts';

const weights = (value: number): Weights =>
  new Map([['w', { shape: [1], data: Float32Array.of(value) }]]);
const valueOf = (some: Weights): number => some.get('w')?.data[0] as number;

/** The sampler's weights at the start of each step; step s leaves weight s. */
function sampledAt(lag: number, steps: number, restartAfter: number | null = null): number[] {
  let trained = weights(0);
  let sampled = lag === 0 ? trained : copyOf(trained);
  let queue = new WeightLag(trained, sampled, lag);
  return Array.from({ length: steps }, (_, i) => {
    const seen = valueOf(sampled);
    trained.get('w')?.data.fill(i + 1);
    queue.advance();
    if (i + 1 === restartAfter) {
      const sets = queue.sets().map(copyOf);
      trained = copyOf(trained);
      sampled = lag === 0 ? trained : weights(-1);
      queue = new WeightLag(trained, sampled, lag);
      queue.restore(sets);
    }
    return seen;
  });
}

it('follows so many steps behind', () => {
  expect(sampledAt(0, 5)).toEqual([0, 1, 2, 3, 4]);
  expect(sampledAt(1, 5)).toEqual([0, 0, 1, 2, 3]);
  expect(sampledAt(3, 6)).toEqual([0, 0, 0, 0, 1, 2]);
});

it('goes on the same after a restart', () => {
  for (const lag of [0, 1, 3]) {
    for (let step = 1; step < 7; step++) expect(sampledAt(lag, 7, step)).toEqual(sampledAt(lag, 7));
  }
});

it('catches up at the end', () => {
  const trained = weights(0);
  const sampled = copyOf(trained);
  const queue = new WeightLag(trained, sampled, 2);
  expect(queue.behind).toBe(false);
  trained.get('w')?.data.fill(1);
  queue.advance();
  expect([queue.behind, valueOf(sampled)]).toEqual([true, 0]);
  queue.catchUp();
  expect([queue.behind, valueOf(sampled)]).toEqual([false, 1]);
});
