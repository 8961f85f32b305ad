/**
 * Keys and values of sequences. Each sequence owns its cache (`SequenceKv`), so that forking, growing
 * and freeing touch nothing else. The decode graph wants one dense batch, so `BatchKv` keeps rows
 * that mirror sequences and copies only what a row does not hold yet: in steady decoding that is the
 * last chunk.
 *
 * Layouts, per layer: keys (K, d, capacity), transposed as the graph multiplies them; values
 * (K, capacity, d). A batch has a leading row dimension and S columns.
 */
import { must } from '../assert.ts';
import type { ModelConfig } from '../model/types.ts';

const CAPACITY_MIN = 64;
/** Below this many columns a plain loop beats one `set` a row of keys. */
const SMALL_COPY = 32;

interface LayerKv {
  keys: Float32Array;
  values: Float32Array;
}

export type KvShape = Pick<ModelConfig, 'layers' | 'kvHeads' | 'headDim'>;

/** Cached columns for a length: powers of two, so that few batch shapes occur. */
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
  /** Grows whenever cached columns are dropped, so that batch rows notice. */
  private generation = 0;

  constructor(shape: KvShape, capacity = CAPACITY_MIN) {
    this.shape = shape;
    this.capacity = capacity;
    this.layers = allocate(shape, 1, capacity);
  }

  get length(): number {
    return this.used;
  }

  get stamp(): number {
    return this.generation;
  }

  /** Adds `count` columns of batch row `row` from a run's outputs: keys (B, K, d, n), values (B, K, n, d). */
  append(outputs: readonly LayerKv[], row: number, columns: number, count: number): void {
    this.reserve(this.used + count);
    const { kvHeads, headDim } = this.shape;
    outputs.forEach((from, layer) => {
      const to = must(this.layers[layer], 'layer');
      for (let head = 0; head < kvHeads; head++) {
        const source = row * kvHeads + head;
        copyKeys(
          from.keys,
          source,
          columns,
          0,
          to.keys,
          head,
          this.capacity,
          this.used,
          count,
          headDim,
        );
        to.values.set(
          from.values.subarray(source * columns * headDim, (source * columns + count) * headDim),
          (head * this.capacity + this.used) * headDim,
        );
      }
    });
    this.used += count;
  }

  truncate(length: number): void {
    if (length >= this.used) return;
    this.used = length;
    this.generation++;
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
    const { kvHeads, headDim } = this.shape;
    const count = to - from;
    this.layers.forEach((own, layer) => {
      const out = must(target[layer], 'layer');
      for (let head = 0; head < kvHeads; head++) {
        const at = row * kvHeads + head;
        copyKeys(own.keys, head, this.capacity, from, out.keys, at, columns, from, count, headDim);
        out.values.set(
          own.values.subarray(
            (head * this.capacity + from) * headDim,
            (head * this.capacity + to) * headDim,
          ),
          (at * columns + from) * headDim,
        );
      }
    });
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
  private rows = 0;
  private columnCount = 0;
  private held: { kv: SequenceKv; stamp: number; length: number }[] = [];

  constructor(shape: KvShape) {
    this.shape = shape;
  }

  /**
   * Makes row i mirror `sequences[i]` and returns the number of columns S. Sequences keep their rows
   * from run to run where the caller passes them in the same order.
   */
  load(sequences: readonly SequenceKv[]): number {
    const columns = capacityFor(Math.max(1, ...sequences.map((kv) => kv.length)));
    if (columns !== this.columnCount || sequences.length > this.rows) {
      this.rows = Math.max(sequences.length, this.columnCount === columns ? this.rows : 0);
      this.columnCount = columns;
      this.layers = allocate(this.shape, this.rows, columns);
      this.held = [];
    }
    sequences.forEach((kv, row) => {
      const held = this.held[row];
      const same = held?.kv === kv && held.stamp === kv.stamp;
      kv.copyTo(this.layers, row, columns, same ? held.length : 0, kv.length);
      this.held[row] = { kv, stamp: kv.stamp, length: kv.length };
    });
    return columns;
  }

  /** Views of the first `rows` rows of a layer, shaped for the graph. */
  view(layer: number, rows: number) {
    const { kvHeads, headDim } = this.shape;
    const size = rows * kvHeads * headDim * this.columnCount;
    const { keys, values } = must(this.layers[layer], 'layer');
    return {
      keys: { dims: [rows, kvHeads, headDim, this.columnCount], data: keys.subarray(0, size) },
      values: { dims: [rows, kvHeads, this.columnCount, headDim], data: values.subarray(0, size) },
    };
  }

  /** Lets go of sequences, so that closed ones can be collected. */
  forget(): void {
    this.held = [];
  }
}

function allocate({ layers, kvHeads, headDim }: KvShape, rows: number, columns: number): LayerKv[] {
  const size = rows * kvHeads * headDim * columns;
  return Array.from({ length: layers }, () => ({
    keys: new Float32Array(size),
    values: new Float32Array(size),
  }));
}

/** Copies `count` columns of one key head: d rows of `columns` each. */
function copyKeys(
  from: Float32Array,
  fromHead: number,
  fromColumns: number,
  fromStart: number,
  to: Float32Array,
  toHead: number,
  toColumns: number,
  toStart: number,
  count: number,
  headDim: number,
): void {
  for (let i = 0; i < headDim; i++) {
    const source = (fromHead * headDim + i) * fromColumns + fromStart;
    const target = (toHead * headDim + i) * toColumns + toStart;
    if (count > SMALL_COPY) to.set(from.subarray(source, source + count), target);
    else for (let j = 0; j < count; j++) to[target + j] = from[source + j] as number;
  }
}
