/** A policy of random weights that speaks Hermes: it calls what it is made to call. */
import { mkdirSync } from 'node:fs';
import { initialWeights } from '../../core/model/parameters.ts';
import { savePolicyModel } from '../../core/model/policy-directory.ts';
import { Prng } from '../../core/prng.ts';
import { writeQwenFiles } from '../../core/text/testing/qwen-files.ts';
import { loadTokenizer } from '../../core/text/tokenizer.ts';

export function writeHermesPolicy(directory: string, contextTokens = 1_024): void {
  mkdirSync(directory, { recursive: true });
  writeQwenFiles(directory);
  const { vocabularySize: vocabulary } = loadTokenizer(directory);
  const config = {
    ...({ modelType: 'llama', layers: 1, hidden: 16, heads: 2, kvHeads: 1, headDim: 8 } as const),
    ...{ intermediate: 32, vocabulary, contextTokens, ropeTheta: 10_000 },
    ...{ rmsNormEpsilon: 1e-6, qkvBias: false, tiedEmbeddings: true },
  };
  savePolicyModel(directory, { config, weights: initialWeights(config, new Prng(4)) });
}
