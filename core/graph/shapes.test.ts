/**
 * Graphs that are wrong are refused while they are built, by the name of the op. Each case is a
 * call on inputs whose element types are right and whose shapes or parameters are not.
 */
import { describe, expect, it } from 'vitest';
import * as ops from './functions.ts';
import { Graph, type Value } from './graph.ts';
import type { OpName } from './op-table.ts';
import type { DType, Dim } from './tensor-type.ts';

const graph = new Graph();
const value = (dtype: DType, ...shape: Dim[]) => graph.input(graph.freshName('in'), dtype, shape);
const f = (...shape: Dim[]) => value('float32', ...shape);
const i = (...shape: Dim[]) => value('int64', ...shape);
const b = (...shape: Dim[]) => value('bool', ...shape);

type Call = () => unknown;
const broadcasting = (op: (x: Value, y: Value) => Value, make: typeof f): Call[] => [
  () => op(make(2, 3), make(3, 2)),
  () => op(make('B'), make('T')),
  () => op(make('B', 4), make('B')),
];
const mixed = (op: (x: Value, y: Value) => Value): Call[] => [
  ...broadcasting(op, f),
  () => op(f(2), i(2)),
];
const axis = (op: (x: Value, axis: number) => unknown): Call[] => [
  () => op(f(2, 3), 2),
  () => op(f(2, 3), -3),
  () => op(f(), 0),
  () => op(f(2, 3), 0.5),
];

/** Ops that accept every shape of the right element types: nothing to refuse beyond ops.test.ts. */
const ANY_SHAPE: readonly OpName[] = [
  'not',
  'neg',
  'exp',
  'log',
  'sigmoid',
  'silu',
  'stopGradient',
  'cast',
];

/** A loop over one float; right are body inputs and outputs int64, bool, float and bool, float. */
function loopOf(inputs: DType[], outputs: DType[], trips = i(), condition = b()): Call {
  return () => {
    const body = new Graph(graph);
    for (const dtype of inputs) body.input(body.freshName('in'), dtype, []);
    for (const dtype of outputs) body.output(body.freshName('out'), value(dtype));
    return ops.loop(graph, trips, condition, [f()], body);
  };
}

function chooseOf(whenTrue: Value[], whenFalse: Value[]): Call {
  return () => {
    const [first, second] = [whenTrue, whenFalse].map((values) => {
      const branch = new Graph(graph);
      values.forEach((x, k) => branch.output(`out${k}`, x));
      return branch;
    }) as [Graph, Graph];
    return ops.choose(graph, b(), first, second);
  };
}

const REFUSED: Readonly<Partial<Record<OpName, readonly Call[]>>> = {
  add: mixed(ops.add),
  sub: mixed(ops.sub),
  mul: mixed(ops.mul),
  div: broadcasting(ops.div, f),
  min: mixed(ops.min),
  max: mixed(ops.max),
  less: mixed(ops.less),
  lessOrEqual: mixed(ops.lessOrEqual),
  equal: mixed(ops.equal),
  and: broadcasting(ops.and, b),
  or: broadcasting(ops.or, b),
  where: [
    () => ops.where(b(2), f(3), f(3)),
    () => ops.where(b(3), f(2), f(3)),
    () => ops.where(b(3), f(3), i(3)),
  ],
  clip: [() => ops.clip(f(2), f(2), f()), () => ops.clip(f(2), f(), f(1))],
  rotary: [
    () => ops.rotary(f('B', 'T', 6), i('B', 'T'), f('P', 2), f('P', 2)),
    () => ops.rotary(f('B', 'T', 8), i('B', 'S'), f('P', 2), f('P', 2)),
    () => ops.rotary(f('B', 'T', 8), i('B', 'T'), f('P', 2), f('P', 4)),
    () => ops.rotary(f('B', 'T', 2, 4), i('B', 'T', 2), f('P', 2), f('P', 2)),
    () => ops.rotary(f('B', 'T', 'S'), i('B', 'T'), f('P', 2), f('P', 2)),
  ],
  matmul: [
    () => ops.matmul(f(2, 3), f(2, 3)),
    () => ops.matmul(f(2, 3), value('float16', 3, 2)),
    () => ops.matmul(f(3), f(3, 2)),
    () => ops.matmul(f('B', 2, 'T'), f('B', 'S', 2)),
    () => ops.matmul(f('B', 2, 3), f('T', 3, 2)),
  ],
  matmulTransposed: [
    () => ops.matmulTransposed(value('float16', 2, 3), f(4, 3)),
    () => ops.matmulTransposed(f(2, 3), f(3, 2)),
    () => ops.matmulTransposed(f(2, 3), f(1, 4, 3)),
    () => ops.matmulTransposed(f(3), f(3)),
    () => ops.matmulTransposed(f('B', 2, 3), f('T', 2, 3)),
  ],
  linear: [
    () => ops.linear(f(2, 3), value('float16', 4, 3)),
    () => ops.linear(f(2, 3), f(3, 2)),
    () => ops.linear(f(2, 3), f(1, 2, 3)),
    () => ops.linear(f(3), f(2, 3)),
  ],
  leftTransposed: [
    () => ops.leftTransposed(f(2, 3), f(3, 2)),
    () => ops.leftTransposed(f(1, 2, 3), f(2, 3)),
  ],
  softmax: axis(ops.softmax),
  logSoftmax: axis(ops.logSoftmax),
  jointSoftmax: [
    () => ops.jointSoftmax(f(2, 3), f(3, 3)),
    () => ops.jointSoftmax(f(2, 3), f(1, 2, 3)),
    () => ops.jointSoftmax(f(), f()),
  ],
  rmsNorm: [
    () => ops.rmsNorm(f(2, 3), f(2), 1e-6),
    () => ops.rmsNorm(f(2, 3), f(1, 3), 1e-6),
    () => ops.rmsNorm(f(), f(3), 1e-6),
  ],
  tokenLogprob: [
    () => ops.tokenLogprob(f(2, 3), i(3)),
    () => ops.tokenLogprob(f(2, 3), i(2, 1)),
    () => ops.tokenLogprob(f(), i()),
  ],
  reduceSum: axis((x, at) => ops.reduceSum(x, [at])),
  reduceMean: axis((x, at) => ops.reduceMean(x, [at])),
  reduceMax: axis((x, at) => ops.reduceMax(x, [at])),
  reduceMin: axis((x, at) => ops.reduceMin(x, [at])),
  cumSum: axis(ops.cumSum),
  argMax: axis(ops.argMax),
  transpose: [
    () => ops.transpose(f(2, 3), [0]),
    () => ops.transpose(f(2, 3), [0, 0]),
    () => ops.transpose(f(2, 3), [0, 2]),
  ],
  reshape: [
    () => ops.reshape(f(2, 3), [4, 2]),
    () => ops.reshape(f(2, 3), [-1, 3]),
    () => ops.reshape(f(2), [0, 0]),
  ],
  reshapeLike: [
    () => ops.reshapeLike(f(2, 3), f(5)),
    () => ops.reshapeBefore(f(2, 3), f(3, 3)),
    () => ops.reshapeBefore(f(), f(3)),
  ],
  unsqueeze: axis((x, at) => ops.unsqueeze(x, [at < 0 ? at - 1 : at + 1])),
  concat: [
    () => ops.concat([f(2, 3), f(3, 3)], 1),
    () => ops.concat([f(2, 3), i(2, 3)], 1),
    () => ops.concat([f(2, 3), f(2, 3, 1)], 1),
    () => ops.concat([f(2, 3)], 2),
  ],
  head: [() => ops.head(f(), f(2)), () => ops.head(f(2), f())],
  tail: [() => ops.tail(f(), f(2), 1), () => ops.tail(f(2), f(), 1)],
  gather: [() => ops.gather(f(), i(2))],
  scatterAddRows: [
    () => ops.scatterAddRows(i(4), f(4, 2), f(3, 2)),
    () => ops.scatterAddRows(i(4, 2), f(4, 2), f(3, 2)),
    () => ops.scatterAddRows(i(4, 1), f(3, 2), f(3, 2)),
    () => ops.scatterAddRows(i(4, 1), f(4, 2), f(3)),
  ],
  moveRows: [
    () => ops.moveRows(f(4), i(3), i(4)),
    () => ops.moveRows(f(4, 2), i(), i(4)),
    () => ops.moveRows(f(4, 2), i(3), i(3)),
  ],
  gatherElements: [
    () => ops.gatherElements(f(2, 3), i(3, 1)),
    () => ops.gatherElements(f(2, 3), i(2)),
    () => ops.gatherElements(f(), i()),
  ],
  scatterAddElements: [
    () => ops.scatterAddElements(f(2, 3), i(2, 1), f(2, 2)),
    () => ops.scatterAddElements(f(2, 3), i(3, 1), f(3, 1)),
  ],
  topK: [() => ops.topK(f(2, 3), 4), () => ops.topK(f(), 1)],
  dimension: axis(ops.dimension),
  zerosFor: [() => ops.zerosFor(f(), [2])],
  loop: [
    loopOf(['int64', 'bool'], ['bool', 'float32']),
    loopOf(['int64', 'bool', 'float32', 'float32'], ['bool', 'float32']),
    loopOf(['int64', 'bool', 'int64'], ['bool', 'float32']),
    loopOf(['int64', 'bool', 'float32'], ['bool']),
    loopOf(['int64', 'bool', 'float32'], ['bool', 'int64']),
    loopOf(['int64', 'bool', 'float32'], ['float32', 'float32']),
    loopOf(['int64', 'bool', 'float32'], ['bool', 'float32'], f()),
    loopOf(['int64', 'bool', 'float32'], ['bool', 'float32'], i(), i()),
  ],
  choose: [chooseOf([f(2)], [f(2), f(2)]), chooseOf([f(2)], [f(3)]), chooseOf([f(2)], [i(2)])],
};

describe('a wrong shape is refused by the name of the op', () => {
  it.each(Object.entries(REFUSED))('%s', (name, calls) => {
    for (const call of calls) {
      const before = graph.nodes.length;
      expect(call, String(call)).toThrowError(new RegExp(`^internal: ${name}: `));
      expect(graph.nodes.length).toBe(before);
    }
  });

  it('has a case for every op whose shapes can be wrong', async () => {
    const { OPS } = await import('./op-table.ts');
    const covered = [...Object.keys(REFUSED), ...ANY_SHAPE].sort();
    expect(covered).toEqual(Object.keys(OPS).sort());
  });
});
