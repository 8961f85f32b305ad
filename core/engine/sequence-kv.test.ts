/**
 * The KV cache against plain arrays of columns: random appends, truncations, forks and batch loads
 * with rows that come, go and change places. The seed is in the name of the test.
 */
import { describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { BatchKv } from './batch-kv.ts';
import { BLOCK_TOKENS, bytesPerBlock, KvMemory, type KvShape } from './kv-memory.ts';
import { SequenceKv } from './sequence-kv.ts';

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
  readonly memory = new KvMemory(2 ** 30);
  private readonly prng: Prng;
  private readonly shape: KvShape;
  private rows: Twin[] = [];

  constructor(shape: KvShape, seed: number) {
    this.shape = shape;
    this.prng = new Prng(seed);
    this.batches = [new BatchKv(this.memory, shape), new BatchKv(this.memory, shape)];
  }

  step(): void {
    const { prng } = this;
    const kind = prng.below(12);
    if (this.twins.length === 0 || (kind === 0 && this.twins.length < 8)) {
      this.twins.push({ kv: new SequenceKv(this.memory, this.shape), columns: [] });
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
    const made = { kv: from.kv.fork(length), columns: from.columns.slice(0, length) };
    expect(made.kv.length).toBe(length);
    if (twins.length < 8) twins.push(made);
    else {
      const place = prng.below(twins.length);
      twins[place]!.kv.truncate(0);
      twins[place] = made;
    }
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
      const batch = new BatchKv(walk.memory, shape);
      expectLoaded(shape, batch, [twin], batch.load([twin.kv]));
    });
  });

  it('gives every byte back', () => {
    const shape = { layers: 2, kvHeads: 1, headDim: 2 };
    const walk = new Walk(shape, 5);
    for (let i = 0; i < 250; i++) walk.step();
    for (const batch of walk.batches) batch.dispose();
    const blocks = new Set(walk.twins.flatMap(({ kv }) => kv.blocks));
    expect(walk.memory.bytesUsed).toBe(blocks.size * bytesPerBlock(shape));
    for (const { kv } of walk.twins) kv.truncate(0);
    expect(walk.memory.bytesUsed).toBe(0);
  });

  it('tells beforehand what growing takes, forks included', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const prng = new Prng(6);
    const memory = new KvMemory(2 ** 20);
    const sequences = [new SequenceKv(memory, shape)];
    for (let step = 0; step < 400; step++) {
      const kv = prng.pick(sequences);
      const kind = prng.below(4);
      if (kind === 0) kv.truncate(prng.below(kv.length + 1));
      else if (kind === 1 && sequences.length < 6) {
        sequences.push(kv.fork(prng.below(kv.length + 1)));
      } else {
        const count = prng.below(100);
        const [before, needed] = [memory.bytesUsed, kv.bytesToGrow(count)];
        kv.append(randomRun(shape, prng, 1, count).outputs, 0, count, count);
        expect(memory.bytesUsed - before).toBe(needed);
      }
    }
  });

  it('shares whole blocks with forks and copies a partial one only when it is written', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const memory = new KvMemory(2 ** 20);
    const kv = new SequenceKv(memory, shape);
    const run = randomRun(shape, new Prng(7), 1, 150);
    kv.append(run.outputs, 0, 150, 150);
    expect(memory.bytesUsed).toBe(3 * bytesPerBlock(shape));
    const forks = Array.from({ length: 16 }, () => kv.fork(140));
    expect(memory.bytesUsed).toBe(3 * bytesPerBlock(shape));
    forks[0]!.append(run.outputs, 0, 150, 1);
    expect(memory.bytesUsed).toBe(4 * bytesPerBlock(shape));
    expect(forks[0]!.blocks.slice(0, 2)).toEqual(kv.blocks.slice(0, 2));
    expect(BLOCK_TOKENS).toBe(64);
  });

  it('uses the buffers of freed blocks again and counts them until then', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const memory = new KvMemory(2 ** 20);
    const batch = new BatchKv(memory, shape);
    const first = memory.allocate(shape);
    memory.release(shape, first);
    expect(memory.bytesUsed).toBe(bytesPerBlock(shape));
    expect(memory.blockRoom).toBe(2 ** 19);
    const second = memory.allocate(shape);
    expect(second.layers).toBe(first.layers);
    expect(memory.bytesUsed).toBe(bytesPerBlock(shape));
    memory.release(shape, second);
    batch.dispose();
    expect(memory.bytesUsed).toBe(0);
  });

  it('keeps freed buffers of a shape while a version has it, and no longer', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const memory = new KvMemory(2 ** 20);
    const [before, after] = [new BatchKv(memory, shape), new BatchKv(memory, { ...shape })];
    const [freed, late] = [memory.allocate(shape), memory.allocate(shape)];
    memory.release(shape, freed);
    before.dispose();
    before.dispose();
    const again = memory.allocate(shape);
    expect(again.layers).toBe(freed.layers);
    memory.release(shape, again);
    after.dispose();
    expect(memory.bytesUsed).toBe(bytesPerBlock(shape));
    // What a sequence of a stopped engine held waits for nobody.
    memory.release(shape, late);
    expect(memory.bytesUsed).toBe(0);
  });

  it('drops freed buffers of other shapes when the budget has no room for a block', () => {
    const [shape, other] = [
      { layers: 1, kvHeads: 1, headDim: 2 },
      { layers: 1, kvHeads: 1, headDim: 4 },
    ];
    // Half of it is for blocks: four of one shape or two of the other.
    const memory = new KvMemory(8 * bytesPerBlock(shape));
    const batches = [new BatchKv(memory, shape), new BatchKv(memory, other)];
    const turn = (of: typeof shape, count: number): void => {
      const blocks = Array.from({ length: count }, () => memory.allocate(of));
      expect(memory.bytesUsed).toBeLessThanOrEqual(4 * bytesPerBlock(shape));
      for (const block of blocks) memory.release(of, block);
    };
    turn(shape, 3);
    expect(memory.bytesUsed).toBe(3 * bytesPerBlock(shape));
    // One of the three would fit beside it.
    turn(other, 1);
    expect(memory.bytesUsed).toBe(4 * bytesPerBlock(shape));
    turn(other, 2);
    expect(memory.bytesUsed).toBe(2 * bytesPerBlock(other));
    turn(shape, 4);
    expect(memory.bytesUsed).toBe(4 * bytesPerBlock(shape));
    for (const batch of batches) batch.dispose();
    expect(memory.bytesUsed).toBe(0);
  });

  it('leaves rows in their places when others leave or join', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const memory = new KvMemory(2 ** 20);
    const batch = new BatchKv(memory, shape);
    const made = new Map([...'abcde'].map((name) => [name, new SequenceKv(memory, shape)]));
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
  });

  it('notices columns that were dropped and replaced between two loads', () => {
    const shape = { layers: 1, kvHeads: 1, headDim: 2 };
    const prng = new Prng(9);
    const memory = new KvMemory(2 ** 20);
    const batch = new BatchKv(memory, shape);
    const twin: Twin = { kv: new SequenceKv(memory, shape), columns: [] };
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
    const memory = new KvMemory(2 ** 20);
    const source = new SequenceKv(memory, shape);
    source.append(run.outputs, 0, 5, 5);
    const copy = source.fork(3);
    source.truncate(0);
    source.append(later.outputs, 0, 5, 5);
    const batch = new BatchKv(memory, shape);
    const twin = { kv: copy, columns: run.columns(0).slice(0, 3) };
    expectLoaded(shape, batch, [twin], batch.load([copy]));
  });
});
