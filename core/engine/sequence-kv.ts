/**
 * Keys and values of one sequence: a list of blocks, all full but the last. A fork shares every
 * block; a shared block is copied by whoever writes to it first, which can only be the last one.
 * Full blocks are also what the prefix cache keeps and hands to other sequences.
 */
import { must } from '../assert.ts';
import {
  BLOCK_TOKENS,
  bytesPerBlock,
  copyColumns,
  type KvBlock,
  type KvMemory,
  type KvShape,
  type LayerKv,
} from './kv-memory.ts';

export class SequenceKv {
  /** Batch rows know a sequence by it. */
  readonly stamp = Symbol('kv');
  private readonly memory: KvMemory;
  private readonly shape: KvShape;
  private readonly list: KvBlock[] = [];
  private used = 0;

  constructor(memory: KvMemory, shape: KvShape) {
    this.memory = memory;
    this.shape = shape;
  }

  /** Tokens held. */
  get length(): number {
    return this.used;
  }

  get blocks(): readonly KvBlock[] {
    return this.list;
  }

  /** Blocks of which every token belongs to this sequence. */
  get fullBlocks(): number {
    return Math.floor(this.used / BLOCK_TOKENS);
  }

  /** Bytes of new blocks that `count` more tokens take. */
  bytesToGrow(count: number): number {
    if (count <= 0) return 0;
    const added = Math.ceil((this.used + count) / BLOCK_TOKENS) - this.list.length;
    return (added + (this.mustCopyLast() ? 1 : 0)) * bytesPerBlock(this.shape);
  }

  /** Adds `count` columns of batch row `row` from a run's outputs (B, K, columns, d). */
  append(outputs: readonly LayerKv[], row: number, columns: number, count: number): void {
    for (let start = 0; start < count;) {
      const offset = this.used % BLOCK_TOKENS;
      const block = this.writable(offset);
      const taken = Math.min(BLOCK_TOKENS - offset, count - start);
      const to = { row: 0, columns: BLOCK_TOKENS, start: offset };
      copyColumns(this.shape, outputs, { row, columns, start }, block.layers, to, taken);
      block.filled = offset + taken;
      this.used += taken;
      start += taken;
    }
  }

  truncate(length: number): void {
    if (length >= this.used) return;
    this.used = length;
    const kept = Math.ceil(length / BLOCK_TOKENS);
    for (const block of this.list.splice(kept)) this.memory.release(this.shape, block);
  }

  /** A cache of the first `length` tokens that shares all its blocks. */
  fork(length: number): SequenceKv {
    const made = new SequenceKv(this.memory, this.shape);
    made.used = Math.min(length, this.used);
    for (const block of this.list.slice(0, Math.ceil(made.used / BLOCK_TOKENS))) {
      made.list.push(this.memory.share(block));
    }
    return made;
  }

  /** Holds what `other` holds instead of its own. */
  become(other: SequenceKv): void {
    for (const block of other.list) this.memory.share(block);
    this.truncate(0);
    this.list.push(...other.list);
    this.used = other.used;
  }

  /**
   * Takes the first `count` tokens of `block` after those of its full blocks; a partial last block
   * is dropped for them.
   */
  adopt(block: KvBlock, count = BLOCK_TOKENS): void {
    this.memory.share(block);
    this.truncate(this.fullBlocks * BLOCK_TOKENS);
    this.list.push(block);
    this.used += count;
  }

  /** Puts a block with the same contents in the place of full block `index`. */
  replace(index: number, block: KvBlock): void {
    this.memory.share(block);
    const [own] = this.list.splice(index, 1, block);
    this.memory.release(this.shape, must(own, 'block'));
  }

  /** Writes columns [from, to) into row `row` of a batch with `columns` columns. */
  copyTo(target: readonly LayerKv[], row: number, columns: number, from: number, to: number): void {
    for (let start = from; start < to;) {
      const block = must(this.list[Math.floor(start / BLOCK_TOKENS)], 'block');
      const offset = start % BLOCK_TOKENS;
      const count = Math.min(BLOCK_TOKENS - offset, to - start);
      const source = { row: 0, columns: BLOCK_TOKENS, start: offset };
      copyColumns(this.shape, block.layers, source, target, { row, columns, start }, count);
      start += count;
    }
  }

  private mustCopyLast(): boolean {
    return this.used % BLOCK_TOKENS > 0 && must(this.list.at(-1), 'block').references > 1;
  }

  /** The block that token `offset` of it is written to: a new one, the last, or a copy of that. */
  private writable(offset: number): KvBlock {
    if (offset === 0) {
      this.list.push(this.memory.allocate(this.shape));
    } else if (this.mustCopyLast()) {
      const copy = this.memory.allocate(this.shape);
      const place = { row: 0, columns: BLOCK_TOKENS, start: 0 };
      const last = must(this.list.pop(), 'block');
      copyColumns(this.shape, last.layers, place, copy.layers, place, offset);
      this.memory.release(this.shape, last);
      copy.filled = offset;
      this.list.push(copy);
    }
    const block = must(this.list.at(-1), 'block');
    if (offset < block.filled) this.memory.rename(block);
    return block;
  }
}
