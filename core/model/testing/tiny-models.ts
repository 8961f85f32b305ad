/** Random models of a few thousand parameters, one for every family and option of a config.json. */
import type { Prng } from '../../prng.ts';
import { initialWeights } from '../parameters.ts';
import type { ModelConfig, Weights } from '../types.ts';

const BASE: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 16,
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  intermediate: 24,
  vocabulary: 37,
  contextTokens: 256,
  ropeTheta: 10_000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const YARN = {
  type: 'yarn',
  factor: 8,
  originalContextTokens: 32,
  attentionFactor: 1.2,
  betaFast: 8,
  betaSlow: 1,
  truncate: true,
} as const;

export const TINY_CONFIGS: Readonly<Record<string, ModelConfig>> = {
  llama: BASE,
  'llama, untied, a head a query': { ...BASE, kvHeads: 4, tiedEmbeddings: false },
  'llama, wide heads, one key head': { ...BASE, headDim: 6, kvHeads: 1 },
  'llama with biases': { ...BASE, qkvBias: true },
  'llama, linear': { ...BASE, ropeScaling: { type: 'linear', factor: 8 } },
  'llama, llama3': {
    ...BASE,
    ropeScaling: {
      type: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextTokens: 32,
    },
  },
  'llama, yarn': { ...BASE, ropeScaling: YARN },
  qwen2: { ...BASE, modelType: 'qwen2', qkvBias: true },
  'qwen2, yarn, not truncated': {
    ...BASE,
    modelType: 'qwen2',
    qkvBias: true,
    tiedEmbeddings: false,
    ropeScaling: { ...YARN, truncate: false },
  },
  qwen3: { ...BASE, modelType: 'qwen3' },
  'qwen3 with biases, wide heads, yarn': {
    ...BASE,
    modelType: 'qwen3',
    headDim: 8,
    qkvBias: true,
    tiedEmbeddings: false,
    ropeScaling: YARN,
  },
};

/** Weights under which every part matters: norms that are not 1, biases that are not 0. */
export function tinyWeights(config: ModelConfig, prng: Prng): Weights {
  const weights = initialWeights(config, prng);
  for (const [name, { data }] of weights) {
    const spread = name.endsWith('bias') || name.includes('norm') ? 0.3 : 0.1;
    data.forEach((value, i) => (data[i] = 1.5 * value + spread * prng.gaussian()));
  }
  return weights;
}
