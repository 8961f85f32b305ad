/**
 * What the rest of core needs of a model: its shape, its weights by name, and a training session.
 */

/** Decoder-only transformer of the Llama / Qwen2 family, as in a Hugging Face config.json. */
export interface ModelConfig {
  modelType: 'llama' | 'qwen2';
  layers: number;
  /** Width of the residual stream (D). */
  hidden: number;
  /** Query heads (H). */
  heads: number;
  /** Key/value heads; heads % kvHeads === 0 (grouped-query attention). */
  kvHeads: number;
  headDim: number;
  /** Inner width of SwiGLU (F). */
  intermediate: number;
  vocabulary: number;
  contextTokens: number;
  ropeTheta: number;
  rmsNormEpsilon: number;
  qkvBias: boolean;
  tiedEmbeddings: boolean;
}

/** Weights by Hugging Face tensor name, float32, row-major, shaped as in the safetensors file. */
export type Weights = Map<string, { shape: readonly number[]; data: Float32Array }>;

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
}

export interface LossSettings {
  epsLow: number;
  epsHigh: number;
  /** Bound on the loss of tokens with negative advantage; arpo.md section 6. */
  dualClip: number;
  /**
   * Divides the weighted sum. Given by the caller (the sum of weights over the whole mini-batch),
   * so that splitting into micro-batches changes nothing.
   */
  weightSum: number;
}

export interface TrainResult {
  loss: number;
  /** d loss / d weight, same names and layout as the weights. */
  gradients: Map<string, Float32Array>;
  /** ln p and entropy of tokens[t] given tokens[0..t-1]; 0 at index 0. One array a row. */
  logprobs: Float32Array[];
  entropies: Float32Array[];
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
  score(rows: readonly Uint32Array[]): Promise<ScoreResult>;
  /**
   * L = -sum w * min(r A, clip(r) A), dual-clipped, / weightSum (arpo.md section 6), and gradients.
   */
  lossAndGradients(rows: readonly TrainRow[], loss: LossSettings): Promise<TrainResult>;
  dispose(): Promise<void>;
}
