/**
 * What the rest of core needs of a model: its shape, its weights by name, and a training session.
 */
import type { ClipRule } from './policy-loss.ts';

/** What products are computed in; weights are stored in it. */
export type ComputeType = 'f32' | 'f16';

/** Decoder-only transformer of the Llama and Qwen families, as in a Hugging Face config.json. */
export interface ModelConfig {
  /** qwen3 has an RMSNorm on every query and key head; the others have none. */
  modelType: 'llama' | 'qwen2' | 'qwen3';
  layers: number;
  /** Width of the residual stream (D). */
  hidden: number;
  /** Query heads (H). */
  heads: number;
  /** Key/value heads; heads % kvHeads === 0 (grouped-query attention). */
  kvHeads: number;
  /** Width of a head (d), even; heads * headDim need not be the width of the residual stream. */
  headDim: number;
  /** Inner width of SwiGLU (F). */
  intermediate: number;
  vocabulary: number;
  contextTokens: number;
  ropeTheta: number;
  /** How the rotation is stretched over a longer window; absent: not at all. */
  ropeScaling?: RopeScaling;
  rmsNormEpsilon: number;
  /** Biases on the attention projections; except in qwen2 on o_proj too (`hasBias`). */
  qkvBias: boolean;
  tiedEmbeddings: boolean;
}

/** Stretched rotary embeddings; rope-frequencies.ts has the formulas. Windows are in tokens. */
export type RopeScaling =
  | { type: 'linear'; factor: number }
  | {
      type: 'llama3';
      factor: number;
      lowFrequencyFactor: number;
      highFrequencyFactor: number;
      originalContextTokens: number;
    }
  | {
      type: 'yarn';
      factor: number;
      originalContextTokens: number;
      /** Cosines and sines are multiplied by this. */
      attentionFactor: number;
      /** Pairs that turn at least this often in the original window are not stretched. */
      betaFast: number;
      /** Pairs that turn at most this often are stretched by the whole factor. */
      betaSlow: number;
      /** Whether the pairs at the two bounds are rounded outwards to whole ones. */
      truncate: boolean;
    };

/** Weights by Hugging Face tensor name, float32, row-major, shaped as in the safetensors file. */
export type Weights = Map<string, HeldTensor>;

export interface HeldTensor {
  shape: readonly number[];
  data: Float32Array;
}

/** A tensor that lies in a file and has been checked, but not read. */
export interface StoredTensor {
  /** Absolute, without links. */
  path: string;
  /** Of its first byte in the file. */
  offset: number;
  byteLength: number;
  dtype: 'F32' | 'F16' | 'BF16';
  shape: readonly number[];
}

export type StoredWeights = Map<string, StoredTensor>;

/** Weights to serve from, in memory or in files. */
export type ModelWeights = ReadonlyMap<string, HeldTensor | StoredTensor>;

/** How rows are forwarded: one by one, or prefixes that they share once (arpo.md section 7). */
export type RowForm = 'flat' | 'packed';

/**
 * One row of a training batch. All arrays have the row's token count; index t speaks of tokens[t].
 */
export interface TrainRow {
  tokens: Uint32Array;
  /** Loss weight of each token: 0 for context tokens (never sampled), and always 0 at index 0. */
  weights: Float32Array;
  /** Advantage of each token. */
  advantages: Float32Array;
  /** ln p under the policy at the start of the update; read only where weight > 0. */
  oldLogprobs: Float32Array;
  /** ln p of what sampled the token; absent: as `oldLogprobs`. Read by clip rule `cispo`. */
  behaviourLogprobs?: Float32Array;
  /** ln p under the reference policy; read when `klCoefficient` is not 0. */
  referenceLogprobs?: Float32Array;
}

/** The policy loss of arpo.md section 6, as a graph has it. */
export interface LossSettings {
  /** Absent: `ppo`. */
  clip?: ClipRule;
  /** The ratio is clipped to [1 - epsLow, 1 + epsHigh]. */
  epsLow: number;
  epsHigh: number;
  /** Bound on the loss of tokens with negative advantage; read by `ppo` and `entropy-balanced`. */
  dualClip: number;
  /** Of the divergence from `referenceLogprobs`; absent or 0: not in the loss. */
  klCoefficient?: number;
  /** Of the entropy of the predictions: above 0 a bonus, below a price; absent or 0: not there. */
  entropyCoefficient?: number;
  /**
   * Divides the weighted sum. Given by the caller for the whole mini-batch, as in
   * core/arpo/aggregate.ts, so that splitting into micro-batches changes nothing.
   */
  weightSum: number;
}

export interface TrainResult {
  loss: number;
  /** d loss / d weight, same names and layout as the weights. */
  gradients: Map<string, Float32Array>;
  /**
   * ln p and entropy of tokens[t] given tokens[0..t-1], of tokens that have a loss weight; 0
   * elsewhere. One array a row.
   */
  logprobs: Float32Array[];
  entropies: Float32Array[];
  /** Tokens that passed through the layers, padding included. */
  tokensForwarded: number;
}

export interface ScoreResult {
  logprobs: Float32Array[];
  entropies: Float32Array[];
}

/**
 * Forward and backward of the flat loss on one set of weights. The arrays in `weights` are read at
 * every run: an optimiser that updates them in place needs no reload.
 */
export interface TrainingSession {
  readonly config: ModelConfig;
  readonly weights: Weights;
  /** ln p and entropy of every token of the rows. */
  score(rows: readonly Uint32Array[], form?: RowForm): Promise<ScoreResult>;
  /**
   * L = -sum w * min(r A, clip(r) A), dual-clipped, / weightSum (arpo.md section 6), and gradients.
   * The form changes them by no more than rounding.
   */
  lossAndGradients(
    rows: readonly TrainRow[],
    loss: LossSettings,
    form?: RowForm,
  ): Promise<TrainResult>;
  dispose(): Promise<void>;
}
