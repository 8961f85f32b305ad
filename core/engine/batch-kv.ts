/**
 * The dense cache of one batch, as the graphs want it: rows that mirror sequences. A row remembers
 * which blocks it holds, so only what it lacks is copied: in steady decoding the last chunk, for a
 * sequence that begins like the row's last one the part where they differ. Attention over a long
 * cache is bound by memory, so a batch has few columns to spare.
 */
import { must } from '../assert.ts';
import {
  allocateKv,
  BLOCK_TOKENS,
  bytesPerToken,
  type KvMemory,
  type KvShape,
  type LayerKv,
  type Mirror,
} from './kv-memory.ts';
import type { SequenceKv } from './sequence-kv.ts';

/** Columns of a batch are a multiple of this; each new size costs one copy of all rows. */
const COLUMN_STEP = 64;
/** A batch keeps its columns while it has no more than this many steps to spare. */
const SPARE_STEPS = 2;

interface HeldRow {
  stamp: symbol;
  blockIds: readonly number[];
  length: number;
}

export class BatchKv implements Mirror {
  readonly shape: KvShape;
  private readonly memory: KvMemory;
  private layers: LayerKv[] = [];
  private columnCount = 0;
  private held: HeldRow[] = [];
  /** The most columns of all rows that were in use since the buffers were made. */
  private touched = 0;

  constructor(memory: KvMemory, shape: KvShape) {
    this.memory = memory;
    this.shape = shape;
    memory.addMirror(this);
  }

  /** Pages that were never written cost nothing, so only what was in use counts. */
  get bytes(): number {
    return this.touched * bytesPerToken(this.shape);
  }

  clear(): void {
    this.layers = [];
    this.held = [];
    this.columnCount = 0;
    this.touched = 0;
  }

  dispose(): void {
    this.clear();
    this.memory.removeMirror(this);
  }

  /** How many of these sequences, in order, one batch may hold by the budget; at least one. */
  rowsThatFit(sequences: readonly SequenceKv[]): number {
    const columnsMax = Math.floor(this.memory.batchBytesMax / bytesPerToken(this.shape));
    let longest = 1;
    const over = sequences.findIndex(({ length }, i) => {
      longest = Math.max(longest, length);
      return (i + 1) * this.columnsFor(longest) > columnsMax;
    });
    return over === -1 ? sequences.length : Math.max(1, over);
  }

  /**
   * An order in which sequences that the batch holds keep their rows: element i is the index of the
   * sequence for row i. When a few of many leave, the others need not be copied again.
   */
  arrange(sequences: readonly SequenceKv[]): number[] {
    const rowOf = new Map(this.held.map(({ stamp }, row) => [stamp, row]));
    const order = new Array<number | undefined>(sequences.length).fill(undefined);
    const others: number[] = [];
    sequences.forEach(({ stamp }, i) => {
      const row = rowOf.get(stamp) ?? Infinity;
      if (row < order.length) order[row] = i;
      else others.push(i);
    });
    return order.map((i) => i ?? must(others.shift(), 'a sequence for each row'));
  }

  /** Makes row i mirror `sequences[i]` and returns the number of columns S. */
  load(sequences: readonly SequenceKv[]): number {
    this.fit(sequences.length, Math.max(1, ...sequences.map((kv) => kv.length)));
    this.held = sequences.map((kv, row) => {
      kv.copyTo(this.layers, row, this.columnCount, sameColumns(this.held[row], kv), kv.length);
      const blockIds = kv.blocks.map(({ id }) => id);
      return { stamp: kv.stamp, blockIds, length: kv.length };
    });
    return this.columnCount;
  }

  /** Room for rows and columns; rows hold nothing any more when the columns change. */
  private fit(rows: number, longest: number): void {
    const columns = this.columnsFor(longest);
    if (columns !== this.columnCount) this.held = [];
    this.columnCount = columns;
    if (rows * this.columnCount > this.touched) this.grow(rows);
  }

  private columnsFor(longest: number): number {
    const needed = Math.ceil(longest / COLUMN_STEP) * COLUMN_STEP;
    const spare = this.columnCount - needed;
    return spare < 0 || spare > SPARE_STEPS * COLUMN_STEP ? needed : this.columnCount;
  }

  private grow(rows: number): void {
    const { kvHeads, headDim } = this.shape;
    const total = rows * this.columnCount;
    this.memory.fitMirror(this, total * bytesPerToken(this.shape));
    if (total * kvHeads * headDim > (this.layers[0]?.keys.length ?? 0)) {
      // Room for twice the columns: what is never written costs no memory, and growing batches copy
      // into pages that they have.
      this.layers = allocateKv(this.shape, 2 * total);
      this.held = [];
    }
    this.touched = total;
  }

  /** Whether a row holds this sequence. */
  holds({ stamp }: SequenceKv): boolean {
    return this.held.some((row) => row.stamp === stamp);
  }

  /**
   * Takes back buffers that were lent to a thread as `view`s; until then the batch must not be
   * used. A batch that was cleared meanwhile stays so.
   */
  takeBack(layers: LayerKv[]): void {
    if (this.layers.length > 0) this.layers = layers;
  }

  /** Views of the first `rows` rows of a layer, shaped for the graph. */
  view(layer: number, rows: number) {
    const { kvHeads, headDim } = this.shape;
    const dims = [rows, kvHeads, this.columnCount, headDim];
    const size = rows * kvHeads * this.columnCount * headDim;
    const { keys, values } = must(this.layers[layer], 'layer');
    return {
      keys: { dims, data: keys.subarray(0, size) },
      values: { dims, data: values.subarray(0, size) },
    };
  }
}

/** Columns of `kv` that a row holds already. */
function sameColumns(held: HeldRow | undefined, kv: SequenceKv): number {
  if (held === undefined) return 0;
  let blocks = 0;
  while (blocks < kv.blocks.length && held.blockIds[blocks] === kv.blocks[blocks]?.id) blocks++;
  return Math.min(held.length, kv.length, blocks * BLOCK_TOKENS);
}
