/** Turns over random arrivals: classes, fairness over versions, and that nobody starves. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import type { Priority } from '../ports.ts';
import { planTurn, PRIORITIES, type Waiting } from './scheduler.ts';

const OPTIONS = { rowsMax: 4, agingTurns: 5 };

const job = (order: number, priority: Priority = 'live', version = 1): Waiting => ({
  ...{ order, priority, version },
  waits: 0,
});

/** Plans a turn and lets everyone run who got a row. */
function turn(jobs: readonly Waiting[], options = OPTIONS) {
  const turns = planTurn(jobs, options);
  for (const one of turns.flatMap((t) => t.jobs)) one.waits = 0;
  return turns.map(({ version, jobs: rows }) => ({ version, orders: rows.map((j) => j.order) }));
}

describe('a turn', () => {
  it('takes the most urgent class first, and in it who came first', () => {
    const jobs = [job(1, 'evaluation'), job(2, 'rollout'), job(4), job(3), job(5, 'rollout')];
    expect(turn(jobs)).toEqual([{ version: 1, orders: [3, 4, 2, 5] }]);
  });

  it('gives each version with the most urgent class a batch, and the others none', () => {
    const jobs = [job(1, 'rollout', 1), job(2, 'live', 2), job(3, 'live', 3)];
    expect(turn(jobs).map(({ version }) => version)).toEqual([2, 3]);
  });

  it('is empty when nobody waits', () => {
    expect(planTurn([], OPTIONS)).toEqual([]);
  });
});

describe('who waits', () => {
  it('runs once in so many turns behind a stream of more urgent ones', () => {
    const low = [job(0, 'evaluation'), job(1, 'rollout', 2)];
    const ran: number[][] = [[], []];
    for (let t = 0; t < 60; t++) {
      const live = Array.from({ length: 8 }, (_, i) => job(100 + 8 * t + i));
      const orders = turn([...low, ...live]).flatMap((one) => one.orders);
      low.forEach(({ order }, i) => {
        if (orders.includes(order)) ran[i]!.push(t);
      });
    }
    for (const turns of ran) expect(turns).toEqual([5, 11, 17, 23, 29, 35, 41, 47, 53, 59]);
  });

  it('takes no more than a quarter of the rows from the more urgent', () => {
    const options = { rowsMax: 8, agingTurns: 3 };
    const low = Array.from({ length: 20 }, (_, i) => job(i, 'rollout'));
    const live = Array.from({ length: 30 }, (_, i) => job(100 + i));
    for (let t = 0; t < 40; t++) {
      const [first] = turn([...low, ...live], options);
      expect(first!.orders.filter((order) => order < 100).length).toBeLessThanOrEqual(2);
    }
  });

  it.each([1, 2, 3])('is served within a bound whatever comes (seed %i)', (seed) => {
    const prng = new Prng(seed);
    const waiting = new Set<Waiting>();
    let worst = 0;
    for (let t = 0; t < 500; t++) {
      // Fewer come than rows go, so the queue stays short, but live ones come in every turn.
      for (let i = prng.below(4); i > 0; i--) {
        waiting.add(job(t * 4 + i, prng.pick(PRIORITIES), 1 + prng.below(3)));
      }
      for (const one of planTurn(waiting, OPTIONS).flatMap(({ jobs }) => jobs)) {
        worst = Math.max(worst, one.waits - 1);
        one.waits = 0;
        if (prng.below(2) === 0) waiting.delete(one);
      }
    }
    expect(worst).toBeGreaterThan(0);
    expect(worst).toBeLessThanOrEqual(4 * OPTIONS.agingTurns);
  });
});
