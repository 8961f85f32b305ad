/**
 * One function per op, so that models read like the formulas. Each adds a node to the graph of its
 * inputs and returns the result; types that do not fit throw when the graph is built.
 */
import type { Graph, Value } from './graph.ts';
import { apply } from './op-table.ts';
import { sameShape, type CastType } from './tensor-type.ts';

const one = (values: Value[]): Value => values[0] as Value;

export const add = (a: Value, b: Value) => one(apply('add', [a, b], {}));
export const sub = (a: Value, b: Value) => one(apply('sub', [a, b], {}));
export const mul = (a: Value, b: Value) => one(apply('mul', [a, b], {}));
export const div = (a: Value, b: Value) => one(apply('div', [a, b], {}));
export const min = (a: Value, b: Value) => one(apply('min', [a, b], {}));
export const max = (a: Value, b: Value) => one(apply('max', [a, b], {}));
export const less = (a: Value, b: Value) => one(apply('less', [a, b], {}));
export const lessOrEqual = (a: Value, b: Value) => one(apply('lessOrEqual', [a, b], {}));
export const equal = (a: Value, b: Value) => one(apply('equal', [a, b], {}));
export const and = (a: Value, b: Value) => one(apply('and', [a, b], {}));
export const or = (a: Value, b: Value) => one(apply('or', [a, b], {}));
export const not = (x: Value) => one(apply('not', [x], {}));
export const neg = (x: Value) => one(apply('neg', [x], {}));
export const exp = (x: Value) => one(apply('exp', [x], {}));
export const log = (x: Value) => one(apply('log', [x], {}));
export const sigmoid = (x: Value) => one(apply('sigmoid', [x], {}));
export const silu = (x: Value) => one(apply('silu', [x], {}));
/** x, through which no gradient flows. */
export const stopGradient = (x: Value) => one(apply('stopGradient', [x], {}));
export const where = (condition: Value, a: Value, b: Value) =>
  one(apply('where', [condition, a, b], {}));
export const clip = (x: Value, low: Value, high: Value) => one(apply('clip', [x, low, high], {}));
export const cast = (x: Value, to: CastType) => one(apply('cast', [x], { to }));

export const matmul = (a: Value, b: Value) => one(apply('matmul', [a, b], {}));
/** a (.., n, k) times b (.., m, k) transposed. */
export const matmulTransposed = (a: Value, b: Value) => one(apply('matmulTransposed', [a, b], {}));
/** x (.., in) times w (out, in) transposed. */
export const linear = (x: Value, w: Value) => one(apply('linear', [x, w], {}));
/** Heads of x (B, T, n*d) turned by rows `places` (B, T) of tables (P, d/2). */
export const rotary = (x: Value, places: Value, cosines: Value, sines: Value) =>
  one(apply('rotary', [x, places, cosines, sines], {}));
export const leftTransposed = (a: Value, b: Value) => one(apply('leftTransposed', [a, b], {}));

export const softmax = (x: Value, axis: number) => one(apply('softmax', [x], { axis }));
export const logSoftmax = (x: Value, axis: number) => one(apply('logSoftmax', [x], { axis }));
/** Softmax over the last axes of a and b together: its part over a, its part over b. */
export const jointSoftmax = (a: Value, b: Value) =>
  apply('jointSoftmax', [a, b], {}) as [Value, Value];
export const rmsNorm = (x: Value, gain: Value, epsilon: number) =>
  one(apply('rmsNorm', [x, gain], { epsilon }));
export const tokenLogprob = (logits: Value, ids: Value) =>
  one(apply('tokenLogprob', [logits, ids], {}));

export const reduceSum = (x: Value, axes: readonly number[], keepDims = false) =>
  one(apply('reduceSum', [x], { axes, keepDims }));
export const reduceMean = (x: Value, axes: readonly number[], keepDims = false) =>
  one(apply('reduceMean', [x], { axes, keepDims }));
export const reduceMax = (x: Value, axes: readonly number[], keepDims = false) =>
  one(apply('reduceMax', [x], { axes, keepDims }));
export const reduceMin = (x: Value, axes: readonly number[], keepDims = false) =>
  one(apply('reduceMin', [x], { axes, keepDims }));
export const cumSum = (x: Value, axis: number) => one(apply('cumSum', [x], { axis }));
/** Keeps the axis, with size 1. */
export const argMax = (x: Value, axis: number) => one(apply('argMax', [x], { axis }));

export const transpose = (x: Value, permutation: readonly number[]) =>
  one(apply('transpose', [x], { permutation }));
/** Sizes: 0 keeps the input's size at that place; one -1 is inferred and called `inferred`. */
export const reshape = (x: Value, sizes: readonly number[], inferred: string | null = null) =>
  one(apply('reshape', [x], { sizes, inferred }));
export const reshapeLike = (x: Value, like: Value) =>
  one(apply('reshapeLike', [x, like], { ownLast: false }));
/** The last size stays that of x, all before it are those of `like`. */
export const reshapeBefore = (x: Value, like: Value) =>
  one(apply('reshapeLike', [x, like], { ownLast: true }));
export const unsqueeze = (x: Value, axes: readonly number[]) =>
  one(apply('unsqueeze', [x], { axes }));
export const concat = (parts: readonly Value[], axis: number) =>
  one(apply('concat', parts, { axis }));
/** The first elements of the last axis, as many as `like` has on its last axis. */
export const head = (x: Value, like: Value) => one(apply('head', [x, like], {}));
/** What `head` leaves. `size` names what is left. */
export const tail = (x: Value, like: Value, size: number | string) =>
  one(apply('tail', [x, like], { size }));

export const gather = (table: Value, ids: Value) => one(apply('gather', [table, ids], {}));
export const scatterAddRows = (ids: Value, rows: Value, table: Value) =>
  one(apply('scatterAddRows', [ids, rows, table], {}));
/** Row index[i] of x at place i, zeros where index[i] < 0; see ops/index-ops.ts for `inverse`. */
export const moveRows = (x: Value, index: Value, inverse: Value) =>
  one(apply('moveRows', [x, index, inverse], {}));
export const gatherElements = (x: Value, index: Value) =>
  one(apply('gatherElements', [x, index], {}));
export const scatterAddElements = (x: Value, index: Value, updates: Value) =>
  one(apply('scatterAddElements', [x, index, updates], {}));
/** Values and indices of the k largest on the last axis, largest first; placed in `within`. */
export function topK(x: Value, k: number, within?: Graph) {
  const [values, indices] = apply('topK', [x, x.graph.constant([k], 'int64')], { size: k }, within);
  return { values: values as Value, indices: indices as Value };
}
export const dimension = (x: Value, axis: number) => one(apply('dimension', [x], { axis }));
/** Zeros of shape (size(like, 0), ...shape). */
export const zerosFor = (like: Value, shape: readonly number[]) =>
  one(apply('zerosFor', [like], { shape }));

/** A float constant in the graph of `near`. */
export const scalar = (near: Value, value: number) => near.graph.constant(value);

/** Swaps the last two axes. */
export function transposeLast(x: Value): Value {
  const axes = x.shape.map((_, i) => i);
  const rank = axes.length;
  return transpose(x, [...axes.slice(0, rank - 2), rank - 1, rank - 2]);
}

/** Ones in the shape of a float tensor, whatever its values (even NaN is only compared). */
export function onesLike(x: Value): Value {
  const never = less(x, x);
  return cast(not(never), 'float32');
}

/** Undoes broadcasting: sums `grad` over the axes that `like` lacks or has with size 1. */
export function sumTo(grad: Value, like: Value): Value {
  if (sameShape(grad.shape, like.shape)) return grad;
  const extra = grad.shape.length - like.shape.length;
  const axes = grad.shape
    .map((_, i) => i)
    .filter((i) => i < extra || (like.shape[i - extra] === 1 && grad.shape[i] !== 1));
  const summed = axes.length > 0 ? reduceSum(grad, axes, true) : grad;
  return sameShape(summed.shape, like.shape) ? summed : reshapeLike(summed, like);
}

/** Runs `body` up to `trips` times while its condition holds; see ops/control.ts for the order. */
export function loop(
  within: Graph,
  trips: Value,
  condition: Value,
  state: readonly Value[],
  body: Graph,
): Value[] {
  const scanned = body.outputs.length - 1 - state.length;
  const params = { body, carried: state.length, scanned };
  return apply('loop', [trips, condition, ...state], params, within);
}

/** The outputs of one of two graphs without inputs, by a bool scalar. */
export function choose(within: Graph, condition: Value, whenTrue: Graph, whenFalse: Graph) {
  return apply('choose', [condition], { whenTrue, whenFalse }, within);
}
