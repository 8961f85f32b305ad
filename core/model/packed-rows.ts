/**
 * Rows of tokens as inputs of a forward pass in the packed form (arpo.md section 7): a prefix that
 * rows share is forwarded once, whoever they are; tokens lie depth-first, a token's position is its
 * depth, and it attends to its ancestors alone. So every token has the states that it has in its
 * own row, and what is predicted at it is the same number up to rounding.
 *
 * A token followed by different ones in different rows takes a row of logits for each of them:
 * there are as many more as there are branches, which is few.
 *
 * Dimensions as in packed-attention.ts.
 */
import { must } from '../assert.ts';
import { MASKED, Predictions, usedTokens, type ForwardRows, type Wanted } from './flat-rows.ts';
import { fill, packedSizes, segmentsOf, sortRows, type PackedSizes } from './packed-layout.ts';
import type { RotaryTable } from './rotary.ts';
import type { Feeds } from './session.ts';

export function packedRows(
  rotary: RotaryTable,
  rows: readonly Uint32Array[],
  wanted: Wanted,
): ForwardRows {
  const used: number[] = usedTokens(rows, wanted);
  // With nothing wanted one token is forwarded all the same: a tensor must not be empty.
  if (!used.some((last) => last > 0)) used[0] = 1;
  const forest = buildForest(rows, used);
  const predictions = new Predictions(rows);
  rows.forEach((_, r) => {
    const path = must(forest.paths[r], 'a path for each row');
    for (let t = 1; t <= path.length; t++) {
      if (t < (rows[r]?.length ?? 0) && wanted(r, t)) predictions.add(r, t, path[t - 1] as number);
    }
  });
  const dims = [1, forest.ids.length];
  return {
    rows: rows.length,
    width: predictions.width,
    feeds: {
      ids: { dims, data: BigInt64Array.from(forest.ids, BigInt) },
      ...rotary.feeds(forest.positions, dims),
      ...layoutFeeds(forest),
      ...predictions.feeds(),
    },
    tokensForwarded: forest.ids.length,
  };
}

/** Tokens depth-first. */
interface Forest {
  ids: number[];
  positions: number[];
  /** The token before; -1 at a beginning. */
  parents: number[];
  /** The tokens of each row, in the order in which the rows were given. */
  paths: Int32Array[];
  sizes: PackedSizes;
}

function buildForest(rows: readonly Uint32Array[], used: readonly number[]): Forest {
  const sorted = sortRows(rows, used);
  const ids: number[] = [];
  const positions: number[] = [];
  const parents: number[] = [];
  const paths = new Array<Int32Array>(rows.length);
  let before = new Int32Array(0);
  sorted.order.forEach((r, i) => {
    const length = sorted.lengths[i] as number;
    const path = new Int32Array(length);
    path.set(before.subarray(0, sorted.shared[i]));
    for (let t = sorted.shared[i] as number; t < length; t++) {
      path[t] = ids.push(rows[r]?.[t] as number) - 1;
      positions.push(t);
      parents.push(t === 0 ? -1 : (path[t - 1] as number));
    }
    paths[r] = before = path;
  });
  const sizes = packedSizes(segmentsOf(sorted.lengths, sorted.shared));
  return { ids, positions, parents, paths, sizes };
}

/** Where each token lies: its slot, and its place in the hub or -1. */
interface Places {
  block: number;
  blocks: number;
  slots: Int32Array;
  hubPlaces: Int32Array;
  hub: number;
}

function placeTokens({ parents, sizes: { block, blocks } }: Forest): Places {
  const subtree = new Int32Array(parents.length).fill(1);
  for (let i = parents.length - 1; i >= 0; i--) {
    const parent = parents[i] as number;
    if (parent >= 0) subtree[parent] = (subtree[parent] as number) + (subtree[i] as number);
  }
  const inHub = (token: number) => (subtree[token] as number) > block;
  const hubPlaces = new Int32Array(parents.length).fill(-1);
  const roots: number[] = [];
  let hub = 0;
  parents.forEach((parent, token) => {
    if (inHub(token)) hubPlaces[token] = hub++;
    else if (parent < 0 || inHub(parent)) roots.push(token);
  });
  const filled = fill(
    roots.map((root) => subtree[root] as number),
    block,
  );
  const slots = new Int32Array(parents.length);
  roots.forEach((root, i) => {
    const place = must(filled.places[i], 'a place for each piece');
    // Depth-first order: a piece is a run of tokens.
    for (let k = 0; k < (subtree[root] as number); k++) {
      slots[root + k] = place.block * block + place.slot + k;
    }
  });
  // Queries of the hub take what the pieces leave free.
  let [at, slot] = [0, filled.used[0] ?? 0];
  parents.forEach((_, token) => {
    if (!inHub(token)) return;
    while (slot === block) slot = filled.used[++at] ?? 0;
    slots[token] = at * block + slot++;
  });
  return { block, blocks: Math.max(blocks, at + 1), slots, hubPlaces, hub };
}

/** The inputs of `packedAttention`. */
function layoutFeeds(forest: Forest): Feeds {
  const { block, blocks, slots, hubPlaces, hub } = placeTokens(forest);
  const [tokens, hubWidth] = [slots.length, Math.max(1, hub)];
  const slotTokens = new BigInt64Array(blocks * block).fill(-1n);
  // Without a hub, one key that nobody sees: a tensor must not be empty.
  const hubTokens = new BigInt64Array(hubWidth).fill(-1n);
  const hubMask = new Float32Array(blocks * block * hubWidth).fill(MASKED);
  const blockMask = new Float32Array(blocks * block * block).fill(MASKED);
  for (let token = 0; token < tokens; token++) {
    const [slot, hubPlace] = [slots[token] as number, hubPlaces[token] as number];
    slotTokens[slot] = BigInt(token);
    // A token sees what its parent sees, and itself.
    const parent = forest.parents[token] as number;
    const above = parent < 0 ? -1 : (slots[parent] as number);
    if (parent >= 0) {
      hubMask.copyWithin(slot * hubWidth, above * hubWidth, (above + 1) * hubWidth);
    }
    if (hubPlace >= 0) {
      hubTokens[hubPlace] = BigInt(token);
      hubMask[slot * hubWidth + hubPlace] = 0;
      continue;
    }
    if (parent >= 0 && (hubPlaces[parent] as number) < 0) {
      blockMask.copyWithin(slot * block, above * block, (above + 1) * block);
    }
    blockMask[slot * block + (slot % block)] = 0;
  }
  const vector = (data: BigInt64Array) => ({ dims: [data.length], data });
  return {
    slots: vector(BigInt64Array.from(slots, BigInt)),
    slotTokens: { dims: [blocks, block], data: slotTokens },
    hubTokens: vector(hubTokens),
    hubPlaces: vector(BigInt64Array.from(hubPlaces, BigInt)),
    hubMask: { dims: [blocks * block, 1, hubWidth], data: hubMask },
    blockMask: { dims: [blocks, block, 1, block], data: blockMask },
  };
}
