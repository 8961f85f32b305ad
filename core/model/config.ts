/**
 * Reads and writes a Hugging Face config.json: Llama 2 and 3, Qwen2 and 2.5, Qwen3 (dense). Another
 * family, and an option that would change the numbers silently if it were ignored, is refused by
 * name. The rotary part is in rope-config.ts.
 *
 * What is absent has the family's default in transformers.
 */
import { JsonFields } from '../json-fields.ts';
import { formatRope, parseRope } from './rope-config.ts';
import type { ModelConfig } from './types.ts';

/** Far above any model of these families; a larger number in a file is a broken file. */
const LAYERS_MAX = 1024;
/** The longest window of these families is 2^20; positions stay exact in float32 up to 2^24. */
const CONTEXT_TOKENS_MAX = 2 ** 20;
const INTEGER_MAX = 2 ** 31;

interface Family {
  architecture: string;
  contextTokens: number;
  /** null: as many as query heads. */
  kvHeads: number | null;
  /** null: hidden / heads. */
  headDim: number | null;
}

const FAMILIES: Readonly<Record<ModelConfig['modelType'], Family>> = {
  llama: {
    architecture: 'LlamaForCausalLM',
    contextTokens: 2_048,
    kvHeads: null,
    headDim: null,
  },
  qwen2: {
    architecture: 'Qwen2ForCausalLM',
    contextTokens: 32_768,
    kvHeads: 32,
    headDim: null,
  },
  qwen3: {
    architecture: 'Qwen3ForCausalLM',
    contextTokens: 32_768,
    kvHeads: 32,
    headDim: 128,
  },
};
const SUPPORTED = Object.keys(FAMILIES) as ModelConfig['modelType'][];

/** The windows of Qwen models where the file is silent. */
const SLIDING_FROM_LAYER_DEFAULT = 28;

/**
 * The model's shape from the parsed config.json. `where` names the file in errors.
 * Throws policy_invalid for what is missing, out of range or not supported.
 */
export function parseModelConfig(json: unknown, where: string): ModelConfig {
  const fields = new JsonFields(json, where);
  const modelType = SUPPORTED.find((name) => name === fields.value('model_type'));
  if (modelType === undefined) {
    const given = JSON.stringify(fields.value('model_type'));
    throw fields.invalid(
      `model_type ${given} is not supported; supported: ${SUPPORTED.join(', ')}`,
    );
  }
  const family = FAMILIES[modelType];
  const size = (key: string, fallback?: number, largest = INTEGER_MAX): number =>
    fields.number(key, { integer: true, least: 1, largest, fallback });
  const hidden = size('hidden_size');
  const heads = size('num_attention_heads');
  // Null means as many as query heads in every family; absent, the family's own number.
  const absent = fields.isWritten('num_key_value_heads') ? null : family.kvHeads;
  const kvHeads = size('num_key_value_heads', absent ?? heads);
  const headDim = size('head_dim', family.headDim ?? hidden / heads);
  if (heads % kvHeads !== 0) {
    throw fields.invalid(`num_attention_heads ${heads} is no multiple of ${kvHeads} KV heads`);
  }
  if (headDim % 2 !== 0) throw fields.invalid(`head_dim ${headDim} must be even for rotary`);
  const layers = size('num_hidden_layers', undefined, LAYERS_MAX);
  refuseUnsupported(fields, modelType, layers);
  const key = 'max_position_embeddings';
  const contextTokens = size(key, family.contextTokens, CONTEXT_TOKENS_MAX);
  return {
    modelType,
    layers,
    hidden,
    heads,
    kvHeads,
    headDim,
    intermediate: size('intermediate_size'),
    vocabulary: size('vocab_size'),
    contextTokens,
    ...parseRope(fields, contextTokens),
    rmsNormEpsilon: fields.number('rms_norm_eps', { above: 0, fallback: 1e-6 }),
    // Qwen2 has its biases whatever the file says.
    qkvBias: modelType === 'qwen2' || fields.flag('attention_bias'),
    tiedEmbeddings: fields.flag('tie_word_embeddings'),
  };
}

/** The config.json that `parseModelConfig` and transformers read back to the same model. */
export function formatModelConfig(config: ModelConfig): Record<string, unknown> {
  const { modelType } = config;
  return {
    architectures: [FAMILIES[modelType].architecture],
    model_type: modelType,
    hidden_act: 'silu',
    hidden_size: config.hidden,
    intermediate_size: config.intermediate,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    vocab_size: config.vocabulary,
    max_position_embeddings: config.contextTokens,
    ...formatRope(config),
    rms_norm_eps: config.rmsNormEpsilon,
    tie_word_embeddings: config.tiedEmbeddings,
    ...(modelType === 'qwen2' ? { use_sliding_window: false } : { attention_bias: config.qkvBias }),
    torch_dtype: 'float32',
  };
}

/** Options that would change the numbers silently if they were ignored. */
function refuseUnsupported(
  fields: JsonFields,
  modelType: ModelConfig['modelType'],
  layers: number,
): void {
  const activation = fields.value('hidden_act') ?? 'silu';
  if (activation !== 'silu') {
    throw fields.invalid(`hidden_act ${JSON.stringify(activation)} is not supported; silu is`);
  }
  if (fields.flag('mlp_bias')) throw fields.invalid('mlp_bias is not supported');
  const quantization = fields.value('quantization_config');
  if (quantization !== undefined) {
    const method = JSON.stringify((quantization as { quant_method?: unknown }).quant_method);
    throw fields.invalid(
      `quantization_config (quant_method ${method}) is not supported; f32, f16 and bf16 weights are`,
    );
  }
  if (modelType !== 'llama' && slidingLayers(fields, layers)) {
    throw fields.invalid('sliding windows are not supported; full attention in every layer is');
  }
}

/** Whether any layer of a Qwen model attends to a window only. */
function slidingLayers(fields: JsonFields, layers: number): boolean {
  const types = fields.value('layer_types');
  if (types !== undefined) {
    return !Array.isArray(types) || types.some((type) => type !== 'full_attention');
  }
  if (!fields.flag('use_sliding_window')) return false;
  const first = fields.number('max_window_layers', {
    integer: true,
    least: 0,
    fallback: SLIDING_FROM_LAYER_DEFAULT,
  });
  // A window of null switches them off; an absent one is 4,096.
  const isOff = fields.isWritten('sliding_window') && fields.value('sliding_window') === undefined;
  return !isOff && first < layers;
}
