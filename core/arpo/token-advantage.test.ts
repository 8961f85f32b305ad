/** Attribution on a forest that is known, and what holds for each of them on random ones. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import type { StepRecord } from '../records.ts';
import { randomGroup } from './testing/random-group.ts';
import { tokenAdvantages, type Attribution, type RewardedPath } from './token-advantage.ts';

const step = (id: string, entropies: number[] | null = null): StepRecord =>
  ({
    id,
    kind: entropies === null ? 'prompt' : 'policy',
    entropies: entropies && Float32Array.from(entropies),
  }) as StepRecord;

const [prompt, shared, left, right, alone] = [
  step('prompt'),
  step('shared', [1, 1]),
  step('left', [3]),
  step('right', [1]),
  step('alone', [1]),
];

/** Two leaves behind one step, and a root rollout by itself. */
const PATHS: RewardedPath[] = [
  { reward: 1, root: 0, steps: [prompt, shared, left] },
  { reward: 0, root: 0, steps: [prompt, shared, right] },
  { reward: -1, root: 2, steps: [prompt, alone] },
];

const of = (attribution: Attribution, entropyAdvantage = 0) =>
  tokenAdvantages(PATHS, { normalise: 'mean', attribution, entropyAdvantage });

describe('attribution', () => {
  it('soft: each trajectory its own, wherever it goes', () => {
    const soft = of('soft');
    expect(soft.ofStep(0, shared)).toMatchObject({ advantage: 1, share: 1 });
    expect(soft.ofStep(1, shared)).toMatchObject({ advantage: 0, share: 1 });
  });

  it('hard: the mean of those who share the token', () => {
    const hard = of('hard');
    for (const i of [0, 1]) expect(hard.ofStep(i, shared).advantage).toBe(0.5);
    expect(hard.ofStep(0, left).advantage).toBe(1);
    expect(hard.ofStep(2, alone).advantage).toBe(-1);
  });

  it('dedup: own advantages, but the token counts once', () => {
    const dedup = of('dedup');
    expect(dedup.ofStep(0, shared)).toMatchObject({ advantage: 1, share: 0.5 });
    expect(dedup.ofStep(0, left)).toMatchObject({ advantage: 1, share: 1 });
  });

  it('tree: the advantage among the own leaves on top; a tree of one adds nothing', () => {
    const tree = of('tree');
    expect(tree.ofStep(0, left).advantage).toBe(1.5);
    expect(tree.ofStep(1, right).advantage).toBe(-0.5);
    expect(tree.ofStep(2, alone).advantage).toBe(-1);
  });

  it('hard and soft give a token the same sum; dedup gives each token weight 1', () => {
    const prng = new Prng(4);
    for (let trial = 0; trial < 50; trial++) {
      const { trajectories } = randomGroup(prng, { size: 6, branching: 0.7, offPolicy: 0 });
      const sums = (attribution: Attribution, pick: 'advantage' | 'share') => {
        const settings = { normalise: 'std', attribution, entropyAdvantage: 0 } as const;
        const found = tokenAdvantages(trajectories, settings);
        const byStep = new Map<string, number>();
        trajectories.forEach(({ steps }, i) => {
          for (const one of steps) {
            byStep.set(one.id, (byStep.get(one.id) ?? 0) + found.ofStep(i, one)[pick]);
          }
        });
        return byStep;
      };
      const hard = sums('hard', 'advantage');
      for (const [id, sum] of sums('soft', 'advantage')) expect(hard.get(id)).toBeCloseTo(sum, 9);
      for (const share of sums('dedup', 'share').values()) expect(share).toBeCloseTo(1, 9);
    }
  });
});

describe('the entropy-aware advantage', () => {
  it('bends by z over the group, each sampled token once', () => {
    // Entropies 1, 1, 3, 1, 1: the shared step counts once, the prompt not at all.
    const { factor } = of('soft', 0.2).ofStep(0, left);
    const deviation = Math.sqrt(((3 - 1.4) ** 2 + 4 * 0.4 ** 2) / 4);
    expect(factor(3)).toBeCloseTo(1 + (0.2 * 1.6) / deviation, 9);
    expect(factor(1)).toBeCloseTo(1 - (0.2 * 0.4) / deviation, 9);
  });

  it('is cut off at three deviations, so no advantage changes its sign', () => {
    const { factor } = of('soft', 0.33).ofStep(0, left);
    expect(factor(1_000)).toBeCloseTo(1.99, 9);
    expect(factor(-1_000)).toBeCloseTo(0.01, 9);
  });

  it('is off with coefficient 0, and where all entropies are alike', () => {
    expect(of('soft').ofStep(0, left).factor(3)).toBe(1);
    const alike = PATHS.slice(1);
    const settings = { normalise: 'mean', attribution: 'soft', entropyAdvantage: 0.2 } as const;
    expect(tokenAdvantages(alike, settings).ofStep(0, right).factor(9)).toBe(1);
  });
});
