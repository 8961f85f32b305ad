/** A tiny policy directory with random weights: everything real but what it says. */
import { initialWeights } from '../../core/model/parameters.ts';
import { savePolicyModel } from '../../core/model/policy-directory.ts';
import type { ModelConfig } from '../../core/model/types.ts';
import { Prng } from '../../core/prng.ts';
import { writeEmbeddedTextFiles } from '../../core/text/embedded-text-files.ts';

export function writeRandomPolicy(directory: string, seed = 1): void {
  const { tokenizer } = writeEmbeddedTextFiles(directory, {
    texts: Array.from({ length: 200 }, (_, i) => `what is ${i} plus ${i + 1}`),
    vocabularySize: 320,
    tools: ['search', 'javascript'],
  });
  const config: ModelConfig = {
    modelType: 'llama',
    layers: 1,
    hidden: 16,
    heads: 2,
    kvHeads: 1,
    headDim: 8,
    intermediate: 32,
    vocabulary: tokenizer.vocabularySize,
    contextTokens: 256,
    ropeTheta: 10_000,
    rmsNormEpsilon: 1e-6,
    qkvBias: false,
    tiedEmbeddings: true,
  };
  savePolicyModel(directory, { config, weights: initialWeights(config, new Prng(seed)) });
}
