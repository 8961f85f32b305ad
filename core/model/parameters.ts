/**
 * The parameters of a model: Hugging Face names and shapes, a seeded initialisation, and a check of
 * loaded tensors against the config.
 */
import { AppError } from '../errors.ts';
import type { Prng } from '../prng.ts';
import type { ModelConfig, Weights } from './types.ts';

/** Every parameter's name and shape, in the order of the forward pass. */
export function parameterShapes(config: ModelConfig): Map<string, readonly number[]> {
  const { hidden, heads, kvHeads, headDim, intermediate, vocabulary } = config;
  const shapes = new Map<string, readonly number[]>();
  shapes.set('model.embed_tokens.weight', [vocabulary, hidden]);
  for (let layer = 0; layer < config.layers; layer++) {
    const add = (name: string, ...shape: number[]) =>
      shapes.set(`model.layers.${layer}.${name}`, shape);
    add('input_layernorm.weight', hidden);
    add('self_attn.q_proj.weight', heads * headDim, hidden);
    add('self_attn.k_proj.weight', kvHeads * headDim, hidden);
    add('self_attn.v_proj.weight', kvHeads * headDim, hidden);
    if (hasBias(config, 'self_attn.q_proj')) {
      add('self_attn.q_proj.bias', heads * headDim);
      add('self_attn.k_proj.bias', kvHeads * headDim);
      add('self_attn.v_proj.bias', kvHeads * headDim);
    }
    if (hasHeadNorms(config)) {
      add('self_attn.q_norm.weight', headDim);
      add('self_attn.k_norm.weight', headDim);
    }
    add('self_attn.o_proj.weight', hidden, heads * headDim);
    if (hasBias(config, 'self_attn.o_proj')) add('self_attn.o_proj.bias', hidden);
    add('post_attention_layernorm.weight', hidden);
    add('mlp.gate_proj.weight', intermediate, hidden);
    add('mlp.up_proj.weight', intermediate, hidden);
    add('mlp.down_proj.weight', hidden, intermediate);
  }
  shapes.set('model.norm.weight', [hidden]);
  if (!config.tiedEmbeddings) shapes.set('lm_head.weight', [vocabulary, hidden]);
  return shapes;
}

/** Whether a projection of a layer, such as `self_attn.q_proj`, has a bias. */
export function hasBias({ modelType, qkvBias }: ModelConfig, projection: string): boolean {
  if (!qkvBias || !projection.startsWith('self_attn.')) return false;
  return projection !== 'self_attn.o_proj' || modelType !== 'qwen2';
}

/** Whether each query and key head is normalised before it is rotated. */
export function hasHeadNorms({ modelType }: ModelConfig): boolean {
  return modelType === 'qwen3';
}

/**
 * Fresh weights: normal with deviation 0.02 scaled up for small widths, the projections back into
 * the residual stream divided by sqrt(2 layers) (GPT-2), norms 1, biases 0.
 */
export function initialWeights(config: ModelConfig, prng: Prng): Weights {
  const deviation = Math.max(0.02, 0.5 / Math.sqrt(config.hidden));
  const weights: Weights = new Map();
  for (const [name, shape] of parameterShapes(config)) {
    const data = new Float32Array(shape.reduce((product, dim) => product * dim, 1));
    if (name.includes('norm')) data.fill(1);
    else if (!name.endsWith('bias')) {
      const residual = name.includes('o_proj') || name.includes('down_proj');
      const scale = residual ? deviation / Math.sqrt(2 * config.layers) : deviation;
      for (let i = 0; i < data.length; i++) data[i] = scale * prng.gaussian();
    }
    weights.set(name, { shape, data });
  }
  return weights;
}

export function parameterCount(config: ModelConfig): number {
  let total = 0;
  for (const shape of parameterShapes(config).values()) {
    total += shape.reduce((product, dim) => product * dim, 1);
  }
  return total;
}

/** Throws policy_invalid naming the first tensor that is missing, unknown or of another shape. */
export function checkWeights(
  config: ModelConfig,
  weights: ReadonlyMap<string, { shape: readonly number[] }>,
  where: string,
): void {
  const shapes = parameterShapes(config);
  for (const [name, shape] of shapes) {
    const found = weights.get(name);
    if (found === undefined) throw new AppError('policy_invalid', `${where}: no tensor ${name}`);
    if (found.shape.join() !== shape.join()) {
      throw new AppError(
        'policy_invalid',
        `${where}: ${name} has shape [${found.shape.join()}], config.json says [${shape.join()}]`,
      );
    }
  }
  for (const name of weights.keys()) {
    if (!shapes.has(name)) throw new AppError('policy_invalid', `${where}: unknown tensor ${name}`);
  }
}
