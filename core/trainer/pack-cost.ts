/**
 * What a run of forward and backward costs, in floating-point operations, for choosing between flat
 * and packed rows and where to cut. What is bound by memory and not by arithmetic is counted as the
 * operations that a matrix product does in the same time.
 *
 * The weights of these parts were measured on two x86 cores with models of 2 to 3 M parameters
 * (docs/performance.md, "Tree-packed training"). Only their ratios matter: they decide a choice,
 * and a wrong choice costs time, nothing else.
 */
import { attentionScores, type PackedSizes } from '../model/packed-layout.ts';
import { parameterCount } from '../model/parameters.ts';
import type { ModelConfig } from '../model/types.ts';

/** Passes over the scores (mask, softmax, their gradients), for each score of a head. */
const SCORE_PASSES = { flat: 230, packed: 470 };
/** Moving states into blocks and back, for each number of a token's state in each layer. */
const MOVE_PASSES = 1_300;
/** Passes over the logits, for each logit. */
const LOGIT_PASSES = 350;
/** Reading, writing and adding up the gradients of the weights, for each parameter. */
const RUN_PASSES = 170;
/** A run of any size. */
const RUN_START = 1e8;

export interface RunCost {
  /** `tokens` is rows times the longest row. */
  flat(shape: { rows: number; longest: number; predictions: number }): number;
  packed(sizes: PackedSizes, predictions: number): number;
}

export function runCost(config: ModelConfig): RunCost {
  const { layers, hidden, heads, headDim, vocabulary, tiedEmbeddings } = config;
  const parameters = parameterCount(config);
  const embedding = vocabulary * hidden;
  const inLayers = parameters - embedding * (tiedEmbeddings ? 1 : 2);
  const token = 6 * inLayers;
  const prediction = 6 * embedding + LOGIT_PASSES * vocabulary;
  const score = (passes: number) => layers * heads * (12 * headDim + passes);
  const fixed = RUN_PASSES * parameters + RUN_START;
  return {
    flat: ({ rows, longest, predictions }) =>
      fixed +
      rows * longest * token +
      rows * longest ** 2 * score(SCORE_PASSES.flat) +
      predictions * prediction,
    packed: (sizes, predictions) =>
      fixed +
      sizes.tokens * (token + MOVE_PASSES * layers * hidden) +
      attentionScores(sizes) * score(SCORE_PASSES.packed) +
      predictions * prediction,
  };
}
