/** The models that the benches measure: one of 3.3 M parameters, and the shipped policy. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CONFIG_FILE, loadPolicyModel, type PolicyModel } from '../core/model/policy-directory.ts';
import { initialWeights, parameterShapes } from '../core/model/parameters.ts';
import type { ModelConfig } from '../core/model/types.ts';
import { packageRoot } from '../core/paths.ts';
import { Prng } from '../core/prng.ts';

export interface BenchModel extends PolicyModel {
  name: string;
}

const STANDARD: ModelConfig = {
  modelType: 'llama',
  layers: 4,
  hidden: 256,
  heads: 4,
  kvHeads: 4,
  headDim: 64,
  intermediate: 704,
  vocabulary: 512,
  contextTokens: 1024,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};

/** The shape of Qwen2.5-0.5B. */
const LARGE: ModelConfig = {
  modelType: 'qwen2',
  layers: 24,
  hidden: 896,
  heads: 14,
  kvHeads: 2,
  headDim: 64,
  intermediate: 4864,
  vocabulary: 151936,
  contextTokens: 4096,
  ropeTheta: 1e6,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};

/** 494 M parameters; plain uniform numbers, because speed does not depend on them. */
export function largeModel(): BenchModel {
  const weights: BenchModel['weights'] = new Map();
  let state = 1;
  for (const [name, shape] of parameterShapes(LARGE)) {
    const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
    if (name.includes('norm')) data.fill(1);
    else {
      for (let i = 0; i < data.length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) | 0;
        data[i] = state * 1.6e-11;
      }
    }
    weights.set(name, { shape, data });
  }
  return { name: 'large 0.5 B', config: LARGE, weights };
}

/** The standard model with random weights, and policies/embedded where it has been built. */
export function benchModels(): BenchModel[] {
  const weights = initialWeights(STANDARD, new Prng(1));
  const models = [{ name: 'standard 3.3 M', config: STANDARD, weights }];
  const embedded = join(packageRoot, 'policies', 'embedded');
  if (existsSync(join(embedded, CONFIG_FILE))) {
    models.push({ name: 'embedded', ...loadPolicyModel(embedded) });
  }
  return models;
}
