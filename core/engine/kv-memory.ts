/**
 * Memory for keys and values. A sequence's cache is a list of blocks of a fixed number of tokens;
 * blocks are counted by reference, so that forks and the prefix cache share them. `KvMemory` counts
 * the bytes of all blocks and batch rows against one budget: half for blocks, half for the dense
 * batches, which only mirror blocks. It refuses nothing itself: the engine asks for room before it
 * lets a sequence grow. Buffers of freed blocks wait to be used again; they are counted too, and
 * never keep a block from being allocated.
 *
 * Layout, per layer, of keys and values alike: (K, BLOCK_TOKENS, d). What one head holds of a run
 * of tokens is contiguous, so copies are few and long.
 */
import { freemem } from 'node:os';
import { assert, must } from '../assert.ts';
import type { ModelConfig } from '../model/types.ts';

/**
 * Tokens of a block. Small blocks share more of a prefix and waste less at a sequence's end, large
 * ones are copied in longer pieces.
 */
export const BLOCK_TOKENS = 64;
/** Buffers of freed blocks kept for one shape, so that turnover makes no garbage. */
const SPARE_BUFFERS_MAX = 64;

export type KvShape = Pick<ModelConfig, 'layers' | 'kvHeads' | 'headDim'>;

export interface LayerKv {
  keys: Float32Array;
  values: Float32Array;
}

/** Bytes of keys and values of one token over all layers. */
export function bytesPerToken({ layers, kvHeads, headDim }: KvShape): number {
  return 2 * layers * kvHeads * headDim * Float32Array.BYTES_PER_ELEMENT;
}

export function bytesPerBlock(shape: KvShape): number {
  return BLOCK_TOKENS * bytesPerToken(shape);
}

/** Keys and values of up to BLOCK_TOKENS tokens. Whoever shares it must not write to it. */
export class KvBlock {
  readonly layers: readonly LayerKv[];
  readonly bytes: number;
  references = 1;
  /** Names the contents: it changes when tokens are replaced, not when tokens are added. */
  id: number;
  /** Tokens written. */
  filled = 0;
  /** What the prefix cache knows about the block while it holds it. */
  cacheEntry: object | null = null;

  constructor(id: number, layers: readonly LayerKv[], bytes: number) {
    this.id = id;
    this.layers = layers;
    this.bytes = bytes;
  }
}

/** A dense batch that gives back its memory when another needs it. */
export interface Mirror {
  readonly shape: KvShape;
  readonly bytes: number;
  clear(): void;
}

/** What is kept for a shape while a version has it, and so batches. */
interface ShapeUse {
  readonly spare: (readonly LayerKv[])[];
  /** Of one block. */
  readonly bytes: number;
}

export class KvMemory {
  readonly bytesMax: number;
  private blockBytes = 0;
  private spareBytes = 0;
  private nextId = 1;
  private readonly mirrors = new Set<Mirror>();
  private readonly shapes = new Map<string, ShapeUse>();

  /** @param bytesMax the budget; null: a quarter of the memory that is free now. */
  constructor(bytesMax: number | null) {
    this.bytesMax = bytesMax ?? defaultKvBytes();
  }

  get bytesUsed(): number {
    return this.blockBytes + this.spareBytes + this.mirrorBytes();
  }

  /** Bytes that blocks may still take. */
  get blockRoom(): number {
    return this.bytesMax / 2 - this.blockBytes;
  }

  /**
   * The most that a dense batch of more than one row may take: a model has one for prefill, one for
   * shaped rows, and one, in parts, for all others.
   */
  get batchBytesMax(): number {
    return this.bytesMax / 8;
  }

  /** Tokens that one sequence can ever hold, so that two batches of this one row have room. */
  tokensMax(shape: KvShape): number {
    const columns = Math.floor(this.bytesMax / 4 / bytesPerToken(shape));
    return Math.floor(columns / BLOCK_TOKENS) * BLOCK_TOKENS;
  }

  /** An empty block. The caller has made sure that there is room. */
  allocate(shape: KvShape): KvBlock {
    const bytes = bytesPerBlock(shape);
    const buffers = this.shapes.get(keyOf(shape))?.spare.pop();
    if (buffers !== undefined) this.spareBytes -= bytes;
    else this.dropSpare(bytes);
    this.blockBytes += bytes;
    return new KvBlock(this.nextId++, buffers ?? allocateKv(shape, BLOCK_TOKENS), bytes);
  }

  share(block: KvBlock): KvBlock {
    block.references++;
    return block;
  }

  release(shape: KvShape, block: KvBlock): void {
    block.references--;
    assert(block.references >= 0, 'a KV block was released twice');
    if (block.references > 0) return;
    this.blockBytes -= block.bytes;
    const use = this.shapes.get(keyOf(shape));
    if (use === undefined || use.spare.length >= SPARE_BUFFERS_MAX) return;
    use.spare.push(block.layers);
    this.spareBytes += block.bytes;
  }

  /** The block's contents get a new name, because a token of it is replaced. */
  rename(block: KvBlock): void {
    block.id = this.nextId++;
  }

  addMirror(mirror: Mirror): void {
    this.mirrors.add(mirror);
    const key = keyOf(mirror.shape);
    if (this.shapes.has(key)) return;
    this.shapes.set(key, { spare: [], bytes: bytesPerBlock(mirror.shape) });
  }

  removeMirror(mirror: Mirror): void {
    if (!this.mirrors.delete(mirror)) return;
    const key = keyOf(mirror.shape);
    for (const { shape } of this.mirrors) if (keyOf(shape) === key) return;
    const use = must(this.shapes.get(key), 'shape of a batch');
    this.shapes.delete(key);
    this.spareBytes -= use.spare.length * use.bytes;
  }

  /** Makes room for a batch to hold `bytes`; the batches of other models give theirs up. */
  fitMirror(mirror: Mirror, bytes: number): void {
    for (const other of this.mirrors) {
      if (this.mirrorBytes() - mirror.bytes + bytes <= this.bytesMax / 2) return;
      if (other !== mirror) other.clear();
    }
  }

  /** Makes room for a new block among the blocks that are in use. */
  private dropSpare(bytes: number): void {
    for (const use of this.shapes.values()) {
      while (use.spare.length > 0 && this.blockRoom - this.spareBytes < bytes) {
        use.spare.pop();
        this.spareBytes -= use.bytes;
      }
    }
  }

  private mirrorBytes(): number {
    let bytes = 0;
    for (const mirror of this.mirrors) bytes += mirror.bytes;
    return bytes;
  }
}

/** A quarter of the free memory, within what a container allows. */
export function defaultKvBytes(): number {
  const allowed = process.constrainedMemory?.() ?? 0;
  const available = allowed > 0 ? Math.min(allowed, freemem()) : freemem();
  return Math.floor(available / 4);
}

function keyOf({ layers, kvHeads, headDim }: KvShape): string {
  return `${layers} ${kvHeads} ${headDim}`;
}

/** Buffers (K, rows * columns, d) a layer. */
export function allocateKv(shape: KvShape, columns: number): LayerKv[] {
  const { layers, kvHeads, headDim } = shape;
  const size = kvHeads * headDim * columns;
  return Array.from({ length: layers }, () => ({
    keys: new Float32Array(size),
    values: new Float32Array(size),
  }));
}

/** A place in buffers (rows, K, columns, d). */
export interface Place {
  row: number;
  columns: number;
  start: number;
}

/** Copies `count` columns of every layer and head. */
export function copyColumns(
  { kvHeads, headDim }: KvShape,
  source: readonly LayerKv[],
  from: Place,
  target: readonly LayerKv[],
  to: Place,
  count: number,
): void {
  source.forEach((layer, l) => {
    const into = must(target[l], 'layer');
    for (let head = 0; head < kvHeads; head++) {
      const begin = ((from.row * kvHeads + head) * from.columns + from.start) * headDim;
      const at = ((to.row * kvHeads + head) * to.columns + to.start) * headDim;
      into.keys.set(layer.keys.subarray(begin, begin + count * headDim), at);
      into.values.set(layer.values.subarray(begin, begin + count * headDim), at);
    }
  });
}
