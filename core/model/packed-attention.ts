/**
 * Attention of tokens that lie packed: N tokens of a forest in one row, each attending to its
 * ancestors and itself. Layout (packed-rows.ts chooses it): a few upper tokens, which many have as
 * ancestors, form the hub; every other token is in a piece, a subtree that fits in one block.
 * Blocks of queries attend to the hub under one mask and to the keys of their own block under
 * another.
 *
 * So shared keys take one product for all their descendants, and what different branches would
 * hide from each other is mostly never computed. The products of a layer other than attention see
 * the N tokens in a row, without padding.
 *
 * Dimensions: N tokens, S blocks of L slots, J hub tokens, H query heads, K key/value heads, G = H
 * / K, d head width.
 */
import * as ops from '../graph/functions.ts';
import type { Graph, Value } from '../graph/graph.ts';
import type { MixTokens } from './decoder.ts';
import type { ModelConfig } from './types.ts';

interface Layout {
  /** The slot of each token. */
  slots: Value; // int64 (N)
  /** The token in each slot, or -1. */
  slotTokens: Value; // int64 (S, L)
  hubTokens: Value; // int64 (J)
  /** The place of each token in the hub, or -1. */
  hubPlaces: Value; // int64 (N)
  /** Added to the scores of hub keys. */
  hubMask: Value; // (S*L, 1, J)
  /** Added to the scores of the keys of the own block. */
  blockMask: Value; // (S, L, 1, L)
}

/** Declares the layout as inputs of the graph, and attends by it. */
export function packedAttention(graph: Graph, config: ModelConfig): MixTokens {
  const layout: Layout = {
    slots: graph.input('slots', 'int64', ['N']),
    slotTokens: graph.input('slotTokens', 'int64', ['S', 'L']),
    hubTokens: graph.input('hubTokens', 'int64', ['J']),
    hubPlaces: graph.input('hubPlaces', 'int64', ['N']),
    hubMask: graph.input('hubMask', 'float32', ['S*L', 1, 'J']),
    blockMask: graph.input('blockMask', 'float32', ['S', 'L', 1, 'L']),
  };
  return { mix: (queries, keys, values) => mix(config, layout, { queries, keys, values }) };
}

function mix(
  { heads, kvHeads, headDim }: ModelConfig,
  layout: Layout,
  states: Record<'queries' | 'keys' | 'values', Value>,
): Value {
  const group = heads / kvHeads;
  const rows = (x: Value, width: number) => ops.reshape(x, [-1, width], 'N');
  /** (1, N, n, d) -> (K, S, L, n/K*d). */
  const inBlocks = (x: Value, width: number) => {
    const spread = ops.moveRows(rows(x, kvHeads * width), layout.slotTokens, layout.slots);
    return ops.transpose(ops.reshape(spread, [0, 0, kvHeads, width]), [2, 0, 1, 3]);
  };
  /** (1, N, K, d) -> (K, J, d). */
  const inHub = (x: Value) => {
    const taken = ops.moveRows(rows(x, kvHeads * headDim), layout.hubTokens, layout.hubPlaces);
    return ops.transpose(ops.reshape(taken, [0, kvHeads, headDim]), [1, 0, 2]);
  };
  const queries = inBlocks(states.queries, group * headDim); // (K, S, L, G*d)
  const perBlock = ops.reshape(queries, [0, 0, -1, headDim], 'L*G'); // (K, S, L*G, d)
  const perHead = ops.reshape(perBlock, [0, -1, headDim], 'S*L*G'); // (K, S*L*G, d)
  const perToken = ops.reshape(queries, [0, -1, group, headDim], 'S*L'); // (K, S*L, G, d)
  const perSlot = ops.reshape(queries, [0, 0, 0, group, headDim]); // (K, S, L, G, d)
  const [keys, values] = [inBlocks(states.keys, headDim), inBlocks(states.values, headDim)];

  // Scores under their masks, both (K, S, L*G, ..): one softmax over hub and block together.
  const hubScores = ops.matmulTransposed(perHead, inHub(states.keys)); // (K, S*L*G, J)
  const hubMasked = ops.add(ops.reshapeBefore(hubScores, perToken), layout.hubMask);
  const hub = ops.reshapeBefore(hubMasked, perBlock); // (K, S, L*G, J)
  const blockScores = ops.matmulTransposed(perBlock, keys); // (K, S, L*G, L)
  const blockMasked = ops.add(ops.reshapeBefore(blockScores, perSlot), layout.blockMask);
  const block = ops.reshapeLike(blockMasked, blockScores);
  const [toHub, toBlock] = ops.jointSoftmax(hub, block);

  const fromBlock = ops.matmul(toBlock, values); // (K, S, L*G, d)
  const fromHub = ops.matmul(ops.reshapeLike(toHub, hubScores), inHub(states.values));
  const mixed = ops.add(fromBlock, ops.reshapeLike(fromHub, fromBlock));
  const perKey = ops.reshape(mixed, [0, 0, -1, group * headDim], 'L'); // (K, S, L, G*d)
  const slots = ops.reshape(ops.transpose(perKey, [1, 2, 0, 3]), [-1, heads * headDim], 'S*L');
  const order = ops.reshape(layout.slotTokens, [-1], 'S*L');
  const merged = ops.moveRows(slots, layout.slots, order); // (N, H*d)
  return ops.unsqueeze(merged, [0]);
}
