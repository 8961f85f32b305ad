/** Settings of the loss: defaults of each clip rule, and the refusal of what would do nothing. */
import { describe, expect, it } from 'vitest';
import { lossTerms, type Source } from './loss-settings.ts';
import { parseSettings, type Algorithm } from './settings.ts';

type Overrides = Record<string, unknown>;

const TWICE = { miniBatches: 2 };
const COLD = { temperature: 0.7 };

function refusedName(overrides: Overrides, algorithm: Algorithm, source: Source): unknown {
  try {
    parseSettings(algorithm, overrides, 'full', source);
  } catch (error) {
    return (error as { param?: string }).param;
  }
  return null;
}

describe('defaults', () => {
  it('are PPO on fresh rollouts: nothing off-policy is in force', () => {
    const settings = parseSettings('arpo');
    expect(settings).toMatchObject({
      ...{ clip: 'ppo', attribution: 'soft', aggregate: 'token-mean', entropyAdvantage: 0 },
      ...{ epsLow: 0.2, epsHigh: 0.2, dualClip: 3, klCoefficient: 0, entropyCoefficient: 0 },
    });
    for (const name of ['importance', 'importanceCap', 'geometricMask', 'maxStaleness']) {
      expect(settings).not.toHaveProperty(name);
    }
  });

  it.each<[string, Overrides, Overrides]>([
    ['entropy-balanced', {}, { entropyAdvantage: 0.2, epsHigh: 0.2, dualClip: 3 }],
    ['gspo', TWICE, { aggregate: 'sequence-mean', epsLow: 3e-4, epsHigh: 4e-4 }],
    ['cispo', TWICE, { aggregate: 'token-mean', epsLow: 1, epsHigh: 4 }],
  ])('of %s', (clip, more, expected) => {
    const settings = parseSettings('arpo', { clip, ...more });
    expect(settings).toMatchObject(expected);
    expect(parseSettings('arpo', JSON.parse(JSON.stringify(settings)) as Overrides)).toEqual(
      settings,
    );
    expect(lossTerms(settings)).toMatchObject({ clip, epsLow: settings.epsLow });
  });

  it('weigh tokens that were sampled at another temperature, by older weights, or live', () => {
    const weighed = { importance: 'token', importanceCap: 2, geometricMask: null };
    expect(parseSettings('arpo', COLD)).toMatchObject(weighed);
    expect(parseSettings('arpo', { rolloutLag: 4 })).toMatchObject(weighed);
    const live = parseSettings('arpo', {}, 'full', 'live');
    expect(live).toMatchObject({ ...weighed, maxStaleness: 4 });
    expect(parseSettings('arpo', { ...live }, 'full', 'live')).toEqual(live);
    const cispo = parseSettings('arpo', { ...COLD, clip: 'cispo', geometricMask: [0.9, 1.1] });
    expect(cispo).toMatchObject({ geometricMask: [0.9, 1.1] });
    expect(cispo).not.toHaveProperty('importance');
  });
});

it('rewards several tools in tasks alone', () => {
  for (const source of ['tasks', 'both'] as const) {
    expect(parseSettings('arpo', {}, 'full', source)).toMatchObject({ multiToolBonus: 0.1 });
    const none = { multiToolBonus: 0 };
    expect(parseSettings('arpo', none, 'full', source)).toMatchObject(none);
  }
  expect(parseSettings('arpo', {}, 'full', 'live')).not.toHaveProperty('multiToolBonus');
});

describe('refusals of the loss', () => {
  it.each<[string, Overrides, Algorithm?, Source?]>([
    ['clip', { clip: 'gspo' }],
    ['clip', { clip: 'cispo' }],
    ['clip', { clip: 'entropy-balanced', entropyAdvantage: 0 }],
    ['epsHigh', { clip: 'entropy-balanced', epsHigh: 0.3 }],
    ['dualClip', { clip: 'gspo', ...TWICE, dualClip: 3 }],
    ['dualClip', { clip: 'cispo', ...TWICE, dualClip: 3 }],
    ['importance', { importance: 'token' }],
    ['importance', { ...TWICE, importance: 'sequence' }],
    ['importanceCap', { importanceCap: 3 }],
    ['importanceCap', { ...COLD, importance: 'none', importanceCap: 3 }],
    ['importanceCap', { ...COLD, importanceCap: 0.5 }],
    ['importance', { ...COLD, clip: 'cispo', importance: 'token' }],
    ['importanceCap', { ...COLD, clip: 'cispo', importanceCap: 3 }],
    ['geometricMask', { geometricMask: [0.9, 1.1] }],
    ['geometricMask', { ...COLD, geometricMask: [1.1, 0.9] }],
    ['geometricMask', { ...COLD, geometricMask: [1] }],
    ['maxStaleness', { maxStaleness: 3 }],
    ['maxStaleness', { ...COLD, maxStaleness: 3 }],
    ['maxStaleness', { maxStaleness: 900 }, 'arpo', 'live'],
    ['multiToolBonus', { multiToolBonus: 0.1 }, 'arpo', 'live'],
    ['multiToolBonus', { multiToolBonus: 1.1 }],
    ['attribution', { attribution: 'tree' }, 'grpo'],
    ['attribution', { attribution: 'dedup' }, 'grpo'],
    ['attribution', { attribution: 'hard', ...TWICE }, 'grpo'],
    ['attribution', { attribution: 'hard' }],
    ['attribution', { attribution: 'hard', ...TWICE, clip: 'cispo' }],
    ['entropyAdvantage', { entropyAdvantage: 0.34 }],
    ['epsLow', { epsLow: 1.2 }],
    ['klCoefficient', { klCoefficient: -1 }],
  ])('%s: %j', (name, overrides, algorithm = 'arpo', source = 'tasks') => {
    expect(refusedName(overrides, algorithm, source)).toBe(`settings.${name}`);
  });

  it.each<[Overrides]>([
    [{ attribution: 'hard', ...TWICE }],
    [{ attribution: 'hard', aggregate: 'sequence-mean' }],
    [{ ...COLD, attribution: 'hard', importance: 'sequence' }],
    [{ attribution: 'dedup' }],
    [{ ...COLD, clip: 'cispo', epsHigh: 3 }],
    [{ entropyAdvantage: 0.1 }],
    [{ clip: 'entropy-balanced', entropyAdvantage: 0, ...TWICE }],
    [{ clip: 'gspo', epochs: 2, epsLow: 0.01, aggregate: 'token-mean' }],
  ])('takes what has an effect: %j', (overrides) => {
    expect(parseSettings('arpo', overrides)).toMatchObject(overrides);
  });
});
