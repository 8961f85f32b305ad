/**
 * Reads a Hugging Face config.json: the Llama and Qwen2 families, anything else refused by name.
 */
import { AppError } from '../errors.ts';
import type { ModelConfig } from './types.ts';

/** Far above any model of these families; a larger number in a file is a broken file. */
const LAYERS_MAX = 1024;
/** The rotary tables are built for every position: 2^20 of them are some hundred megabytes. */
const CONTEXT_TOKENS_MAX = 2 ** 20;
const INTEGER_MAX = 2 ** 31;

const SUPPORTED = ['llama', 'qwen2'] as const;

/**
 * The model's shape from the parsed config.json. `where` names the file in errors.
 * Throws policy_invalid for what is missing, out of range or not supported.
 */
export function parseModelConfig(json: unknown, where: string): ModelConfig {
  if (typeof json !== 'object' || json === null) throw invalid(where, 'is not a JSON object');
  const source = json as Record<string, unknown>;
  const modelType = SUPPORTED.find((name) => name === source.model_type);
  if (modelType === undefined) {
    const given = JSON.stringify(source.model_type);
    throw invalid(
      where,
      `model_type ${given} is not supported; supported: ${SUPPORTED.join(', ')}`,
    );
  }
  const integer = (key: string, fallback?: number, largest = INTEGER_MAX): number => {
    const value = source[key] ?? fallback;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 1) {
      throw invalid(where, `${key} must be a positive integer, not ${JSON.stringify(value)}`);
    }
    if (value > largest) throw invalid(where, `${key} ${value} is larger than ${largest}`);
    return value;
  };
  const positive = (key: string, fallback: number): number => {
    const value = source[key] ?? fallback;
    if (typeof value !== 'number' || !(value > 0) || !Number.isFinite(value)) {
      throw invalid(where, `${key} must be a positive number, not ${JSON.stringify(value)}`);
    }
    return value;
  };
  refuseUnsupported(source, where);
  const hidden = integer('hidden_size');
  const heads = integer('num_attention_heads');
  const kvHeads = integer('num_key_value_heads', heads);
  const headDim = integer('head_dim', hidden / heads);
  if (heads % kvHeads !== 0) {
    throw invalid(where, `num_attention_heads ${heads} is no multiple of ${kvHeads} KV heads`);
  }
  if (headDim % 2 !== 0) throw invalid(where, `head_dim ${headDim} must be even for rotary`);
  return {
    modelType,
    layers: integer('num_hidden_layers', undefined, LAYERS_MAX),
    hidden,
    heads,
    kvHeads,
    headDim,
    intermediate: integer('intermediate_size'),
    vocabulary: integer('vocab_size'),
    contextTokens: integer('max_position_embeddings', 2048, CONTEXT_TOKENS_MAX),
    ropeTheta: positive('rope_theta', 10000),
    rmsNormEpsilon: positive('rms_norm_eps', 1e-6),
    qkvBias: source.attention_bias === true || modelType === 'qwen2',
    tiedEmbeddings: source.tie_word_embeddings === true,
  };
}

/** The config.json that `parseModelConfig` reads back. */
export function formatModelConfig(config: ModelConfig): Record<string, unknown> {
  return {
    architectures: [config.modelType === 'llama' ? 'LlamaForCausalLM' : 'Qwen2ForCausalLM'],
    model_type: config.modelType,
    hidden_act: 'silu',
    hidden_size: config.hidden,
    intermediate_size: config.intermediate,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    vocab_size: config.vocabulary,
    max_position_embeddings: config.contextTokens,
    rope_theta: config.ropeTheta,
    rms_norm_eps: config.rmsNormEpsilon,
    tie_word_embeddings: config.tiedEmbeddings,
    attention_bias: config.modelType === 'llama' ? config.qkvBias : undefined,
    torch_dtype: 'float32',
  };
}

/** Options that would change the numbers silently if they were ignored. */
function refuseUnsupported(source: Record<string, unknown>, where: string): void {
  if (source.rope_parameters !== undefined) {
    throw invalid(where, 'rope_parameters is not supported; rope_theta is');
  }
  const scaling = source.rope_scaling;
  if (scaling !== undefined && scaling !== null) {
    throw invalid(where, `rope_scaling ${JSON.stringify(scaling)} is not supported`);
  }
  if (source.hidden_act !== undefined && source.hidden_act !== 'silu') {
    throw invalid(
      where,
      `hidden_act ${JSON.stringify(source.hidden_act)} is not supported; silu is`,
    );
  }
  if (source.mlp_bias === true) throw invalid(where, 'mlp_bias is not supported');
  if (source.model_type === 'llama' && source.attention_bias === true) {
    throw invalid(where, 'attention_bias of the Llama family (a bias on o_proj) is not supported');
  }
  if (source.use_sliding_window === true) throw invalid(where, 'sliding windows are not supported');
}

function invalid(where: string, what: string): AppError {
  return new AppError('policy_invalid', `${where}: ${what}`);
}
