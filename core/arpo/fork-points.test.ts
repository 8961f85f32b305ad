/** The value of a fork against its formula, worked out on the result by itself; draws by hand. */
import { describe, expect, it } from 'vitest';
import { drawForks, sharesOf, weighPoints, type ForkPoint } from './fork-points.ts';
import { mean } from './number.ts';
import type { RolloutGroup } from './rollout.ts';
import { rolloutSettings, type DeferredSettings } from './rollout-settings.ts';
import { roll } from './testing/table-rollouts.ts';

/** The formula of the file head, by recursion over paths. */
function valueAt(paths: RolloutGroup['trajectories'], stepId: string): number {
  const rewards = paths.map(({ reward }) => reward);
  const [low, high] = [Math.min(...rewards), Math.max(...rewards)];
  const outcome = (reward: number) => (high === low ? 0 : (reward - low) / (high - low));
  const estimate = (id: string): number => {
    const below = paths.filter(({ steps }) => steps.some((step) => step.id === id));
    const path = below[0]?.steps ?? [];
    const at = path.findIndex((step) => step.id === id);
    const before = path.slice(0, at).findLast(({ kind }) => kind === 'tool');
    const prior = before === undefined ? mean(rewards.map(outcome)) : estimate(before.id);
    const total = below.reduce((sum, { reward }) => sum + outcome(reward), 0);
    return (total + prior) / (below.length + 1);
  };
  const below = paths.filter(({ steps }) => steps.some((step) => step.id === stepId));
  const after = below.map(({ steps }) => {
    const at = steps.findIndex((step) => step.id === stepId);
    return steps.slice(at + 1).filter(({ kind }) => kind === 'tool').length;
  });
  const p = estimate(stepId);
  return (p * (1 - p)) / (1 + mean(after));
}

describe('value', () => {
  it('is the variance of a new leaf over what it costs, in every wave', async () => {
    const settings = { branch: 'deferred', forkBy: 'value', initialRollouts: 4, waves: 2 };
    let checked = 0;
    for (let seed = 0; seed < 6; seed++) {
      const { groups } = await roll({ settings, seed });
      for (const { decisions, trajectories } of groups) {
        // The second wave begins where a point comes again, or one of a fork.
        const second = decisions.findIndex(
          ({ stepId }, i) => decisions.findIndex((other) => other.stepId === stepId) < i,
        );
        if (second < 0) continue;
        const wave = decisions.slice(0, second);
        const roots = trajectories.slice(0, 4);
        for (const { stepId, signal } of wave) {
          expect(signal).toBeCloseTo(valueAt(roots, stepId), 12);
          checked++;
        }
        const forks = wave.reduce((sum, { siblings }) => sum + siblings, 0);
        const grown = trajectories.slice(0, 4 + forks);
        for (const { stepId, signal } of decisions.slice(second)) {
          expect(signal).toBeCloseTo(valueAt(grown, stepId), 12);
          checked++;
        }
      }
    }
    expect(checked).toBeGreaterThan(50);
  });

  it('of equal rewards leaves every point the same share', () => {
    const settings = rolloutSettings('arpo', { branch: 'deferred', forkBy: 'value' });
    const sharesAt = (...variances: number[]) => {
      const points = variances.map((variance) => ({ variance, callsAfter: 1 }) as ForkPoint);
      return sharesOf(weighPoints(points, settings as DeferredSettings));
    };
    expect(sharesAt(0, 0)).toEqual([0.5, 0.5]);
    expect(sharesAt(0.2, 0.1, 0)).toEqual([2 / 3, 1 / 3, 0]);
  });
});

describe('drawForks', () => {
  const points = (...capacities: number[]) => capacities.map((capacity) => ({ capacity }));
  const weights = (...values: number[]) =>
    values.map((weight) => ({ logWeight: Math.log(weight), signal: null }));

  it('takes the point at which the running weight passes the draw', () => {
    const once = (draw: number) =>
      drawForks(points(1, 1, 1), weights(1, 2, 1), { count: 1, beam: 1, draw: () => draw });
    expect([0.2, 0.3, 0.7, 0.8].map(once)).toEqual([
      [1, 0, 0],
      [0, 1, 0],
      [0, 1, 0],
      [0, 0, 1],
    ]);
  });

  it('comes to a point again when every other one had its turn, and stops at the room', () => {
    const draw = () => 0.01;
    const drawn = (count: number) =>
      drawForks(points(2, 1, 3), weights(100, 1, 0), { count, beam: 1, draw });
    expect(drawn(2)).toEqual([1, 1, 0]);
    expect(drawn(3)).toEqual([1, 1, 1]);
    expect(drawn(4)).toEqual([2, 1, 1]);
    expect(drawn(99)).toEqual([2, 1, 3]);
    expect(drawForks([], [], { count: 3, beam: 1, draw })).toEqual([]);
  });

  it('opens a beam within count and room', () => {
    const drawn = (count: number) =>
      drawForks(points(3, 1), weights(1, 1), { count, beam: 2, draw: () => 0.01 });
    expect(drawn(1)).toEqual([1, 0]);
    expect(drawn(2)).toEqual([2, 0]);
    expect(drawn(9)).toEqual([3, 1]);
  });
});
