/**
 * Graphs over a KV cache, made from the same forward pass: prefill (adds context tokens) and
 * chunked decode (an ONNX Loop that samples up to K tokens in one run). The long cache is a
 * read-only input, only the keys and values of this run are computed, and the caller appends them
 * once.
 *
 * Weights are initialisers: onnxruntime packs them for its kernels when the session is made.
 *
 * With dtype `f16` weights are stored as halves and every product is computed in float16; inputs
 * and outputs, the cache among them, are float32 in both types.
 *
 * With `adapters` the graph also reads A and B of a LoRA adapter (lora-graph.ts) and serves every
 * adapter over these weights; without, a model that has none pays nothing for them.
 *
 * Dimensions: B rows, T tokens of this run, S cached tokens (padded), C tokens of this chunk so
 * far, K key/value heads, d head width, V vocabulary.
 */
import * as ops from '../graph/functions.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { mulDims } from '../graph/tensor-type.ts';
import { decoderLogits, decoderStates, type DecoderHooks, type KvSegment } from './decoder.ts';
import { anyAdapterInputs } from './lora-graph.ts';
import { rotaryInputs, type RotaryValues } from './rotary.ts';
import { samplingInputs, sampleTokens, type SamplingInputs } from './sampling-graph.ts';
import { storedWeights } from './stored-weights.ts';
import type { ComputeType, ModelConfig, ModelWeights } from './types.ts';

/** What a decode graph is made for, besides its weights. */
export interface DecodeOptions {
  dtype?: ComputeType;
  adapters?: boolean;
  /** Likeliest tokens over which a second entropy is measured; absent or 0: it is no output. */
  entropyCandidates?: number;
}

export const cacheKeys = (layer: number) => `cacheKeys.${layer}`;
export const cacheValues = (layer: number) => `cacheValues.${layer}`;
export const newKeys = (layer: number) => `newKeys.${layer}`;
export const newValues = (layer: number) => `newValues.${layer}`;

/**
 * Inputs: ids int64 (B, T), those of `rotaryInputs` for their positions (B, T), cacheMask (B, 1, 1,
 * S), localMask (1, 1, T*G, T), the cache.
 * Outputs: newKeys.l and newValues.l (B, K, T, d).
 */
export function prefillGraph(
  config: ModelConfig,
  weights: ModelWeights,
  dtype: ComputeType = 'f32',
  adapters = false,
): Graph {
  const graph = new Graph();
  const weight = storedWeights(graph, weights, dtype);
  const ids = graph.input('ids', 'int64', ['B', 'T']);
  const rotary = rotaryInputs(graph, config, ['B', 'T']);
  const rows = mulDims('T', config.heads / config.kvHeads);
  const localMask = graph.input('localMask', 'float32', [1, 1, rows, 'T']);
  const cache = cacheInputs(graph, config, dtype);
  decoderStates(
    config,
    { ids, rotary },
    {
      weight,
      ...(adapters && { adapt: anyAdapterInputs(graph, config).adapt }),
      attend(layer, keys, values) {
        graph.output(newKeys(layer), keys);
        graph.output(newValues(layer), values);
        const local = {
          keys: asFactor(keys, dtype),
          values: asFactor(values, dtype),
          mask: localMask,
        };
        return [cache[layer] as KvSegment, local];
      },
    },
  );
  return graph;
}

/**
 * Samples a chunk. Inputs: ids int64 (B, 1) the last known token, those of `rotaryInputs` for its
 * position and those that follow (steps, B, 1), cacheMask, the cache, and those of
 * `samplingInputs`, of which uniforms (steps, B) sets the number of tokens. The loop ends early
 * when every row has met a stop token. Outputs: tokens int64, logprobs, behaviourLogprobs,
 * entropies and, with `entropyCandidates`, candidateEntropies (n, B, 1) for the n tokens sampled,
 * likeliest int64 and likeliestLogprobs (n, B, L), newKeys.l and newValues.l (B, K, n, d): of the
 * input token and all but the last sampled.
 */
export function decodeGraph(
  config: ModelConfig,
  weights: ModelWeights,
  { dtype = 'f32', adapters = false, entropyCandidates = 0 }: DecodeOptions = {},
): Graph {
  const graph = new Graph();
  const weight = storedWeights(graph, weights, dtype);
  const ids = graph.input('ids', 'int64', ['B', 1]);
  const rotary = rotaryInputs(graph, config, ['steps', 'B', 1]);
  const sampling = samplingInputs(graph);
  const stops = graph.input('stopTokens', 'int64', ['B', 'stops']);
  const cache = cacheInputs(graph, config, dtype);
  const adapt = adapters ? anyAdapterInputs(graph, config).adapt : undefined;
  const inputs = { weight, adapt, rotary, cache, sampling, stops, dtype, entropyCandidates };
  const body = chunkBody(graph, config, inputs);

  const { kvHeads, headDim } = config;
  const layers = Array.from({ length: config.layers }, (_, layer) => layer);
  const nothingStopped = ops.less(ids, ids); // (B, 1), all false
  const empty = ops.zerosFor(ids, [kvHeads, 0, headDim]);
  const chunk = [...layers, ...layers].map(() => empty); // Keys of every layer, then values.
  const state = [ids, nothingStopped, ...chunk];
  const trips = ops.dimension(sampling.uniforms, 0);
  const results = ops.loop(graph, trips, graph.constant(1, 'bool'), state, body);
  const at = (index: number) => results[index] as Value;
  for (const layer of layers) {
    graph.output(newKeys(layer), at(2 + layer));
    graph.output(newValues(layer), at(2 + config.layers + layer));
  }
  const scans = 2 + 2 * config.layers;
  graph.output('tokens', at(scans));
  graph.output('logprobs', at(scans + 1));
  graph.output('behaviourLogprobs', at(scans + 2));
  graph.output('entropies', at(scans + 3));
  graph.output('likeliest', at(scans + 4));
  graph.output('likeliestLogprobs', at(scans + 5));
  if (entropyCandidates > 0) graph.output('candidateEntropies', at(scans + 6));
  return graph;
}

interface ChunkInputs {
  weight: (name: string) => Value;
  adapt: DecoderHooks['adapt'] | undefined;
  /** Places of every step: (steps, B, 1). */
  rotary: RotaryValues;
  cache: readonly KvSegment[];
  sampling: SamplingInputs;
  /** int64 (B, stops). */
  stops: Value;
  dtype: ComputeType;
  entropyCandidates: number;
}

/**
 * The loop body: one token a row. State: last ids, stopped, then the chunk's keys, values.
 */
function chunkBody(graph: Graph, config: ModelConfig, inputs: ChunkInputs): Graph {
  const { kvHeads, headDim, vocabulary } = config;
  const body = new Graph(graph);
  const iteration = body.input('iteration', 'int64', []);
  body.input('keepGoing', 'bool', []);
  const lastIds = body.input('lastIds', 'int64', ['B', 1]);
  const stopped = body.input('stopped', 'bool', ['B', 1]);
  const layers = Array.from({ length: config.layers }, (_, layer) => layer);
  const chunkOf = (name: string) =>
    layers.map((l) => body.input(`${name}.${l}`, 'float32', ['B', kvHeads, 'C', headDim]));
  const chunkKeys = chunkOf('chunkKeys');
  const chunkValues = chunkOf('chunkValues');

  const places = ops.gather(inputs.rotary.places, iteration); // (B, 1)
  const grown: { keys: Value; values: Value }[] = [];
  const states = decoderStates(
    config,
    { ids: lastIds, rotary: { ...inputs.rotary, places } },
    {
      weight: inputs.weight,
      ...(inputs.adapt && { adapt: inputs.adapt }),
      attend(layer, keys, values) {
        const all = {
          keys: ops.concat([chunkKeys[layer] as Value, keys], 2),
          values: ops.concat([chunkValues[layer] as Value, values], 2),
        };
        grown.push(all);
        const local = {
          keys: asFactor(all.keys, inputs.dtype),
          values: asFactor(all.values, inputs.dtype),
          mask: null,
        };
        return [inputs.cache[layer] as KvSegment, local];
      },
    },
  );
  const logits = ops.reshape(decoderLogits(config, states, inputs.weight), [0, vocabulary]); // (B, V)
  const { sampling, entropyCandidates } = inputs;
  const drawn = sampleTokens(body, logits, iteration, sampling, entropyCandidates);
  const hit = anyOf(ops.equal(drawn.tokens, inputs.stops), [1], true); // (B, 1)
  const nowStopped = ops.or(stopped, hit);
  body.output('continue', anyOf(ops.not(nowStopped), [0, 1], false));
  body.output('nextIds', drawn.tokens);
  body.output('nextStopped', nowStopped);
  grown.forEach(({ keys }, layer) => body.output(`grownKeys.${layer}`, keys));
  grown.forEach(({ values }, layer) => body.output(`grownValues.${layer}`, values));
  body.output('scanTokens', drawn.tokens);
  body.output('scanLogprobs', drawn.logprobs);
  body.output('scanBehaviour', drawn.behaviourLogprobs);
  body.output('scanEntropies', drawn.entropies);
  body.output('scanLikeliest', drawn.likeliest);
  body.output('scanLikeliestLogprobs', drawn.likeliestLogprobs);
  if (drawn.candidateEntropies) body.output('scanCandidates', drawn.candidateEntropies);
  return body;
}

/** Whether any truth value along the axes is set; ONNX reduces numbers only. */
function anyOf(truths: Value, axes: readonly number[], keepDims: boolean): Value {
  const most = ops.reduceMax(ops.cast(truths, 'float32'), axes, keepDims);
  return ops.less(ops.scalar(most, 0.5), most);
}

/** Keys or values as a factor of products. A cached one is cast outside of the loop, once a run. */
export function asFactor(values: Value, dtype: ComputeType): Value {
  return dtype === 'f16' ? ops.cast(values, 'float16') : values;
}

/**
 * The cache of each layer with one mask for all: 0 where a row has a token, very negative
 * elsewhere.
 */
export function cacheInputs(
  graph: Graph,
  { layers, kvHeads, headDim }: ModelConfig,
  dtype: ComputeType,
): KvSegment[] {
  const mask = graph.input('cacheMask', 'float32', ['B', 1, 1, 'S']);
  const cached = (name: string) =>
    asFactor(graph.input(name, 'float32', ['B', kvHeads, 'S', headDim]), dtype);
  return Array.from({ length: layers }, (_, layer) => ({
    keys: cached(cacheKeys(layer)),
    values: cached(cacheValues(layer)),
    mask,
  }));
}
