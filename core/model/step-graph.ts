/**
 * Prefill and decode of a large model in one graph: T tokens in, their keys and values and one
 * sampled token a row out. Decoding runs it once a token (step-session.ts).
 *
 * Why beside the two graphs of cache-graphs.ts: weights in one session are packed for its kernels
 * once, and outside of a loop's body onnxruntime lets go of each weight as soon as it has been
 * packed. Two sessions would hold large weights twice, and a loop while it is made. A run of its
 * own for every token costs less than a millisecond, which only a small model would notice.
 *
 * Dimensions as in cache-graphs.ts: C tokens of this chunk so far, 0 while prefilling.
 */
import * as ops from '../graph/functions.ts';
import { Graph } from '../graph/graph.ts';
import { addDims, mulDims } from '../graph/tensor-type.ts';
import { cacheInputs, newKeys, newValues, type DecodeOptions } from './cache-graphs.ts';
import { decoderStates, type KvSegment } from './decoder.ts';
import { anyAdapterInputs } from './lora-graph.ts';
import { rotaryInputs } from './rotary.ts';
import { samplingInputs, sampleTokens } from './sampling-graph.ts';
import { storedWeights, weightParts } from './stored-weights.ts';
import type { ModelConfig, ModelWeights } from './types.ts';

export const chunkKeys = (layer: number) => `chunkKeys.${layer}`;
export const chunkValues = (layer: number) => `chunkValues.${layer}`;

/** Outputs of one draw, by their names in the graph; the last only of graphs made for it. */
export const SAMPLED = [
  'tokens',
  'logprobs',
  'behaviourLogprobs',
  'entropies',
  'likeliest',
  'likeliestLogprobs',
  'candidateEntropies',
] as const;
export const EMBEDDING = 'model.embed_tokens.weight';
/** Of the head, the largest matrix: its parts are about as large as those of a layer. */
const HEAD_PART_BYTES = 128 * 1024 * 1024;

/**
 * Inputs: EMBEDDING, the rows of the table that ids number, ids int64 (B, T), those of
 * `rotaryInputs` for their positions (B, T), cacheMask (B, 1, 1, S), localMask (1, 1, T*G, C+T),
 * the cache, chunkKeys.l and chunkValues.l (B, K, C, d), and those of `samplingInputs` with one row
 * of uniforms. Outputs: newKeys.l and newValues.l (B, K, C+T, d), and of the last token's successor
 * tokens int64, logprobs, behaviourLogprobs, entropies and, with `entropyCandidates`,
 * candidateEntropies (B, 1), likeliest int64 and likeliestLogprobs (B, L).
 */
export function stepGraph(
  config: ModelConfig,
  weights: ModelWeights,
  { adapters = false, entropyCandidates = 0 }: Omit<DecodeOptions, 'dtype'>,
): Graph {
  const { kvHeads, headDim } = config;
  const graph = new Graph(null, { fusedLinear: true });
  const constant = storedWeights(graph, weights, 'f32');
  const table = graph.input(EMBEDDING, 'float32', ['tableRows', config.hidden]);
  const ids = graph.input('ids', 'int64', ['B', 'T']);
  const rotary = rotaryInputs(graph, config, ['B', 'T']);
  const rows = mulDims('T', config.heads / kvHeads);
  const localMask = graph.input('localMask', 'float32', [1, 1, rows, addDims('C', 'T')]);
  const cache = cacheInputs(graph, config, 'f32');
  const chunk = (name: string) => graph.input(name, 'float32', ['B', kvHeads, 'C', headDim]);
  const states = decoderStates(
    config,
    { ids, rotary },
    {
      weight: (name) => (name === EMBEDDING ? table : constant(name)),
      ...(adapters && { adapt: anyAdapterInputs(graph, config).adapt }),
      attend(layer, keys, values) {
        const grown = {
          keys: ops.concat([chunk(chunkKeys(layer)), keys], 2),
          values: ops.concat([chunk(chunkValues(layer)), values], 2),
        };
        graph.output(newKeys(layer), grown.keys);
        graph.output(newValues(layer), grown.values);
        return [cache[layer] as KvSegment, { ...grown, mask: localMask }];
      },
    },
  ); // (B, T, D)
  const last = ops.gather(ops.transpose(states, [1, 0, 2]), graph.constant(-1, 'int64')); // (B, D)
  const head = config.tiedEmbeddings ? EMBEDDING : 'lm_head.weight';
  const parts = weightParts(graph, head, weights, HEAD_PART_BYTES);
  const logits = parts.map((part) => ops.linear(last, part)); // Each (B, some of V)
  const sampling = samplingInputs(graph);
  const all = ops.concat(logits, -1); // (B, V)
  const drawn = sampleTokens(graph, all, graph.constant(0, 'int64'), sampling, entropyCandidates);
  for (const name of SAMPLED) {
    const value = drawn[name];
    if (value !== undefined) graph.output(name, value);
  }
  return graph;
}
