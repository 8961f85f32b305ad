/** The models that the benches measure: one of 3.3 M parameters, and the shipped policy. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CONFIG_FILE, loadPolicyModel, type PolicyModel } from '../core/model/policy-directory.ts';
import { initialWeights } from '../core/model/parameters.ts';
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
