/** Bounds of one run over tokens, and which jobs are refused for want of memory. */
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../limits.ts';
import { parameterCount } from '../model/parameters.ts';
import { TINY_CONFIGS } from '../model/testing/tiny-models.ts';
import type { ModelConfig } from '../model/types.ts';
import { checkMemory, predictionsPerRun, tokensPerRun } from './memory-budget.ts';

const TINY = TINY_CONFIGS['llama'] as ModelConfig;

describe('a run over tokens', () => {
  it('keeps the logits and what the layers keep small', () => {
    expect(predictionsPerRun({ vocabulary: 1_000 })).toBeGreaterThan(2_048);
    expect(predictionsPerRun({ vocabulary: 151_936 })).toBe(220);
    expect(tokensPerRun({ layers: 4, hidden: 256, intermediate: 704 })).toBe(2_048);
    expect(tokensPerRun({ layers: 24, hidden: 896, intermediate: 4_864 })).toBe(637);
  });

  it('has at least one token and one prediction, whatever the model', () => {
    expect(tokensPerRun({ layers: 100_000, hidden: 100_000, intermediate: 100_000 })).toBe(1);
    expect(predictionsPerRun({ vocabulary: LIMITS.trainLogitBytesMax })).toBe(1);
  });
});

describe('the memory of a run', () => {
  const bytes = 4 * parameterCount(TINY);
  const FULL = { training: 'full', rolloutLag: 0, klCoefficient: 0 } as const;

  it.each([
    ['weights, two moments, gradients and their sum', FULL, 5],
    ['what the sampler has, and what waits for it', { ...FULL, rolloutLag: 2 }, 8],
    ['a reference', { ...FULL, klCoefficient: 0.1 }, 6],
    ['a frozen base once', { ...FULL, training: 'lora', rolloutLag: 2 }, 1],
  ] as const)('is counted: %s', (_, settings, copies) => {
    expect(() => checkMemory(TINY, settings, copies * bytes)).not.toThrow();
    expect(() => checkMemory(TINY, settings, copies * bytes - 1)).toThrowError(
      expect.objectContaining({ code: 'invalid_request', param: 'memoryBytes' }),
    );
  });

  it('that is too small is refused with the settings that ask for more', () => {
    const large = { ...TINY, hidden: 4_096, intermediate: 11_008, layers: 32, vocabulary: 32_000 };
    const refused = (settings: Parameters<typeof checkMemory>[1]) => () =>
      checkMemory(large, settings, 4e9);
    expect(refused({ ...FULL, rolloutLag: 1 })).toThrow(/memoryBytes 4000000000 .* rolloutLag 1/);
    expect(refused(FULL)).toThrow(/may take 4\.00 GB; training 'lora' would hold \d+\.\d GB/);
    expect(refused({ ...FULL, training: 'lora' })).toThrow(/may take 4\.00 GB$/);
  });

  it('is a share of the machine when the job says nothing', () => {
    expect(() => checkMemory(TINY, FULL)).not.toThrow();
    const endless = { ...TINY, vocabulary: 2 ** 40 };
    expect(() => checkMemory(endless, FULL)).toThrow(/memoryBytes \d+ is too small/);
  });
});
