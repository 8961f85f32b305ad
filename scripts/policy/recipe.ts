/** The numbers of the embedded policy: its shape, its text and its cold start. */
import type { ModelConfig } from '../../core/model/types.ts';

/**
 * About 2 M parameters: large enough to copy names and follow four hops, small enough for two
 * cores.
 */
export const SHAPE: Omit<ModelConfig, 'vocabulary'> = {
  modelType: 'llama',
  layers: 4,
  hidden: 192,
  heads: 6,
  kvHeads: 2,
  headDim: 32,
  intermediate: 512,
  contextTokens: 512,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};

export const TEXT = {
  vocabularySize: 1536,
  tools: ['search', 'javascript'],
  /** Traces whose text the tokenizer is trained on. */
  tokenizerTraces: 12_000,
};

export const COLD_START = {
  seed: 20_260_101,
  steps: 560,
  rowsPerStep: 48,
  learningRate: 2e-3,
  warmupSteps: 40,
  microBatchTokens: 4_096,
  /** Scales the mistake rates of traces.ts. */
  mistakes: 0.7,
  /** Share of the steps with ideal traces, before mistakes are mixed in. */
  idealShare: 0.6,
};
