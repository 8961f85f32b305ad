/**
 * The table of ops. Every op is one record: its shape rule, its gradient (or the reason why it has
 * none) and its lowering to ONNX nodes. The record is total over `OpParams`, so a forgotten rule
 * does not compile; core/graph/reference.ts is total over the same names and is the slow twin.
 */
import { assert } from '../assert.ts';
import type * as Functions from './functions.ts';
import type { Graph, GraphNode, Value } from './graph.ts';
import type { OnnxNode } from './onnx.ts';
import { controlOps } from './ops/control.ts';
import { elementwiseOps } from './ops/elementwise.ts';
import { indexOps } from './ops/index-ops.ts';
import { layoutOps } from './ops/layout.ts';
import { linearOps } from './ops/linear.ts';
import { normalizeOps } from './ops/normalize.ts';
import { reduceOps } from './ops/reduce.ts';
import { rotaryOps } from './ops/rotary.ts';
import { checkInputs, type CastType, type InputKind, type TensorType } from './tensor-type.ts';

type None = Record<never, never>;
interface Axis {
  axis: number;
}
interface Reduce {
  axes: readonly number[];
  keepDims: boolean;
}

/** Parameters of each op; the keys are the op names. */
export interface OpParams {
  // Elementwise, with NumPy broadcasting.
  add: None;
  sub: None;
  mul: None;
  div: None;
  min: None;
  max: None;
  less: None;
  lessOrEqual: None;
  equal: None;
  and: None;
  or: None;
  not: None;
  neg: None;
  exp: None;
  log: None;
  sigmoid: None;
  /** silu(x) = x sigmoid(x). */
  silu: None;
  /** Its input, as a constant to the gradient. */
  stopGradient: None;
  /** where(condition, a, b). */
  where: None;
  /** clip(x, low, high) with scalar bounds. */
  clip: None;
  cast: { to: CastType };
  // Products.
  matmul: None;
  /** matmulTransposed(a, b) = a b^T over the last two axes: scores of queries and keys. */
  matmulTransposed: None;
  /** linear(x, w) = x w^T with w (out, in), as Hugging Face stores it. */
  linear: None;
  /** leftTransposed(a, b) = a^T b for matrices; the weight gradient of `linear`. */
  leftTransposed: None;
  /**
   * rotary(x, places, cosines, sines): the heads of x (B, T, n*d) turned by the angles in the row
   * of the tables (P, d/2) that places (B, T) names; the halves of a head are its pairs.
   */
  rotary: None;
  // Normalisers.
  softmax: Axis;
  logSoftmax: Axis;
  /** jointSoftmax(a, b): softmax over the last axes of both together, in two parts again. */
  jointSoftmax: None;
  /** rmsNorm(x, gain) = x / rms(x) * gain over the last axis. */
  rmsNorm: { epsilon: number };
  /** tokenLogprob(logits, ids) = log softmax(logits)[ids] over the last axis. */
  tokenLogprob: None;
  // Reductions.
  reduceSum: Reduce;
  reduceMean: Reduce;
  reduceMax: Reduce;
  reduceMin: Reduce;
  cumSum: Axis;
  argMax: Axis;
  // Layout.
  transpose: { permutation: readonly number[] };
  /** Sizes of the result; 0 copies the input's size at that place, one may be inferred. */
  reshape: { sizes: readonly number[]; inferred: string | null };
  /** reshapeLike(x, like): x in the shape of `like`; with `ownLast` but for the last size. */
  reshapeLike: { ownLast: boolean };
  unsqueeze: { axes: readonly number[] };
  concat: Axis;
  /** head(x, like) / tail(x, like): x split on the last axis after size(like, -1) elements. */
  head: None;
  tail: { size: number | string };
  // Indexing.
  /** gather(table, ids): rows of the first axis. */
  gather: None;
  /** scatterAddRows(ids, rows, table): the sum of rows at each place of a table of its shape. */
  scatterAddRows: None;
  /** moveRows(x, index, inverse): a gather that reads no row twice; its gradient is one too. */
  moveRows: None;
  /** gatherElements(x, index) on the last axis. */
  gatherElements: None;
  /** scatterAddElements(x, index, updates) on the last axis. */
  scatterAddElements: None;
  /** topK(x, k) on the last axis, sorted downwards: values and indices. */
  topK: { size: number | string };
  /** dimension(x): the size of one axis, an int64 scalar. */
  dimension: Axis;
  /** Zeros whose first dimension is that of the input. */
  zerosFor: { shape: readonly number[] };
  // Control flow.
  loop: { body: Graph; carried: number; scanned: number };
  choose: { whenTrue: Graph; whenFalse: Graph };
}

export type OpName = keyof OpParams;

/** The op functions, handed to gradient rules so that op files do not import them in a circle. */
export type Ops = typeof Functions;

export interface OpDefinition<K extends OpName> {
  /** Element types of the inputs, one an input; `each` for ops that take any number of them. */
  takes: readonly InputKind[] | { each: InputKind };
  /** Types of the outputs; throws when shapes do not fit. Count and element types are checked. */
  infer(inputs: readonly Value[], params: OpParams[K]): TensorType[];
  /**
   * Gradients of the inputs (null: not differentiable there) given those of the outputs (null: the
   * output was not used), or the reason why the op is never differentiated.
   */
  gradient:
    | ((ops: Ops, node: GraphNode<K>, grads: readonly (Value | null)[]) => (Value | null)[])
    | { none: string };
  lower(node: GraphNode<K>): OnnxNode[];
}

/** Some ops with their definitions: what each file of ops/ exports. */
export type OpGroup<N extends OpName> = { readonly [K in N]: OpDefinition<K> };

export const OPS: OpGroup<OpName> = {
  ...elementwiseOps,
  ...linearOps,
  ...normalizeOps,
  ...reduceOps,
  ...layoutOps,
  ...indexOps,
  ...controlOps,
  ...rotaryOps,
};

/** Adds a node to the deepest graph among its inputs. Throws on types that do not fit. */
export function apply<K extends OpName>(
  op: K,
  inputs: readonly Value[],
  params: OpParams[K],
  within?: Graph,
): Value[] {
  let graph = within ?? inputs[0]?.graph;
  for (const input of inputs) if (graph && input.graph.depth > graph.depth) graph = input.graph;
  assert(graph !== undefined, `${op}: an op needs an input`);
  checkInputs(op, OPS[op].takes, inputs);
  return graph.append(op, inputs, params, OPS[op].infer(inputs, params));
}

export function lowerNode<K extends OpName>(node: GraphNode<K>): OnnxNode[] {
  return OPS[node.op].lower(node);
}
