/**
 * Settings: defaults, round trip, and the refusal, by name, of what is wrong or would do nothing.
 */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import type { Source } from './loss-settings.ts';
import {
  entropySettings,
  episodeLimits,
  parseSettings,
  SPECS,
  type Algorithm,
} from './settings.ts';

function refusal(algorithm: Algorithm, overrides: Record<string, unknown>): AppError {
  try {
    parseSettings(algorithm, overrides);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error(`not refused: ${JSON.stringify(overrides)}`);
}

describe('defaults', () => {
  it('arpo branches by the paper rule with half the group as roots', () => {
    expect(parseSettings('arpo')).toMatchObject({
      branch: 'paper',
      groupSize: 16,
      initialRollouts: 8,
      alpha: 0.5,
      beta: 2,
      branchThreshold: null,
      beamSize: 2,
      betas: [0.9, 0.999],
    });
    expect(parseSettings('arpo', { groupSize: 6 })).toMatchObject({ initialRollouts: 3 });
    expect(parseSettings('arpo', { groupSize: 2 })).toMatchObject({ initialRollouts: 1 });
  });

  it('weights of H belong to its scale: a sum moves ten times as much as a mean', () => {
    const [sum, mean] = [{ entropy: 'released-code' }, { entropy: 'full' }];
    expect(parseSettings('arpo', sum)).toMatchObject({ beta: 0.2 });
    for (const branch of ['released-code', 'aepo']) {
      expect(parseSettings('arpo', { ...sum, branch })).toMatchObject({ w: 0.2 });
      expect(parseSettings('arpo', { ...mean, branch })).toMatchObject({ w: 2 });
    }
    expect(parseSettings('arpo', { ...sum, branch: 'deferred' })).toMatchObject({ tau: 0.2 });
    expect(parseSettings('arpo', { ...mean, branch: 'deferred' })).toMatchObject({ tau: 0.02 });
  });

  it('grpo holds no branching settings', () => {
    const settings = parseSettings('grpo', { groupSize: 8 });
    expect(settings.branch).toBe('none');
    expect(Object.keys(settings)).not.toContain('alpha');
    expect(Object.keys(settings)).not.toContain('initialRollouts');
    expect(parseSettings('arpo', { branch: 'none', groupSize: 8 })).toEqual(settings);
  });

  it('grpo in two stages has the size of the first, and only then', () => {
    const settings = parseSettings('grpo', { groupSize: 8, settleEarly: true });
    expect(settings).toMatchObject({ branch: 'none', settleEarly: true, initialRollouts: 4 });
    const refused = (overrides: Record<string, unknown>): string =>
      refusal('grpo', { groupSize: 8, ...overrides }).message;
    expect(refused({ initialRollouts: 4 })).toContain('initialRollouts');
    expect(refused({ settleEarly: true, initialRollouts: 8 })).toContain('fills groupSize 8');
    expect(refused({ settleEarly: true, initialRollouts: 1 })).toContain('never grow');
  });

  it.each<[Algorithm, Record<string, unknown>]>([
    ['arpo', {}],
    ['grpo', {}],
    ['arpo', { groupSize: 12, beta: 0.2, branchThreshold: 0.5, entropy: 'max', maxTokens: 64 }],
    ['grpo', { miniBatches: 2, epsHigh: 0.28, normalise: 'mean', betas: [0.9, 0.95] }],
    ['arpo', { training: 'lora' }],
    ['arpo', { entropy: 'released-code', branch: 'released-code' }],
    ['grpo', { training: 'lora', loraRank: 4, loraTargets: ['q_proj', 'v_proj'], rsLora: true }],
  ])('what is in force parses again to itself, through JSON: %s %j', (algorithm, overrides) => {
    const settings = parseSettings(algorithm, overrides);
    const stored = JSON.parse(JSON.stringify(settings)) as Record<string, unknown>;
    expect(parseSettings(algorithm, stored)).toEqual(settings);
  });

  it('trains all weights, a new adapter, or the adapter that the base is', () => {
    const loraOf = (settings: object) =>
      Object.fromEntries(Object.entries(settings).filter(([name]) => /lora|training/i.test(name)));
    expect(loraOf(parseSettings('arpo'))).toEqual({ training: 'full' });
    expect(loraOf(parseSettings('arpo', { training: 'lora', loraAlpha: 8 }))).toEqual({
      training: 'lora',
      loraRank: 16,
      loraAlpha: 8,
      loraTargets: 'all-linear',
      rsLora: false,
    });
    for (const overrides of [{}, { training: 'lora' }]) {
      const settings = parseSettings('arpo', overrides, 'lora');
      expect(loraOf(settings)).toEqual({ training: 'lora' });
      expect(parseSettings('arpo', { ...settings }, 'lora')).toEqual(settings);
    }
  });

  it('gives episodes their limits and entropy', () => {
    const settings = parseSettings('arpo', { maxTokens: 99, entropyTokens: 5 });
    expect(episodeLimits(settings)).toEqual({ maxToolCalls: 6, maxTokens: 99 });
    expect(entropySettings(settings)).toEqual({ mode: 'full', tokens: 5 });
  });
});

describe('refusals', () => {
  it.each<[string, Record<string, unknown>, Algorithm?]>([
    ['groupsize', { groupsize: 8 }],
    ['toString', { toString: 1 }],
    ['groupSize', { groupSize: '8' }],
    ['groupSize', { groupSize: 8.5 }],
    ['groupSize', { groupSize: 1 }],
    ['learningRate', { learningRate: 0 }],
    ['learningRate', { learningRate: Number.NaN }],
    ['alpha', { alpha: 1.5 }],
    ['alpha', { alpha: null }],
    ['branchThreshold', { branchThreshold: 1 }],
    ['normalise', { normalise: 'median' }],
    ['entropy', { entropy: 3 }],
    ['betas', { betas: [0.9] }],
    ['betas', { betas: [0.9, 1] }],
    ['betas', { betas: { 0: 0.9 } }],
    ['temperature', { temperature: 0 }],
    ['branch', { branch: 'paper' }, 'grpo'],
    ['branch', { branch: 'sometimes' }],
    // No effect in the combination.
    ['alpha', { alpha: 0.4 }, 'grpo'],
    ['beta', { beta: 1 }, 'grpo'],
    ['beta', { branch: 'none', beta: 1 }],
    ['beamSize', { beamSize: 3 }, 'grpo'],
    ['branchThreshold', { branchThreshold: null }, 'grpo'],
    ['initialRollouts', { initialRollouts: 4 }, 'grpo'],
    ['initialRollouts', { initialRollouts: 16 }],
    ['initialRollouts', { groupSize: 4, initialRollouts: 8 }],
    ['beamSize', { groupSize: 8, initialRollouts: 6, beamSize: 4 }],
    ['maxToolCalls', { maxToolCalls: 0 }],
    ['branchThreshold', { beta: 0, branchThreshold: 0.5 }],
    ['alpha', { alpha: 0, beta: 0 }],
    ['epsHigh', { epsHigh: 0.28 }],
    ['dualClip', { dualClip: 4 }, 'grpo'],
    ['dualClip', { miniBatches: 2, dualClip: 1.1 }],
    ['epsHigh', { miniBatches: 2, epsHigh: 2.5 }],
    ['miniBatches', { promptsPerStep: 2, miniBatches: 3 }],
    ['groupSize', { groupSize: 128 }],
    ['promptsPerStep', { promptsPerStep: 200 }],
    ['training', { training: 'some' }],
    ['loraRank', { training: 'lora', loraRank: 0 }],
    ['loraAlpha', { training: 'lora', loraAlpha: 0 }],
    ['loraTargets', { training: 'lora', loraTargets: [] }],
    ['loraTargets', { training: 'lora', loraTargets: ['lm_head'] }],
    ['loraTargets', { training: 'lora', loraTargets: 'q_proj' }],
    ['rsLora', { training: 'lora', rsLora: 'yes' }],
    ['loraRank', { loraRank: 8 }],
    ['rsLora', { training: 'full', rsLora: true }],
    ['rsLora', { training: 'lora', loraRank: 1, rsLora: true }],
    ['multiToolBonus', { maxToolCalls: 1, multiToolBonus: 0.2 }],
    ['multiToolBonus', { maxToolCalls: 0, multiToolBonus: 0 }, 'grpo'],
  ])('%s: %j', (name, overrides, algorithm = 'arpo') => {
    const error = refusal(algorithm, overrides);
    expect(error.code).toBe('invalid_request');
    expect(error.param).toBe(`settings.${name}`);
    expect(error.message).toContain(name);
  });

  it.each([
    ['training', { training: 'full' }],
    ['loraRank', { loraRank: 8 }],
    ['loraTargets', { training: 'lora', loraTargets: 'all-linear' }],
  ])('of a base that is an adapter: %s', (name, overrides) => {
    expect(() => parseSettings('arpo', overrides, 'lora')).toThrowError(
      expect.objectContaining({ code: 'invalid_request', param: `settings.${name}` }),
    );
  });

  it('of the entropy that scoring logged conversations does not measure', () => {
    const entropy = 'released-code';
    expect(() => parseSettings('arpo', { entropy }, 'full', 'both')).toThrowError(
      expect.objectContaining({ code: 'invalid_request', param: 'settings.entropy' }),
    );
    expect(parseSettings('grpo', { entropy })).toMatchObject({ entropy });
  });

  it.each<[string, Record<string, unknown>, Source]>([
    ['dynamicSampling', { dynamicSampling: true }, 'live'],
    ['dynamicSampling', { dynamicSampling: true, maxResample: 3 }, 'live'],
    ['curriculum', { curriculum: 'solved-share' }, 'live'],
    ['curriculumFloor', { curriculumFloor: 0.1 }, 'live'],
    ['promptsPerStep', { promptsPerStep: 1 }, 'both'],
    // A quarter of such a group is no conversation, so all tokens are the policy's own.
    ['importance', { groupSize: 3, importance: 'token' }, 'live'],
    ['importanceCap', { groupSize: 3, importanceCap: 3 }, 'both'],
    ['geometricMask', { groupSize: 2, geometricMask: [0.9, 1.1] }, 'live'],
    ['maxStaleness', { groupSize: 3, maxStaleness: 2 }, 'live'],
    ['clip', { groupSize: 3, clip: 'cispo' }, 'live'],
  ])('of what the source does not read: %s, %j with %s', (name, overrides, source) => {
    expect(() => parseSettings('arpo', overrides, 'full', source)).toThrowError(
      expect.objectContaining({ code: 'invalid_request', param: `settings.${name}` }),
    );
  });

  it('takes what has an effect', () => {
    for (const [overrides, source] of [
      [{ promptsPerStep: 1 }, 'live'],
      [{ promptsPerStep: 2, dynamicSampling: true, curriculum: 'solved-share' }, 'both'],
      [{ groupSize: 4, clip: 'cispo', geometricMask: [0.9, 1.1], maxStaleness: 2 }, 'live'],
      [{ groupSize: 3, temperature: 0.7, importance: 'token' }, 'live'],
    ] as [Record<string, unknown>, Source][]) {
      const settings = parseSettings('arpo', overrides, 'full', source);
      expect(settings).toMatchObject(overrides);
      expect(parseSettings('arpo', { ...settings }, 'full', source)).toEqual(settings);
    }
    expect(parseSettings('arpo', { maxToolCalls: 2, multiToolBonus: 0.2 })).toMatchObject({
      multiToolBonus: 0.2,
    });
    expect(parseSettings('arpo', { maxToolCalls: 1 })).not.toHaveProperty('multiToolBonus');
    expect(parseSettings('arpo', { beta: 0, alpha: 1 })).toMatchObject({ alpha: 1, beta: 0 });
    expect(parseSettings('arpo', { branchThreshold: 0.5 })).toMatchObject({ branchThreshold: 0.5 });
    expect(parseSettings('arpo', { miniBatches: 2, epsHigh: 0.28 })).toMatchObject({
      epsHigh: 0.28,
    });
    expect(parseSettings('grpo', { maxToolCalls: 0 })).toMatchObject({ maxToolCalls: 0 });
  });

  it('has every setting that it knows in force in some combination, with its default', () => {
    const combinations: Record<string, unknown>[] = [
      { training: 'lora', dynamicSampling: true, curriculum: 'solved-share' },
      { branch: 'deferred' },
      { branch: 'aepo' },
      { earlyStop: 'plateau' },
      { earlyStop: 'target', targetReward: 1 },
    ];
    const names = combinations.flatMap((some) => Object.keys(parseSettings('arpo', some)));
    const live = Object.keys(parseSettings('arpo', {}, 'full', 'both'));
    expect([...new Set([...names, ...live])].sort()).toEqual(Object.keys(SPECS).sort());
  });
});
