/**
 * Adapters as numbers: the first A and B, and the merge against the product written out. Targets,
 * ranks and scales are tested with the files (lora-directory.test.ts), the graphs in
 * core/engine/adapters.test.ts and loss.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { initialAdapter, loraA, loraB, mergeAdapter, type LoraConfig } from './lora.ts';
import { initialWeights } from './parameters.ts';
import type { ModelConfig } from './types.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 1,
  hidden: 64,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  intermediate: 96,
  vocabulary: 11,
  contextTokens: 32,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const LORA: LoraConfig = {
  rank: 8,
  alpha: 4,
  rsLora: true,
  targets: ['k_proj', 'down_proj'],
  excluded: [],
  layers: null,
  rankPattern: {},
  alphaPattern: {},
};
const K = 'model.layers.0.self_attn.k_proj';
const DOWN = 'model.layers.0.mlp.down_proj';

describe('a fresh adapter', () => {
  it('has A uniform in +-1/sqrt(in), B zero, and is the same for the same seed', () => {
    const { weights } = initialAdapter(CONFIG, LORA, new Prng(1));
    expect([...weights.keys()]).toEqual([K, DOWN].flatMap((name) => [loraA(name), loraB(name)]));
    for (const [name, inputs] of [
      [K, 64],
      [DOWN, 96],
    ] as const) {
      const { shape, data } = weights.get(loraA(name))!;
      expect(shape).toEqual([8, inputs]);
      const bound = 1 / Math.sqrt(inputs);
      const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(largest).toBeLessThanOrEqual(bound);
      expect(largest).toBeGreaterThan(0.95 * bound);
      // A uniform draw has variance bound^2 / 3.
      const variance = data.reduce((sum, value) => sum + value * value, 0) / data.length;
      expect(variance / (bound ** 2 / 3)).toBeCloseTo(1, 0);
      expect(weights.get(loraB(name))!.data.every((value) => value === 0)).toBe(true);
    }
    expect(initialAdapter(CONFIG, LORA, new Prng(1)).weights).toEqual(weights);
    expect(initialAdapter(CONFIG, LORA, new Prng(2)).weights).not.toEqual(weights);
  });
});

describe('the merge', () => {
  it('adds scale B A to what is adapted and shares the rest', () => {
    const prng = new Prng(5);
    const base = initialWeights(CONFIG, prng);
    const adapter = initialAdapter(CONFIG, LORA, prng);
    for (const { data } of adapter.weights.values())
      data.forEach((_, i) => (data[i] = prng.gaussian()));
    const before = base.get(`${K}.weight`)!.data.slice();
    const merged = mergeAdapter(base, adapter);
    const a = adapter.weights.get(loraA(K))!.data;
    const b = adapter.weights.get(loraB(K))!.data;
    const { shape, data } = merged.get(`${K}.weight`)!;
    expect(shape).toEqual([32, 64]);
    data.forEach((value, i) => {
      const [row, column] = [Math.floor(i / 64), i % 64];
      let product = 0;
      for (let r = 0; r < 8; r++) product += b[row * 8 + r]! * a[r * 64 + column]!;
      expect(value).toBeCloseTo(before[i]! + (4 / Math.sqrt(8)) * product, 5);
    });
    expect(base.get(`${K}.weight`)!.data).toEqual(before);
    const changed = [...merged.keys()].filter((name) => merged.get(name) !== base.get(name));
    expect(changed).toEqual([`${K}.weight`, `${DOWN}.weight`]);
  });
});
