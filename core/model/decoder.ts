/**
 * The forward pass, written once: a pre-norm decoder with rotary embeddings, grouped-query
 * attention and SwiGLU (Llama, Qwen2, Qwen3). Decode, prefill, scoring and training graphs all call
 * `decoderStates`; they differ only in where weights come from and in which keys and values a token
 * attends to.
 *
 * Weights, keys and values may be float16 (`product`); norms, rotation, softmax and the residual
 * stream are always float32.
 *
 * Dimensions: B rows, T tokens a row, D hidden, H query heads, K key/value heads, G = H / K,
 * d head width, F inner width, V vocabulary.
 */
import * as ops from '../graph/functions.ts';
import type { Value } from '../graph/graph.ts';
import { mulDims, type Dim } from '../graph/tensor-type.ts';
import { hasBias, hasHeadNorms } from './parameters.ts';
import type { RotaryValues } from './rotary.ts';
import type { ModelConfig } from './types.ts';

/** Keys and values that tokens attend to. */
export interface KvSegment {
  keys: Value; // (B, K, n, d)
  values: Value; // (B, K, n, d)
  /** Added to the scores, broadcast to (B, K, T*G, n); null = everything is visible. */
  mask: Value | null;
}

export interface DecoderInputs {
  ids: Value; // int64 (B, T)
  rotary: RotaryValues;
}

export interface DecoderHooks {
  /** The weight of a Hugging Face name. */
  weight(name: string): Value;
  /** What layer `layer` attends to, given the keys and values of this call's tokens. */
  attend: ((layer: number, keys: Value, values: Value) => KvSegment[]) | MixTokens;
  /**
   * What an adapter adds to the projection `module` (`model.layers.N.self_attn.q_proj`) of `input`;
   * null or no hook: nothing.
   */
  adapt?(input: Value, module: string): Value | null;
}

/** Attention among this call's tokens that is not one batch of rows: see packed-attention.ts. */
export interface MixTokens {
  /** Queries (B, T, H, d), scaled, and keys and values (B, T, K, d) to (B, T, H*d). */
  mix(queries: Value, keys: Value, values: Value): Value;
}

/** Final hidden states (B, T, D), normalised: the input of `decoderLogits`. */
export function decoderStates(
  config: ModelConfig,
  { ids, rotary }: DecoderInputs,
  hooks: DecoderHooks,
): Value {
  const { rmsNormEpsilon: epsilon } = config;
  const { graph } = ids;
  let x = wide(ops.gather(hooks.weight('model.embed_tokens.weight'), ids)); // (B, T, D)
  for (let layer = 0; layer < config.layers; layer++) {
    const weight = (name: string) => hooks.weight(`model.layers.${layer}.${name}`);
    const project = (input: Value, name: string) => {
      const out = product(ops.linear, input, weight(`${name}.weight`));
      const added = hooks.adapt?.(input, `model.layers.${layer}.${name}`) ?? null;
      const adapted = added === null ? out : ops.add(out, added);
      return hasBias(config, name) ? ops.add(adapted, weight(`${name}.bias`)) : adapted;
    };
    const h = ops.rmsNorm(x, weight('input_layernorm.weight'), epsilon);
    const heads = (states: Value, count: number) =>
      ops.reshape(states, [0, 0, count, config.headDim]); // (B, T, n, d)
    const rotated = (name: string, count: number) => {
      const states = project(h, `self_attn.${name}_proj`); // (B, T, n*d)
      if (!hasHeadNorms(config)) return heads(rotate(states, rotary), count);
      const gain = weight(`self_attn.${name}_norm.weight`);
      const normed = ops.rmsNorm(heads(states, count), gain, epsilon);
      return heads(rotate(ops.reshape(normed, [0, 0, count * config.headDim]), rotary), count);
    };
    // Scaled here and not beside the product: onnxruntime would fuse the factor into the product
    // and leave its fast path for single rows, which makes decoding over a long cache 3 times
    // slower.
    const scale = graph.constant(1 / Math.sqrt(config.headDim));
    const scaled = ops.mul(rotated('q', config.heads), scale);
    const keys = rotated('k', config.kvHeads); // (B, T, K, d)
    const values = heads(project(h, 'self_attn.v_proj'), config.kvHeads); // (B, T, K, d)
    const merged = mixTokens(config, hooks.attend, layer, [scaled, keys, values]); // (B, T, H*d)
    x = ops.add(x, project(merged, 'self_attn.o_proj'));

    const h2 = ops.rmsNorm(x, weight('post_attention_layernorm.weight'), epsilon);
    const gate = project(h2, 'mlp.gate_proj'); // (B, T, F)
    const inner = ops.mul(ops.silu(gate), project(h2, 'mlp.up_proj'));
    x = ops.add(x, project(inner, 'mlp.down_proj'));
  }
  return ops.rmsNorm(x, hooks.weight('model.norm.weight'), epsilon);
}

/** (B, T, H*d) from queries (B, T, H, d) and keys and values (B, T, K, d). */
function mixTokens(
  config: ModelConfig,
  attend: DecoderHooks['attend'],
  layer: number,
  [queries, keys, values]: readonly [Value, Value, Value],
): Value {
  if (typeof attend !== 'function') return attend.mix(queries, keys, values);
  const grouped = groupQueries(config, queries); // (B, K, T*G, d)
  const mixed = attention(grouped, attend(layer, perHead(keys), perHead(values)));
  return ungroupQueries(config, mixed, queries.shape[1] as Dim);
}

const rotate = (states: Value, { places, cosines, sines }: RotaryValues) =>
  ops.rotary(states, places, cosines, sines);

/** Logits (.., V) of final states (.., D). */
export function decoderLogits(
  config: ModelConfig,
  states: Value,
  weight: DecoderHooks['weight'],
): Value {
  const name = config.tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';
  return product(ops.linear, states, weight(name));
}

/** Softmax over all segments together, then the weighted sum of their values: (B, K, T*G, d). */
function attention(queries: Value, segments: readonly KvSegment[]): Value {
  const scores = segments.map(({ keys, mask }) => {
    const raw = product(ops.matmulTransposed, queries, keys);
    return mask === null ? raw : ops.add(raw, mask);
  });
  const [first, second] = segments as [KvSegment, KvSegment | undefined];
  if (second === undefined) {
    return product(ops.matmul, ops.softmax(scores[0] as Value, -1), first.values);
  }
  const weights = ops.softmax(ops.concat(scores, -1), -1);
  const past = ops.head(weights, scores[0] as Value);
  const local = ops.tail(weights, scores[0] as Value, (scores[1] as Value).shape.at(-1) as Dim);
  return ops.add(
    product(ops.matmul, past, first.values),
    product(ops.matmul, local, second.values),
  );
}

/**
 * The one place that decides how a product is computed: in the type of its second factor, a weight
 * or a cached tensor. Whatever it is computed in, it begins and ends as float32.
 */
function product(op: (a: Value, b: Value) => Value, a: Value, b: Value): Value {
  return b.dtype === 'float16' ? wide(op(ops.cast(a, 'float16'), b)) : op(a, b);
}

function wide(x: Value): Value {
  return x.dtype === 'float16' ? ops.cast(x, 'float32') : x;
}

/**
 * (B, T, H, d) -> (B, K, T*G, d): the queries that share a key head become rows of one product. For
 * a single token this is a plain reshape.
 */
function groupQueries({ kvHeads, heads, headDim }: ModelConfig, queries: Value): Value {
  const group = heads / kvHeads;
  const tokens = queries.shape[1] as Dim;
  if (tokens === 1) return ops.reshape(queries, [0, kvHeads, group, headDim]);
  // (B, T, K, G*d) -> (B, K, T, G*d) -> (B, K, T*G, d): row t*G + g.
  const perToken = ops.reshape(queries, [0, 0, kvHeads, group * headDim]);
  const perKey = ops.transpose(perToken, [0, 2, 1, 3]);
  return ops.reshape(perKey, [0, 0, -1, headDim], String(mulDims(tokens, group)));
}

/** The inverse: (B, K, T*G, d) -> (B, T, H*d). */
function ungroupQueries(config: ModelConfig, mixed: Value, tokens: Dim): Value {
  const { kvHeads, heads, headDim } = config;
  if (tokens === 1) return ops.reshape(mixed, [0, 1, heads * headDim]);
  const perKey = ops.reshape(mixed, [0, kvHeads, -1, (heads / kvHeads) * headDim], String(tokens));
  const perToken = ops.transpose(perKey, [0, 2, 1, 3]); // (B, T, K, G*d)
  return ops.reshape(perToken, [0, 0, heads * headDim]);
}

/** (B, T, K, d) -> (B, K, T, d). */
function perHead(values: Value): Value {
  const [, tokens, kvHeads, headDim] = values.shape as [Dim, Dim, number, number];
  if (tokens === 1) return ops.reshape(values, [0, kvHeads, 1, headDim]);
  return ops.transpose(values, [0, 2, 1, 3]);
}
