/** What a step reports: clipped tokens of each rule, divergences, importance weights. */
import { describe, expect, it } from 'vitest';
import { clippedTokens, LossTally } from './loss-tally.ts';
import type { PolicyRow } from './train-rows.ts';

const LOSS = { epsLow: 0.2, epsHigh: 0.3, dualClip: 3 };

/** A context token, then policy tokens at these ratios to `old` = -1. */
function rowOf(tokens: { ratio: number; advantage: number }[]) {
  const along = (first: number, pick: (token: (typeof tokens)[number]) => number) =>
    Float32Array.of(first, ...tokens.map(pick));
  const row: PolicyRow = {
    tokens: new Uint32Array(tokens.length + 1),
    weights: along(0, () => 1),
    advantages: along(0, ({ advantage }) => advantage),
    oldLogprobs: along(0, () => -1),
    behaviourLogprobs: along(0, () => -1 - Math.log(2)),
    importance: along(0, () => 1.5),
    leftOut: false,
  };
  return { row, logprobs: along(0, ({ ratio }) => -1 + Math.log(ratio)) };
}

describe('clipped tokens', () => {
  const cases = [0.5, 1, 1.5, 4].flatMap((ratio) => [
    { ratio, advantage: 1 },
    { ratio, advantage: -1 },
  ]);
  const { row, logprobs } = rowOf(cases);
  const clipped = (loss: object) => clippedTokens(row, logprobs, { ...LOSS, ...loss });

  it('ppo: above for a gain, below or beyond the dual clip for a loss', () => {
    expect(clipped({})).toBe(4); // 1.5 and 4 up; 0.5 and 4 down
    expect(clipped({ clip: 'entropy-balanced' })).toBe(4);
  });

  it('gspo: all of a sequence, by its ratio', () => {
    // The geometric mean is sqrt(sqrt(3)) = 1.32: above, so the gains are held back.
    expect(clipped({ clip: 'gspo' })).toBe(4);
    expect(clipped({ clip: 'gspo', epsHigh: 0.4 })).toBe(0);
  });

  it('cispo: by the ratio to the behaviour, whatever the sign', () => {
    // Twice the ratio to `old`: 1, 2, 3 and 8.
    expect(clipped({ clip: 'cispo' })).toBe(6);
    expect(clipped({ clip: 'cispo', epsLow: 1, epsHigh: 4 })).toBe(2);
  });
});

describe('figures', () => {
  it('are means over tokens; drift is that of the first mini-batch alone', () => {
    const tally = new LossTally();
    const first = rowOf([{ ratio: 1, advantage: 1 }]);
    const second = rowOf([
      { ratio: 2, advantage: 1 },
      { ratio: 1, advantage: 1 },
    ]);
    tally.add([first.row], [first.logprobs], { loss: LOSS, first: true });
    tally.add([second.row], [second.logprobs], { loss: LOSS, first: false });
    const figures = tally.figures(LOSS);
    expect(figures).toMatchObject({ tokens_trained: 3, logprob_drift_max: 0 });
    expect(figures).toMatchObject({ importance_weight_mean: 1.5, importance_weight_max: 1.5 });
    expect(figures['clip_share']).toBeCloseTo(1 / 3, 12);
    expect(figures['approx_kl']).toBeCloseTo((2 - 1 - Math.log(2)) / 3, 6);
    expect(figures).not.toHaveProperty('reference_kl');
  });

  it('have the divergence from the reference when it is in the loss', () => {
    const loss = { ...LOSS, klCoefficient: 0.1 };
    const { row, logprobs } = rowOf([{ ratio: 1, advantage: 1 }]);
    const referenceLogprobs = Float32Array.of(0, -1 + Math.log(2));
    const tally = new LossTally();
    tally.add([{ ...row, referenceLogprobs }], [logprobs], { loss, first: true });
    expect(tally.figures(loss)['reference_kl']).toBeCloseTo(1 - Math.log(2), 6);
  });
});
