/**
 * Rows of tokens as a forest in which every shared prefix exists once, and where its tokens lie for
 * packed attention (packed-attention.ts): which of them form the hub, and which block holds each
 * piece. Sizes alone decide that, so `packedSizes` tells the cost of a packed run without making
 * it.
 *
 * Rows are sorted by their tokens, so the forest is known from lengths and from how much each row
 * has in common with the one before. A token is in the hub exactly when its subtree is larger than
 * a block: then all its ancestors are too, and every other token lies in a subtree that fits. The
 * block length is the one of some candidates with the fewest scores to compute.
 *
 * Knows nothing of models or tensors.
 */

/** Blocks shorter than this would be many products too small to be fast. */
const BLOCK_MIN = 16;
const CANDIDATES_MAX = 12;

/** Rows in the order of their tokens. */
export interface SortedRows {
  /** Indices of the rows. */
  order: number[];
  /** Tokens of each row, in that order. */
  lengths: number[];
  /** How many first tokens each row shares with the one before; 0 for the first. */
  shared: number[];
}

/** The first `lengths[i]` tokens of each row count. */
export function sortRows(rows: readonly Uint32Array[], lengths: readonly number[]): SortedRows {
  const common = (a: number, b: number) => {
    const [x, y] = [rows[a] as Uint32Array, rows[b] as Uint32Array];
    const end = Math.min(lengths[a] as number, lengths[b] as number);
    let i = 0;
    while (i < end && x[i] === y[i]) i++;
    return i;
  };
  const order = rows.map((_, i) => i);
  order.sort((a, b) => {
    const at = common(a, b);
    const [endA, endB] = [lengths[a] as number, lengths[b] as number];
    if (at === endA || at === endB) return endA - endB || a - b;
    return (rows[a]?.[at] as number) - (rows[b]?.[at] as number);
  });
  return {
    order,
    lengths: order.map((row) => lengths[row] as number),
    shared: order.map((row, i) => (i === 0 ? 0 : common(order[i - 1] as number, row))),
  };
}

/** A run of tokens without a branch in between. */
export interface Segment {
  /** Depth of its first token, and of the token after its last. */
  from: number;
  to: number;
  /** Tokens in the subtrees under its end. */
  below: number;
  /** Place in the list of the segment that it hangs from; -1: it begins a tree. */
  parent: number;
}

/** The segments of some sorted rows, each after its parent. */
export function segmentsOf(lengths: readonly number[], shared: readonly number[]): Segment[] {
  const done: Segment[] = [];
  // The path of the row before, as segments; a new row cuts it where it leaves it.
  const path: Segment[] = [];
  const children = new Map<Segment, Segment[]>();
  const hang = (child: Segment) => {
    const above = path.at(-1);
    if (above === undefined) done.push(child);
    else children.set(above, [...(children.get(above) ?? []), child]);
    path.push(child);
  };
  lengths.forEach((length, i) => {
    const keep = i === 0 ? 0 : Math.min(shared[i] as number, length);
    while (path.length > 0 && (path.at(-1) as Segment).from >= keep) path.pop();
    const last = path.at(-1);
    if (last !== undefined && last.to > keep) {
      const rest: Segment = { from: keep, to: last.to, below: 0, parent: -1 };
      children.set(rest, children.get(last) ?? []);
      children.set(last, [rest]);
      last.to = keep;
    }
    if (length > keep) hang({ from: keep, to: length, below: 0, parent: -1 });
  });
  return numbered(done, children);
}

/** Parents first; adds up what is below each. */
function numbered(roots: readonly Segment[], children: Map<Segment, Segment[]>): Segment[] {
  const list: Segment[] = [];
  const stack: [Segment, number][] = roots.map((root): [Segment, number] => [root, -1]).reverse();
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const [segment, parent] = next;
    segment.parent = parent;
    const at = list.push(segment) - 1;
    for (const child of [...(children.get(segment) ?? [])].reverse()) stack.push([child, at]);
  }
  for (let i = list.length - 1; i >= 0; i--) {
    const { from, to, below, parent } = list[i] as Segment;
    if (parent >= 0) (list[parent] as Segment).below += to - from + below;
  }
  return list;
}

export interface PackedSizes {
  /** Unique tokens. */
  tokens: number;
  /** Length of a block, and how many there are. */
  block: number;
  blocks: number;
  /** Tokens in the hub. */
  hub: number;
}

/** Scores that a head computes in one layer. */
export function attentionScores({ block, blocks, hub }: PackedSizes): number {
  return blocks * block * (block + Math.max(1, hub));
}

/**
 * The layout with the fewest scores for a forest of these segments: a block as long as one of the
 * subtrees, or a little longer, so that the hub's queries need no block of their own.
 */
export function packedSizes(segments: readonly Segment[]): PackedSizes {
  const tokens = segments.reduce((sum, { from, to }) => sum + to - from, 0);
  const tops = segments.map(({ from, to, below }) => Math.max(BLOCK_MIN, to - from + below));
  const distinct = [...new Set(tops)].sort((a, b) => a - b);
  const step = Math.max(1, Math.floor(distinct.length / CANDIDATES_MAX));
  let best: PackedSizes = { tokens, block: BLOCK_MIN, blocks: 1, hub: 0 };
  let fewest = Infinity;
  const consider = (sizes: PackedSizes) => {
    const scores = attentionScores(sizes);
    if (scores < fewest) [best, fewest] = [sizes, scores];
  };
  for (let i = 0; i < distinct.length; i += step) {
    const block = distinct[i] as number;
    const found = sizesFor(segments, block, tokens);
    consider(found);
    const roomier = Math.ceil(tokens / Math.max(1, found.blocks - 1));
    if (roomier > block && roomier < 1.25 * block) consider(sizesFor(segments, roomier, tokens));
  }
  return best;
}

function sizesFor(segments: readonly Segment[], block: number, tokens: number): PackedSizes {
  const pieces: number[] = [];
  let hub = 0;
  const whole: boolean[] = [];
  segments.forEach(({ from, to, below, parent }, i) => {
    const length = to - from;
    const inHub = Math.min(length, Math.max(0, length + below - block));
    hub += inHub;
    whole[i] = inHub === length;
    const free = parent < 0 || whole[parent] === true;
    if (free && inHub < length) pieces.push(length + below - inHub);
  });
  const filled = fill(pieces, block).blocks;
  return { tokens, block, hub, blocks: Math.max(1, filled, Math.ceil(tokens / block)) };
}

/** First fit, largest first: the block and the first slot of each piece. */
export function fill(pieces: readonly number[], block: number) {
  const used: number[] = [];
  const places = new Array<{ block: number; slot: number }>(pieces.length);
  const order = pieces.map((_, i) => i);
  order.sort((a, b) => (pieces[b] as number) - (pieces[a] as number) || a - b);
  for (const piece of order) {
    const size = pieces[piece] as number;
    let at = used.findIndex((taken) => taken + size <= block);
    if (at < 0) at = used.push(0) - 1;
    places[piece] = { block: at, slot: used[at] as number };
    used[at] = (used[at] as number) + size;
  }
  return { blocks: used.length, used, places };
}
