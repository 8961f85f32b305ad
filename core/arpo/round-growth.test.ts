/** Rules that reproduce turn-synchronous codes: their probabilities, order, counter and split. */
import { describe, expect, it } from 'vitest';
import { tableWith } from '../../test/support/table-policy.ts';
import { aepoProbability, aepoRootCount } from './branching.ts';
import { mean } from './number.ts';
import { roll, sum } from './testing/table-rollouts.ts';
import type { RolloutGroup } from './rollout.ts';

const certain = tableWith({ '</think>': { '<search>': 1 } });

/** Decisions with the depth of their result. */
const decisionsOf = ({ decisions, trajectories }: RolloutGroup) =>
  decisions.map((decision) => {
    const { steps } = trajectories[decision.trajectory] as (typeof trajectories)[number];
    return { ...decision, steps, at: steps.findIndex(({ id }) => id === decision.stepId) };
  });

describe('released-code', () => {
  it('reads the step before the result: dH is 0 at the first call', async () => {
    const settings = { branch: 'released-code', w: 0.9, p0: 0.2, initialRollouts: 3 };
    let later = 0;
    for (let seed = 0; seed < 5; seed++) {
      const { groups } = await roll({ settings, seed });
      for (const decision of groups.flatMap(decisionsOf)) {
        const { steps, at, signal, probability } = decision;
        expect(signal).toBe(steps[at - 1]?.deltaEntropy);
        expect(decision.deltaEntropy).toBe(steps[at + 1]?.deltaEntropy);
        expect(probability).toBeCloseTo(Math.min(1, Math.max(0, 0.2 + 0.9 * (signal ?? 9))), 12);
        if (at === 2) expect(signal).toBe(0);
        else if (signal !== 0) later++;
      }
    }
    expect(later).toBeGreaterThan(0);
  });

  it('tosses once for each sibling', async () => {
    const settings = { branch: 'released-code', p0: 0.5, w: 0, beamSize: 4, initialRollouts: 4 };
    const counts = [0, 0, 0, 0];
    for (let seed = 0; seed < 40; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      // The first round has slots for everybody: 12 for four points.
      for (const { decisions } of groups) {
        for (const { siblings } of decisions.slice(0, 4))
          counts[siblings] = (counts[siblings] ?? 0) + 1;
      }
    }
    // Binomial (3, 1/2) of 480; four standard errors of 1/8 and 3/8.
    [1 / 8, 3 / 8, 3 / 8, 1 / 8].forEach((share, siblings) => {
      expect(Math.abs((counts[siblings] ?? 0) / 480 - share)).toBeLessThan(0.09);
    });
  });

  it('scarce slots go to any root, not to the first', async () => {
    const settings = { branch: 'released-code', p0: 1, groupSize: 9, initialRollouts: 8 };
    const owners = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      for (const { trajectories } of groups) owners.add(trajectories[8]?.root ?? -1);
    }
    expect([...owners].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });
});

describe('aepo', () => {
  it('splits the group by its first rollout, which stays a member and may branch', async () => {
    let firstBranched = 0;
    for (let seed = 0; seed < 12; seed++) {
      const { groups } = await roll({ settings: { branch: 'aepo', w: 0, p0: 0.2 }, seed });
      for (const { trajectories, counts } of groups) {
        const steps = trajectories[0]?.steps ?? [];
        const after = steps.filter(
          (step, i) => step.kind === 'policy' && steps[i - 1]?.kind === 'tool',
        );
        const first = steps.find(({ kind }) => kind === 'policy')?.stepEntropy ?? 0;
        const fall = after.length === 0 ? 0 : first - mean(after.map((s) => s.stepEntropy ?? 0));
        const roots = aepoRootCount(16, fall);
        const own = trajectories.slice(0, roots);
        expect(own.every(({ branch }) => branch === null)).toBe(true);
        expect(counts.rootRollouts).toBeGreaterThanOrEqual(roots);
        firstBranched += trajectories.filter(({ branch }) => branch?.parent === 0).length;
      }
    }
    expect(firstBranched).toBeGreaterThan(0);
  });

  it('damps by the rounds in a row in which the group branched', async () => {
    const settings = { branch: 'aepo', w: 0.2, p0: 0.8, groupSize: 32 };
    const seen = new Set<number>();
    for (let seed = 0; seed < 6; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      for (const group of groups) {
        // All start at once and call each time, so a round is a depth.
        const rounds = new Map<number, ReturnType<typeof decisionsOf>>();
        for (const decision of decisionsOf(group)) {
          rounds.set(decision.at, [...(rounds.get(decision.at) ?? []), decision]);
        }
        let consecutive = 0;
        for (const [, round] of [...rounds].sort(([a], [b]) => a - b)) {
          seen.add(consecutive);
          for (const { deltaEntropy, probability } of round) {
            expect(probability).toBeCloseTo(
              aepoProbability(deltaEntropy, consecutive, settings),
              12,
            );
          }
          consecutive = sum(round.map(({ siblings }) => siblings)) > 0 ? consecutive + 1 : 0;
        }
      }
    }
    expect(seen.size).toBeGreaterThan(2);
  });
});
