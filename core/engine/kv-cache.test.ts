/**
 * The KV cache against plain arrays of columns: random appends, truncations, copies and batch loads
 * with rows that come, go and change places. The seed is in the name of the test.
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { BatchKv, capacityFor, SequenceKv, type KvShape } from './kv-cache.ts';

/** One token: for each layer and head its key and its value (d numbers each), in one list. */
type Column = number[];

interface Twin {
  kv: SequenceKv;
  columns: Column[];
}

interface Layers {
  keys: Float32Array;
  values: Float32Array;
}

/** Random outputs of a run, keys and values (B, K, n, d) a layer, and the same as columns. */
function randomRun(shape: KvShape, prng: Prng, rows: number, count: number) {
  const { layers, kvHeads, headDim } = shape;
  const size = rows * kvHeads * headDim * count;
  const outputs: Layers[] = Array.from({ length: layers }, () => ({
    keys: Float32Array.from({ length: size }, () => prng.gaussian()),
    values: Float32Array.from({ length: size }, () => prng.gaussian()),
  }));
  return {
    outputs,
    columns: (row: number) =>
      Array.from({ length: count }, (_, j) => columnAt(shape, outputs, row, count, j)),
  };
}

/** Column j of a row, from the layout that the graphs document. */
function columnAt(
  { kvHeads, headDim }: KvShape,
  layers: readonly Layers[],
  row: number,
  count: number,
  j: number,
): Column {
  const column: Column = [];
  for (const { keys, values } of layers) {
    for (let head = row * kvHeads; head < (row + 1) * kvHeads; head++) {
      for (let i = 0; i < headDim; i++) {
        column.push(
          keys[(head * count + j) * headDim + i]!,
          values[(head * count + j) * headDim + i]!,
        );
      }
    }
  }
  return column;
}

function expectLoaded(
  shape: KvShape,
  batch: BatchKv,
  rows: readonly Twin[],
  columns: number,
): void {
  const views = Array.from({ length: shape.layers }, (_, layer) => batch.view(layer, rows.length));
  for (const { keys, values } of views) {
    expect(keys.dims).toEqual([rows.length, shape.kvHeads, columns, shape.headDim]);
    expect(values.dims).toEqual(keys.dims);
    expect(keys.data.length).toBe(keys.dims.reduce((product, dim) => product * dim, 1));
    expect(values.data.length).toBe(keys.data.length);
  }
  const layers = views.map(({ keys, values }) => ({ keys: keys.data, values: values.data }));
  rows.forEach(({ columns: held }, row) => {
    // One comparison a row: a call of expect a column would take most of the test's time.
    const wrong = held.findIndex((column, j) => {
      const found = columnAt(shape, layers, row, columns, j);
      return found.length !== column.length || found.some((value, i) => value !== column[i]);
    });
    expect(wrong, `column of row ${row} that differs`).toBe(-1);
  });
}

class Walk {
  readonly twins: Twin[] = [];
  readonly batches: BatchKv[];
  private readonly prng: Prng;
  private readonly shape: KvShape;
  private rows: Twin[] = [];

  constructor(shape: KvShape, seed: number) {
    this.shape = shape;
    this.prng = new Prng(seed);
    this.batches = [new BatchKv(shape), new BatchKv(shape)];
  }

  step(): void {
    const { prng } = this;
    const kind = prng.below(12);
    if (this.twins.length === 0 || (kind === 0 && this.twins.length < 8)) {
      this.twins.push({ kv: new SequenceKv(this.shape), columns: [] });
    } else if (kind < 6) this.append();
    else if (kind === 6) this.truncate();
    else if (kind === 7) this.copy();
    else this.load();
  }

  /** Rows of one run: each sequence takes some of the columns, as decoding does. */
  private append(): void {
    const { prng, shape } = this;
    const rows = this.some();
    const count = prng.pick([1, 3, 16, 40, 70]);
    const run = randomRun(shape, prng, rows.length, count);
    rows.forEach(({ kv, columns }, row) => {
      const taken = prng.below(count + 1);
      kv.append(run.outputs, row, count, taken);
      columns.push(...run.columns(row).slice(0, taken));
      expect(kv.length).toBe(columns.length);
    });
  }

  private truncate(): void {
    const twin = this.prng.pick(this.twins);
    const length = this.prng.below(twin.columns.length + 10);
    twin.kv.truncate(length);
    twin.columns.length = Math.min(length, twin.columns.length);
    expect(twin.kv.length).toBe(twin.columns.length);
  }

  /** The copy takes the place of a random sequence when there are many. */
  private copy(): void {
    const { prng, twins } = this;
    const from = prng.pick(twins);
    const length = prng.below(from.columns.length + 1);
    const made = { kv: from.kv.copy(length), columns: from.columns.slice(0, length) };
    expect(made.kv.length).toBe(length);
    if (twins.length < 8) twins.push(made);
    else twins[prng.below(twins.length)] = made;
  }

  private load(): void {
    const { prng } = this;
    // Often the same rows again, so that only new columns are copied.
    const usable = this.rows.length > 0 && this.rows.every((row) => this.twins.includes(row));
    if (!usable || prng.below(2) === 0) this.rows = this.some();
    const batch = prng.pick(this.batches);
    if (prng.below(2) === 0) {
      const order = batch.arrange(this.rows.map(({ kv }) => kv));
      expect([...order].sort((a, b) => a - b)).toEqual([...this.rows.keys()]);
      this.rows = order.map((i) => this.rows[i]!);
    }
    const columns = batch.load(this.rows.map(({ kv }) => kv));
    const longest = Math.max(1, ...this.rows.map((row) => row.columns.length));
    expect(columns % 64).toBe(0);
    expect(columns).toBeGreaterThanOrEqual(longest);
    expect(columns - longest).toBeLessThan(3 * 64);
    expectLoaded(this.shape, batch, this.rows, columns);
  }

  private some(): Twin[] {
    return this.prng.shuffle(this.twins).slice(0, 1 + this.prng.below(this.twins.length));
  }
}

describe('the KV cache', () => {
  it.each([
    [1, { layers: 1, kvHeads: 1, headDim: 2 }],
    [2, { layers: 2, kvHeads: 3, headDim: 4 }],
    [3, { layers: 2, kvHeads: 2, headDim: 2 }],
    [4, { layers: 1, kvHeads: 2, headDim: 6 }],
  ])('is a list of columns (seed %i)', (seed, shape) => {
    const walk = new Walk(shape, seed);
    for (let i = 0; i < 250; i++) walk.step();
    expect(walk.twins.length).toBe(8);
    // The walk must have crossed a border of capacity.
    expect(Math.max(...walk.twins.map(({ columns }) => columns.length))).toBeGreaterThan(128);
    walk.twins.forEach((twin) => {
      const batch = new BatchKv(shape);
      expectLoaded(shape, batch, [twin], batch.load([twin.kv]));
    });
  });

  it('grows in powers of two from 64 columns', () => {
    expect([0, 1, 64, 65, 128, 129, 1000].map(capacityFor)).toEqual([
      64, 64, 64, 128, 128, 256, 1024,
    ]);
  });

  it('leaves rows in their places when others leave or join', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const batch = new BatchKv(shape);
    const made = new Map([...'abcde'].map((name) => [name, new SequenceKv(shape)]));
    const arranged = (names: string) => {
      const sequences = [...names].map((name) => made.get(name)!);
      const order = batch.arrange(sequences);
      batch.load(order.map((i) => sequences[i]!));
      return order.map((i) => names[i]).join('');
    };
    expect(arranged('abcd')).toBe('abcd');
    expect(arranged('acd')).toBe('adc'); // d moves into the gap, c stays.
    expect(arranged('eacd')).toBe('adce');
    expect(arranged('e')).toBe('e');
    made.get('a')!.truncate(0);
    expect(arranged('ca')).toBe('ca');
  });

  it('notices columns that were dropped and replaced between two loads', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const prng = new Prng(9);
    const batch = new BatchKv(shape);
    const twin: Twin = { kv: new SequenceKv(shape), columns: [] };
    const grow = (count: number) => {
      const run = randomRun(shape, prng, 1, count);
      twin.kv.append(run.outputs, 0, count, count);
      twin.columns.push(...run.columns(0));
    };
    grow(10);
    batch.load([twin.kv]);
    twin.kv.truncate(4);
    twin.columns.length = 4;
    grow(6);
    expectLoaded(shape, batch, [twin], batch.load([twin.kv]));
  });

  it('keeps a copy apart from its source', () => {
    const shape = { layers: 1, kvHeads: 2, headDim: 2 };
    const prng = new Prng(10);
    const [run, later] = [randomRun(shape, prng, 1, 5), randomRun(shape, prng, 1, 5)];
    const source = new SequenceKv(shape);
    source.append(run.outputs, 0, 5, 5);
    const copy = source.copy(3);
    source.truncate(0);
    source.append(later.outputs, 0, 5, 5);
    const batch = new BatchKv(shape);
    const twin = { kv: copy, columns: run.columns(0).slice(0, 3) };
    expectLoaded(shape, batch, [twin], batch.load([copy]));
  });
});
