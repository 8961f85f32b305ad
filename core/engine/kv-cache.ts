/**
 * Keys and values of sequences. Each sequence owns its cache (`SequenceKv`), so that forking,
 * growing and freeing touch nothing else. The decode graph wants one dense batch, so `BatchKv`
 * keeps rows that mirror sequences and copies only what a row does not hold yet: in steady decoding
 * that is the last chunk. Attention over a long cache is bound by memory, so a batch has few
 * columns to spare.
 *
 * Layout, per layer, of keys and values alike: (K, capacity, d). A batch has a leading row
 * dimension and S columns. What one head holds of a run of tokens is contiguous, so copies are few
 * and long.
 */
import { must } from '../assert.ts';
import type { ModelConfig } from '../model/types.ts';

const CAPACITY_MIN = 64;
/** Columns of a batch are a multiple of this; each new size costs one copy of all rows. */
const COLUMN_STEP = 64;
/** A batch keeps its columns while it has no more than this many steps to spare. */
const SPARE_STEPS = 2;

interface LayerKv {
  keys: Float32Array;
  values: Float32Array;
}

export type KvShape = Pick<ModelConfig, 'layers' | 'kvHeads' | 'headDim'>;

/** Columns that a sequence has room for: powers of two, so that growing is seldom. */
export function capacityFor(length: number): number {
  let capacity = CAPACITY_MIN;
  while (capacity < length) capacity *= 2;
  return capacity;
}

export class SequenceKv {
  private readonly shape: KvShape;
  private layers: LayerKv[];
  private capacity: number;
  private used = 0;
  private state = Symbol('kv');

  constructor(shape: KvShape, capacity = CAPACITY_MIN) {
    this.shape = shape;
    this.capacity = capacity;
    this.layers = allocate(shape, 1, capacity);
  }

  get length(): number {
    return this.used;
  }

  /** Stays while columns are only added; no other sequence ever has it. Batch rows go by it. */
  get stamp(): symbol {
    return this.state;
  }

  /** Adds `count` columns of batch row `row` from a run's outputs (B, K, columns, d). */
  append(outputs: readonly LayerKv[], row: number, columns: number, count: number): void {
    this.reserve(this.used + count);
    const from = { row, columns, start: 0 };
    const to = { row: 0, columns: this.capacity, start: this.used };
    copyColumns(this.shape, outputs, from, this.layers, to, count);
    this.used += count;
  }

  truncate(length: number): void {
    if (length >= this.used) return;
    this.used = length;
    this.state = Symbol('kv');
  }

  /** A copy of the first `length` columns. */
  copy(length: number): SequenceKv {
    const made = new SequenceKv(this.shape, capacityFor(length));
    this.copyTo(made.layers, 0, made.capacity, 0, length);
    made.used = length;
    return made;
  }

  /** Writes columns [from, to) into row `row` of a batch with `columns` columns. */
  copyTo(target: readonly LayerKv[], row: number, columns: number, from: number, to: number): void {
    const source = { row: 0, columns: this.capacity, start: from };
    copyColumns(this.shape, this.layers, source, target, { row, columns, start: from }, to - from);
  }

  private reserve(length: number): void {
    if (length <= this.capacity) return;
    const capacity = capacityFor(length);
    const layers = allocate(this.shape, 1, capacity);
    this.copyTo(layers, 0, capacity, 0, this.used);
    this.layers = layers;
    this.capacity = capacity;
  }
}

/** The dense cache of one batch; rows remember whose columns they hold. */
export class BatchKv {
  private readonly shape: KvShape;
  private layers: LayerKv[] = [];
  private columnCount = 0;
  private held: { stamp: symbol; length: number }[] = [];

  constructor(shape: KvShape) {
    this.shape = shape;
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
      const held = this.held[row];
      const from = held?.stamp === kv.stamp ? held.length : 0;
      kv.copyTo(this.layers, row, this.columnCount, from, kv.length);
      return { stamp: kv.stamp, length: kv.length };
    });
    return this.columnCount;
  }

  /** Room for rows and columns; rows hold nothing any more when the columns change. */
  private fit(rows: number, longest: number): void {
    const needed = Math.ceil(longest / COLUMN_STEP) * COLUMN_STEP;
    const spare = this.columnCount - needed;
    if (spare < 0 || spare > SPARE_STEPS * COLUMN_STEP) {
      this.columnCount = needed;
      this.held = [];
    }
    const { kvHeads, headDim } = this.shape;
    const size = rows * kvHeads * headDim * this.columnCount;
    if (size <= (this.layers[0]?.keys.length ?? 0)) return;
    // Room for twice the columns: what is never written costs no memory, and growing batches copy
    // into pages that they have.
    this.layers = allocate(this.shape, rows, 2 * this.columnCount);
    this.held = [];
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

function allocate({ layers, kvHeads, headDim }: KvShape, rows: number, columns: number): LayerKv[] {
  const size = rows * kvHeads * headDim * columns;
  return Array.from({ length: layers }, () => ({
    keys: new Float32Array(size),
    values: new Float32Array(size),
  }));
}

/** A place in buffers with a number of columns a row. */
interface Place {
  row: number;
  columns: number;
  start: number;
}

/** Copies `count` columns of every layer and head. */
function copyColumns(
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
