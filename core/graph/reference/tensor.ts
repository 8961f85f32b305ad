/**
 * Tensors of the slow twin: float64 numbers with a shape, and the few walks over indices that its
 * ops share. Integers and truth values are numbers as well (0 and 1). Knows nothing of graphs' ops.
 */
import { must } from '../../assert.ts';
import type { Graph } from '../graph.ts';
import type { OpName, OpParams } from '../op-table.ts';
import { broadcast } from '../tensor-type.ts';

export interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** Runs a nested graph on inputs in its order, returns its outputs in order. */
export type RunNested = (graph: Graph, inputs: readonly Tensor[]) => Tensor[];

export type ReferenceOp<K extends OpName> = (
  inputs: readonly Tensor[],
  params: OpParams[K],
  run: RunNested,
) => Tensor[];

/** Some ops with their evaluation: what each file of this folder exports. */
export type ReferenceGroup<N extends OpName> = { readonly [K in N]: ReferenceOp<K> };

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** A tensor whose element at flat index i is `at(i)`. */
export function generate(shape: readonly number[], at: (i: number) => number): Tensor {
  return { shape, data: Float64Array.from({ length: sizeOf(shape) }, (_, i) => at(i)) };
}

export function scalar(value: number): Tensor {
  return { shape: [], data: Float64Array.of(value) };
}

/** Element `i`; the index is known to be valid. */
export function at(x: Tensor, i: number): number {
  return must(x.data[i], `element ${i} of [${x.shape.join()}]`);
}

/** The indices of flat index `flat`, one an axis. */
export function indicesOf(shape: readonly number[], flat: number): number[] {
  const out = new Array<number>(shape.length);
  let rest = flat;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] as number;
    out[axis] = rest % size;
    rest = Math.floor(rest / size);
  }
  return out;
}

export function flatIndex(shape: readonly number[], indices: readonly number[]): number {
  return shape.reduce((flat, size, axis) => flat * size + (indices[axis] as number), 0);
}

/** Repeats `x` along the axes that it lacks or has with size 1. */
export function expand(x: Tensor, shape: readonly number[]): Tensor {
  const extra = shape.length - x.shape.length;
  return generate(shape, (i) => {
    const indices = indicesOf(shape, i).slice(extra);
    return at(
      x,
      flatIndex(
        x.shape,
        indices.map((index, axis) => (x.shape[axis] === 1 ? 0 : index)),
      ),
    );
  });
}

/** All tensors expanded to their common shape. */
export function expandAll(...tensors: Tensor[]): Tensor[] {
  const shape = tensors.reduce<readonly number[]>(
    (common, x) =>
      must(broadcast(common, x.shape), 'shapes that broadcast') as unknown as readonly number[],
    [],
  );
  return tensors.map((x) => expand(x, shape));
}

export function positive(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

/** Calls `visit` for each line along an axis: where it starts, the step, and how long it is. */
export function forEachLine(
  shape: readonly number[],
  axis: number,
  visit: (start: number, step: number, count: number) => void,
): void {
  const along = positive(axis, shape.length);
  const count = shape[along] as number;
  const step = sizeOf(shape.slice(along + 1));
  const outer = sizeOf(shape.slice(0, along));
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < step; i++) visit(o * count * step + i, step, count);
  }
}

/** Replaces each line along an axis by a line of `size` numbers (default: as many as before). */
export function mapLines(
  x: Tensor,
  axis: number,
  map: (line: Float64Array) => ArrayLike<number>,
  size?: number,
): Tensor {
  const along = positive(axis, x.shape.length);
  const shape = x.shape.map((dim, i) => (i === along ? (size ?? dim) : dim));
  const starts: number[] = [];
  forEachLine(shape, along, (start) => starts.push(start));
  const data = new Float64Array(sizeOf(shape));
  let line = 0;
  forEachLine(x.shape, along, (start, step, count) => {
    const values = Float64Array.from({ length: count }, (_, i) => at(x, start + i * step));
    const mapped = map(values);
    const to = starts[line++] as number;
    for (let i = 0; i < mapped.length; i++) data[to + i * step] = mapped[i] as number;
  });
  return { shape, data };
}
