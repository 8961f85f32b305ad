/** What each rule looks at on a path, and the probability that it makes of it. */
import { describe, expect, it } from 'vitest';
import type { StepRecord } from '../records.ts';
import { branchRule } from './branch-rules.ts';
import { rolloutSettings, type CoinBranch, type RolloutSettings } from './rollout-settings.ts';

const LN_V = Math.log(50);
const measure = { entropy: { mode: 'full', tokens: 2 }, vocabularySize: 50 } as const;

const policyStep = (deltaEntropy: number, logprobs: number[]): StepRecord =>
  ({ kind: 'policy', deltaEntropy, logprobs: Float32Array.from(logprobs) }) as StepRecord;
const toolStep = { kind: 'tool' } as StepRecord;
const prompt = { kind: 'prompt' } as StepRecord;

/** Two calls; surprisals are -1, -3 then -2, -2, then -0.5, -4.5 (and a third that is not read). */
const PATH = [
  prompt,
  policyStep(0, [-1, -3]),
  toolStep,
  policyStep(0.3, [-2, -3]),
  toolStep,
  policyStep(-0.1, [-0.5, -1, -90]),
];

type Coin = Extract<RolloutSettings, { branch: CoinBranch }>;
const ruleOf = (overrides: Record<string, unknown>) =>
  branchRule(rolloutSettings('arpo', overrides) as Coin, measure);

describe('what a rule looks at', () => {
  it('paper and aepo: dH of the step after the result', () => {
    for (const branch of ['paper', 'aepo']) {
      const rule = ruleOf({ branch });
      expect([2, 4].map((at) => rule.signal(PATH, at))).toEqual([0.3, -0.1]);
    }
  });

  it('released code: dH of the step before the result, so 0 at the first call', () => {
    const rule = ruleOf({ branch: 'released-code' });
    expect([2, 4].map((at) => rule.signal(PATH, at))).toEqual([0, 0.3]);
    // Results of two calls of one step lie between.
    expect(rule.signal([...PATH.slice(0, 4), toolStep, toolStep], 5)).toBe(0.3);
  });

  it('surprisal: -ln p of the sampled tokens, against the first step, in the units of H', () => {
    const rule = ruleOf({ branch: 'surprisal' });
    expect(rule.signal(PATH, 2)).toBeCloseTo((2.5 - 2) / LN_V, 6);
    expect(rule.signal(PATH, 4)).toBeCloseTo((0.75 - 2) / LN_V, 6);
    const settings = rolloutSettings('arpo', { branch: 'surprisal' }) as Coin;
    const largest = branchRule(settings, { ...measure, entropy: { mode: 'max', tokens: 2 } });
    expect(largest.signal(PATH, 2)).toBeCloseTo(0, 6);
  });

  it('random: nothing', () => {
    expect(ruleOf({ branch: 'random' }).signal(PATH, 2)).toBeNull();
  });
});

describe('probability', () => {
  it('has the rate of the paper rule at dH = 0 under random, whatever the entropy', () => {
    const rule = ruleOf({ branch: 'random', alpha: 0.4 });
    expect(rule.probability(null, 0)).toBe(0.4);
    expect(ruleOf({ branch: 'paper', alpha: 0.4 }).probability(0, 0)).toBe(0.4);
  });

  it('moves with the signal by beta or w', () => {
    expect(ruleOf({ branch: 'paper' }).probability(0.1, 0)).toBeCloseTo(0.7, 12);
    expect(ruleOf({ branch: 'surprisal', beta: 1 }).probability(-0.1, 0)).toBeCloseTo(0.4, 12);
    const released = ruleOf({ branch: 'released-code', w: 0.2, p0: 0.4 });
    expect(released.probability(1, 0)).toBeCloseTo(0.6, 12);
  });

  it('falls with rounds in a row that branched, under aepo only', () => {
    expect(ruleOf({ branch: 'aepo' }).probability(0, 5)).toBeCloseTo(1 / 3, 12);
    expect(ruleOf({ branch: 'paper' }).probability(0, 5)).toBe(0.5);
  });

  it('is tossed for, or held against the threshold', () => {
    const coin = ruleOf({ branch: 'released-code' });
    expect([coin.opens(0.5, 0.49), coin.opens(0.5, 0.51)]).toEqual([true, false]);
    const strict = ruleOf({ branch: 'paper', branchThreshold: 0.5 });
    expect([strict.opens(0.5, 0.01), strict.opens(0.51, 0.99)]).toEqual([false, true]);
  });
});
