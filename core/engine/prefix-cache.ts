/**
 * Full blocks that stay findable after their sequence has closed. They hang in one tree a policy
 * version: a node is one block, and its key below its parent is the text of its exact tokens, so a
 * path from the root spells a whole prefix and nothing is ever found by a hash alone. A node holds
 * a reference to its block. Blocks that no sequence uses are evicted, the least recently used leaf
 * first, when memory is asked for. It does not know when that is.
 */
import { must } from '../assert.ts';
import { BLOCK_TOKENS, type KvBlock, type KvMemory, type KvShape } from './kv-memory.ts';
import type { SequenceKv } from './sequence-kv.ts';

/** Blocks that may go on from one prefix and are compared token by token; bounds a lookup. */
const PARTIAL_CANDIDATES_MAX = 64;

interface PrefixNode {
  block: KvBlock;
  tokens: readonly number[];
  key: string;
  siblings: Map<string, PrefixNode>;
  children: Map<string, PrefixNode>;
  tree: PrefixTree;
}

/** The cached prefixes of one policy version. */
export interface PrefixTree {
  readonly shape: KvShape;
  readonly children: Map<string, PrefixNode>;
}

export class PrefixCache {
  private readonly memory: KvMemory;
  /** The least recently used first. */
  private readonly recent = new Set<PrefixNode>();

  constructor(memory: KvMemory) {
    this.memory = memory;
  }

  get blocks(): number {
    return this.recent.size;
  }

  plant(shape: KvShape): PrefixTree {
    return { shape, children: new Map() };
  }

  /**
   * Lets `kv` hold every cached block that goes on from its full ones with the first `limit` of
   * `tokens`, and the beginning of the one that agrees longest after those. Returns how many tokens
   * it holds more than before.
   */
  extend(tree: PrefixTree, kv: SequenceKv, tokens: readonly number[], limit: number): number {
    const before = kv.length;
    const path: PrefixNode[] = [];
    let children = this.childrenAt(tree, kv, kv.fullBlocks);
    while (children !== undefined && (kv.fullBlocks + 1) * BLOCK_TOKENS <= limit) {
      const node = children.get(tokensAt(tokens, kv.fullBlocks).join());
      if (node === undefined) break;
      kv.adopt(node.block);
      path.push(node);
      children = node.children;
    }
    const best = bestPartial(children, tokens.slice(kv.fullBlocks * BLOCK_TOKENS, limit));
    if (best !== null && kv.fullBlocks * BLOCK_TOKENS + best.count > kv.length) {
      kv.adopt(best.node.block, best.count);
      path.push(best.node);
    }
    // A node counts as used after its children, so that leaves are the first to go.
    for (const node of path.reverse()) this.touch(node);
    return kv.length - before;
  }

  /**
   * Makes the full blocks of `kv` findable under `tokens`. Where another sequence has published the
   * same tokens before, `kv` takes that block and gives up its own.
   */
  publish(tree: PrefixTree, kv: SequenceKv, tokens: readonly number[]): void {
    let first = kv.fullBlocks;
    while (first > 0 && nodeOf(kv.blocks[first - 1]) === null) first--;
    let children = this.childrenAt(tree, kv, first);
    for (let index = first; index < kv.fullBlocks && children !== undefined; index++) {
      const held = tokensAt(tokens, index);
      const known: PrefixNode | undefined = children.get(held.join());
      if (known !== undefined) kv.replace(index, known.block);
      const own = must(kv.blocks[index], 'full block');
      const node: PrefixNode = known ?? this.insert(tree, children, own, held);
      this.touch(node);
      children = node.children;
    }
  }

  /** Frees blocks that only the cache holds until `bytes` are free or none is left. */
  evict(bytes: number): void {
    let freed = 0;
    while (freed < bytes) {
      const before = freed;
      for (const node of this.recent) {
        if (freed >= bytes) break;
        if (node.children.size > 0 || node.block.references > 1) continue;
        freed += node.block.bytes;
        this.remove(node);
      }
      // A parent becomes a leaf only after its children went, so one pass may not find all.
      if (freed === before) return;
    }
  }

  /** Forgets all prefixes of a version. Sequences keep the blocks that they use. */
  clear(tree: PrefixTree): void {
    for (const node of this.recent) if (node.tree === tree) this.remove(node);
  }

  /** Where the blocks after the first `count` ones hang, or undefined when those are not here. */
  private childrenAt(tree: PrefixTree, kv: SequenceKv, count: number) {
    if (count === 0) return tree.children;
    return nodeOf(kv.blocks[count - 1])?.children;
  }

  private insert(
    tree: PrefixTree,
    siblings: Map<string, PrefixNode>,
    own: KvBlock,
    tokens: readonly number[],
  ): PrefixNode {
    const block = this.memory.share(own);
    const key = tokens.join();
    const node = { block, tokens, key, siblings, children: new Map<string, PrefixNode>(), tree };
    block.cacheEntry = node;
    siblings.set(key, node);
    return node;
  }

  private remove(node: PrefixNode): void {
    node.siblings.delete(node.key);
    node.block.cacheEntry = null;
    this.recent.delete(node);
    this.memory.release(node.tree.shape, node.block);
  }

  private touch(node: PrefixNode): void {
    this.recent.delete(node);
    this.recent.add(node);
  }
}

function nodeOf(block: KvBlock | undefined): PrefixNode | null {
  return (block?.cacheEntry ?? null) as PrefixNode | null;
}

/** The tokens of block `index`. */
function tokensAt(tokens: readonly number[], index: number): number[] {
  return tokens.slice(index * BLOCK_TOKENS, (index + 1) * BLOCK_TOKENS);
}

/** The block that begins with most of `tokens`, and with how many. */
function bestPartial(
  candidates: ReadonlyMap<string, PrefixNode> | undefined,
  tokens: readonly number[],
): { node: PrefixNode; count: number } | null {
  let best: { node: PrefixNode; count: number } | null = null;
  let seen = 0;
  for (const node of candidates?.values() ?? []) {
    if (seen++ === PARTIAL_CANDIDATES_MAX) break;
    let count = 0;
    while (count < tokens.length && node.tokens[count] === tokens[count]) count++;
    if (count > (best?.count ?? 0)) best = { node, count };
  }
  return best;
}
