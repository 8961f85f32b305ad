/**
 * Deferred forks: after the roots, bounded a point, in waves, and none where nothing can be learnt.
 */
import { describe, expect, it } from 'vitest';
import { tableWith } from '../../test/support/table-policy.ts';
import { rolloutFigures } from '../trainer/figures.ts';
import type { RolloutGroup } from './rollout.ts';
import { roll, sum } from './testing/table-rollouts.ts';

const certain = tableWith({ '</think>': { '<search>': 1 } });
const RULES = [
  ['entropy', { branch: 'deferred' }],
  ['value', { branch: 'deferred', forkBy: 'value' }],
  ['uniform', { branch: 'uniform' }],
] as const;

/** Forks by the tool step behind which they began. */
function forksOf({ trajectories }: RolloutGroup): Map<string, number> {
  const forks = new Map<string, number>();
  for (const { branch } of trajectories) {
    if (branch !== null) forks.set(branch.stepId, (forks.get(branch.stepId) ?? 0) + 1);
  }
  return forks;
}

describe.each(RULES)('by %s', (_, rule) => {
  it('one wave forks the roots only, as its decisions say', async () => {
    const settings = { ...rule, initialRollouts: 6 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const group of groups) {
      expect(group.trajectories.slice(6).every(({ branch }) => (branch?.parent ?? 9) < 6)).toBe(
        true,
      );
      // Six roots of six calls, each result followed by a step: all 36 could have been drawn.
      expect(group.decisions).toHaveLength(36);
      expect(sum(group.decisions.map(({ probability }) => probability))).toBeCloseTo(1, 9);
      const opened = group.decisions.filter(({ siblings }) => siblings > 0);
      expect(new Map(opened.map(({ stepId, siblings }) => [stepId, siblings]))).toEqual(
        forksOf(group),
      );
      // Ten forks of 36 points spread over ten.
      expect(opened).toHaveLength(10);
    }
  });

  it('later waves fork forks too', async () => {
    const settings = { ...rule, initialRollouts: 2, waves: 5 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const { trajectories } of groups) {
      expect(trajectories.some(({ branch }) => (branch?.parent ?? 0) >= 2)).toBe(true);
    }
  });

  it('a point has forksPerPoint forks at most; what finds no place becomes a root', async () => {
    const settings = { ...rule, initialRollouts: 2, forksPerPoint: 2, maxToolCalls: 1 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const group of groups) {
      expect([...forksOf(group).values()]).toEqual([2, 2]);
      expect(group.counts).toMatchObject({ branches: 4, rootRollouts: 12 });
    }
  });

  it('a beam opens its siblings together', async () => {
    const settings = { ...rule, initialRollouts: 4, beamSize: 4, forksPerPoint: 3 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const group of groups) expect([...forksOf(group).values()]).toEqual([3, 3, 3, 3]);
  });

  it('settleEarly leaves a group alone whose roots all did alike, and no other', async () => {
    const settings = { ...rule, initialRollouts: 5, groupSize: 12, settleEarly: true };
    const same = tableWith({ '\\boxed{': { a: 1 } });
    const settled = await roll({ settings, sampler: { table: same }, seed: 2 });
    const grown = await roll({
      settings: { ...settings, settleEarly: false },
      sampler: { table: same },
      seed: 2,
    });
    for (const [g, group] of settled.groups.entries()) {
      const equal = new Set(group.trajectories.map(({ reward }) => reward)).size === 1;
      expect(group.trajectories.length).toBe(equal ? 5 : 12);
      if (!equal) continue;
      expect(group.decisions).toEqual([]);
      expect(group.trajectories.map(({ record }) => record.answer)).toEqual(
        grown.groups[g]?.trajectories.slice(0, 5).map(({ record }) => record.answer),
      );
      expect(rolloutFigures([group])).toMatchObject({ rollouts: 5, branches: 0 });
    }
    expect(settled.groups.some(({ trajectories }) => trajectories.length === 5)).toBe(true);
    expect(settled.sampler.openSequences).toBe(0);
  });

  it('plain groups in two stages: the second is spared where all of the first did alike', async () => {
    const settings = { branch: 'none', initialRollouts: 5, groupSize: 12, settleEarly: true };
    const sampler = { table: tableWith({ '\\boxed{': { a: 1 } }) };
    const { groups } = await roll({ settings, sampler, seed: 2 });
    const whole = await roll({ settings: { branch: 'none', groupSize: 12 }, sampler, seed: 2 });
    const sizes = groups.map(({ trajectories }, g) => {
      const first = trajectories.slice(0, 5).map(({ reward }) => reward);
      expect(trajectories.length).toBe(new Set(first).size === 1 ? 5 : 12);
      // What was sampled is what plain groups sample.
      expect(trajectories.map(({ record }) => record.answer)).toEqual(
        whole.groups[g]?.trajectories
          .slice(0, trajectories.length)
          .map(({ record: r }) => r.answer),
      );
      return trajectories.length;
    });
    expect(new Set(sizes)).toEqual(new Set([5, 12]));
  });
});

describe('draws', () => {
  it('by entropy: weight exp(H / tau) of the step after the point', async () => {
    const tau = 0.05;
    const { groups } = await roll({ settings: { branch: 'deferred', tau, initialRollouts: 4 } });
    for (const { decisions, trajectories } of groups) {
      const first = decisions.filter(({ trajectory }) => trajectory < 4);
      for (const { trajectory, stepId, signal } of first) {
        const steps = trajectories[trajectory]?.steps ?? [];
        const at = steps.findIndex(({ id }) => id === stepId);
        expect(signal).toBe(steps[at + 1]?.stepEntropy);
      }
      const wave = decisions.slice(0, first.length);
      const weights = wave.map(({ signal }) => Math.exp((signal ?? 0) / tau));
      wave.forEach(({ probability }, i) => {
        expect(probability).toBeCloseTo((weights[i] ?? 0) / sum(weights), 9);
      });
    }
  });

  it('a small tau takes the points of largest entropy', async () => {
    const settings = { branch: 'deferred', tau: 1e-6, initialRollouts: 8, groupSize: 11 };
    for (let seed = 0; seed < 5; seed++) {
      const { groups } = await roll({ settings, seed });
      for (const { decisions } of groups) {
        const drawn = decisions.filter(({ siblings }) => siblings > 0).map((d) => d.signal ?? 0);
        const rest = decisions.filter(({ siblings }) => siblings === 0).map((d) => d.signal ?? 0);
        expect(Math.min(...drawn)).toBeGreaterThanOrEqual(Math.max(...rest) - 1e-5);
      }
    }
  });

  it('evenly: every point has the same share and is drawn as often', async () => {
    const settings = { branch: 'uniform', initialRollouts: 4, groupSize: 8, maxToolCalls: 2 };
    const drawn = new Map<string, number>();
    for (let seed = 0; seed < 40; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      for (const { decisions } of groups) {
        // Four roots with two points each.
        expect(decisions.map(({ probability }) => probability)).toEqual(Array(8).fill(1 / 8));
        decisions.forEach(({ signal, siblings }, i) => {
          expect(signal).toBeNull();
          drawn.set(`${i}`, (drawn.get(`${i}`) ?? 0) + siblings);
        });
      }
    }
    // Four of eight points in 120 groups: 60 each; standard error sqrt(120 / 4) = 5.5.
    for (const count of drawn.values()) expect(Math.abs(count - 60)).toBeLessThan(22);
  });
});
