/**
 * Sample inputs of every op, for tests that loop over the op table. The record is total over the op
 * names, so an op without a sample does not compile. Shapes are random but seeded; symbols stand
 * for the sizes below, as in real graphs.
 */
import { Prng } from '../../prng.ts';
import * as ops from '../functions.ts';
import { Graph, type Value } from '../graph.ts';
import type { OpName } from '../op-table.ts';
import type { DType, Dim, Shape } from '../tensor-type.ts';

export const SIZES: Readonly<Record<string, number>> = { B: 3, T: 4, S: 5, n: 6 };

export interface SampleInput {
  dtype: DType;
  shape: Shape;
  draw: (prng: Prng) => number;
  /** A float input that no gradient flows to, a clip bound for instance. */
  fixed?: boolean;
}

export interface OpSample {
  inputs: readonly SampleInput[];
  /** Applies the op to values of the outermost graph; returns all its outputs. */
  build(values: readonly Value[], graph: Graph): Value[];
}

const float = (...shape: Dim[]): SampleInput => ({
  dtype: 'float32',
  shape,
  draw: (prng) => prng.gaussian(),
});
const positive = (...shape: Dim[]): SampleInput => ({
  ...float(...shape),
  draw: (prng) => 0.2 + 2 * prng.next(),
});
const constant = (value: number): SampleInput => ({ ...float(), draw: () => value, fixed: true });
const fixed = (...shape: Dim[]): SampleInput => ({ ...float(...shape), fixed: true });
const bool = (...shape: Dim[]): SampleInput => ({
  dtype: 'bool',
  shape,
  draw: (prng) => prng.below(2),
});
/** Integers in [0, bound). */
const int = (bound: number, ...shape: Dim[]): SampleInput => ({
  dtype: 'int64',
  shape,
  draw: (prng) => prng.below(bound),
});

/** These integers, again for every draw of the whole tensor. */
function listed(...values: number[]): SampleInput {
  let next = 0;
  return { ...int(1, values.length), draw: () => values[next++ % values.length] as number };
}

const prng = new Prng(20);

/** Pairs of shapes that broadcast: random ranks and sizes, axes of 1, symbols, a scalar. */
function pairs(): [Shape, Shape][] {
  const random = Array.from({ length: 4 }, (): [Shape, Shape] => {
    const full = Array.from({ length: 1 + prng.below(4) }, () => 1 + prng.below(4));
    const thin = () =>
      full.map((dim) => (prng.below(3) === 0 ? 1 : dim)).slice(prng.below(full.length + 1));
    return prng.below(2) === 0 ? [full, thin()] : [thin(), full];
  });
  return [
    [
      ['B', 2],
      ['B', 2],
    ],
    [
      ['B', 1, 'T'],
      [2, 1],
    ],
    [[], [3]],
    ...random,
  ];
}

type Make = (...shape: Dim[]) => SampleInput;
type Binary = (a: Value, b: Value) => Value;

const binary = (op: Binary, make: Make = float, divisor: Make = make): OpSample[] =>
  pairs().map(([a, b]) => ({
    inputs: [make(...a), divisor(...b)],
    build: ([x, y]) => [op(x as Value, y as Value)],
  }));

const unary = (op: (x: Value) => Value, ...inputs: SampleInput[]): OpSample[] =>
  inputs.map((input) => ({ inputs: [input], build: ([x]) => [op(x as Value)] }));

const two = (op: Binary, a: SampleInput, b: SampleInput): OpSample => ({
  inputs: [a, b],
  build: ([x, y]) => [op(x as Value, y as Value)],
});

const shapes: Shape[] = [['B', 2], [4], [2, 'T', 3]];
const floats = shapes.map((shape) => float(...shape));
const along = (op: (x: Value, axis: number) => Value): OpSample[] => [
  ...unary((x) => op(x, -1), ...floats),
  ...unary((x) => op(x, 0), float('B', 'T')),
  ...unary((x) => op(x, 1), float(2, 3, 2)),
];

type Reduce = (x: Value, axes: readonly number[], keepDims?: boolean) => Value;
const reduction = (op: Reduce): OpSample[] => [
  ...unary((x) => op(x, [-1]), ...floats),
  ...unary((x) => op(x, [0, 2], true), float('B', 'T', 2)),
  ...unary((x) => op(x, [1], true), float(2, 'T', 3)),
  ...unary((x) => op(x, [0, 1]), float('B', 3)),
];

/** Halves and adds a value of the outer graph until iteration 3, of at most `trips`. */
function loopSample(trips: number): OpSample {
  return {
    inputs: [float('B', 2), float(2)],
    build: ([x, step], graph) => {
      const [start, added] = [x as Value, step as Value];
      const body = new Graph(graph);
      const iteration = body.input('sample.iteration', 'int64', []);
      body.input('sample.goesOn', 'bool', []);
      const state = body.input('sample.state', 'float32', ['B', 2]);
      const half = ops.mul(state, graph.constant(0.5));
      // Made of outer values only, so it is computed once, outside.
      const doubled = ops.add(added, added);
      const next = ops.add(half, doubled);
      body.output('sample.continue', ops.less(iteration, graph.constant(3, 'int64')));
      body.output('sample.next', next);
      body.output('sample.seen', ops.reduceSum(next, [1]));
      const limit = graph.constant(trips, 'int64');
      return ops.loop(graph, limit, graph.constant(1, 'bool'), [start], body);
    },
  };
}

function chooseSample(taken: boolean): OpSample {
  return {
    inputs: [float('B', 2), { ...bool(), draw: () => Number(taken) }],
    build: ([x, condition], graph) => {
      const branch = (factor: number) => {
        const made = new Graph(graph);
        // `within` by a nested choice: the inner value belongs to the branch.
        const { values } = ops.topK(x as Value, 1, made);
        made.output('sample.chosen', ops.mul(values, graph.constant(factor)));
        return made;
      };
      return ops.choose(graph, condition as Value, branch(2), branch(-3));
    },
  };
}

export const OP_SAMPLES: { readonly [K in OpName]: readonly OpSample[] } = {
  add: [...binary(ops.add), two(ops.add, int(9, 'B'), int(9))],
  sub: binary(ops.sub),
  mul: binary(ops.mul),
  div: binary(ops.div, float, positive),
  min: binary(ops.min),
  max: binary(ops.max),
  less: [...binary(ops.less), two(ops.less, int(3, 'B', 1), int(3, 4))],
  lessOrEqual: [...binary(ops.lessOrEqual), two(ops.lessOrEqual, int(3, 'B', 1), int(3, 4))],
  equal: binary(ops.equal, (...shape) => int(3, ...shape)),
  and: binary(ops.and, bool),
  or: binary(ops.or, bool),
  not: unary(ops.not, bool('B', 2), bool()),
  neg: unary(ops.neg, ...floats),
  exp: unary(ops.exp, ...floats),
  log: unary(ops.log, positive('B', 2), positive()),
  sigmoid: unary(ops.sigmoid, ...floats),
  silu: unary(ops.silu, ...floats),
  stopGradient: shapes.map((shape) => ({
    inputs: [float(...shape), fixed(...shape)],
    build: ([x, held]) => [ops.mul(x as Value, ops.stopGradient(held as Value))],
  })),
  where: pairs().flatMap(([a, b]) =>
    [
      [bool(...a), float(...a), float(...b)],
      [bool(...b), float(...a), float(...b)],
      [bool(...a), int(9, ...a), int(9, ...b)],
    ].map((inputs) => ({
      inputs,
      build: ([c, x, y]: readonly Value[]) => [ops.where(c as Value, x as Value, y as Value)],
    })),
  ),
  clip: shapes.map((shape) => ({
    inputs: [float(...shape), constant(-0.4), constant(0.7)],
    build: ([x, low, high]) => [ops.clip(x as Value, low as Value, high as Value)],
  })),
  cast: [
    ...unary((x) => ops.cast(x, 'float32'), bool('B', 2), int(7, 'B')),
    ...unary((x) => ops.cast(ops.cast(x, 'float16'), 'float32'), float('B', 4), positive(7)),
    ...unary((x) => ops.cast(x, 'int64'), bool('B', 2), float('B', 2)),
    ...unary((x) => ops.cast(x, 'bool'), int(2, 'B', 2)),
  ],
  rotary: [
    {
      inputs: [float('B', 'T', 12), int(5, 'B', 'T'), fixed('S', 2), fixed('S', 2)],
      build: ([x, places, cosines, sines]) => [ops.rotary(x!, places!, cosines!, sines!)],
    },
    {
      inputs: [float('B', 1, 8), int(5, 'B', 1), fixed('S', 4), fixed('S', 4)],
      build: ([x, places, cosines, sines]) => [ops.rotary(x!, places!, cosines!, sines!)],
    },
  ],
  matmul: [
    two(ops.matmul, float('B', 4), float(4, 2)),
    two(ops.matmul, float('B', 2, 'T', 3), float('B', 2, 3, 5)),
    two(ops.matmul, float('B', 'T', 3), float(3, 2)),
    two(ops.matmul, float(2, 3), float('B', 1, 3, 'S')),
  ],
  matmulTransposed: [
    two(ops.matmulTransposed, float('B', 4), float(2, 4)),
    two(ops.matmulTransposed, float('B', 2, 1, 3), float('B', 2, 'S', 3)),
    two(ops.matmulTransposed, float(2, 'T', 3), float(1, 'S', 3)),
  ],
  linear: [
    two(ops.linear, float('B', 4), float(3, 4)),
    two(ops.linear, float('B', 'T', 4), float(2, 4)),
  ],
  leftTransposed: [two(ops.leftTransposed, float('n', 2), float('n', 4))],
  softmax: along(ops.softmax),
  logSoftmax: along(ops.logSoftmax),
  jointSoftmax: [
    [float('B', 2, 'T'), float('B', 2, 3)],
    [float(3), float('S')],
  ].map((inputs) => ({
    inputs,
    build: ([a, b]: readonly Value[]) => ops.jointSoftmax(a as Value, b as Value),
  })),
  rmsNorm: [[4], ['B', 6], ['B', 'T', 2]].map((shape) => ({
    inputs: [float(...shape), float(shape.at(-1) as Dim)],
    build: ([x, gain]) => [ops.rmsNorm(x as Value, gain as Value, 1e-3)],
  })),
  tokenLogprob: [
    two(ops.tokenLogprob, float('B', 5), int(5, 'B')),
    two(ops.tokenLogprob, float('B', 'T', 7), int(7, 'B', 'T')),
  ],
  reduceSum: [...reduction(ops.reduceSum), ...unary((x) => ops.reduceSum(x, [1]), int(9, 'B', 4))],
  reduceMean: reduction(ops.reduceMean),
  reduceMax: reduction(ops.reduceMax),
  reduceMin: reduction(ops.reduceMin),
  cumSum: along(ops.cumSum),
  argMax: along(ops.argMax),
  transpose: [
    ...unary((x) => ops.transpose(x, [1, 0]), float('B', 4), int(9, 2, 3)),
    ...unary((x) => ops.transpose(x, [2, 0, 3, 1]), float('B', 2, 3, 4)),
  ],
  reshape: [
    ...unary((x) => ops.reshape(x, [0, 0, 2, 3]), float('B', 'T', 6)),
    ...unary((x) => ops.reshape(x, [-1, 2], 'B*T'), float('B', 'T', 2)),
    ...unary((x) => ops.reshape(x, [3, 4]), float(2, 6), int(9, 12)),
  ],
  reshapeLike: [
    two(ops.reshapeLike, float('B', 4), fixed('B', 2, 2)),
    two(ops.reshapeLike, float('n', 'T', 1), { ...fixed('n', 'T') }),
    two(ops.reshapeBefore, float('B*T', 5), fixed('B', 'T', 2)),
    two(ops.reshapeBefore, float(2, 6, 3), fixed(2, 2, 3, 1)),
  ],
  unsqueeze: [
    ...unary((x) => ops.unsqueeze(x, [0, -1]), float('B', 2)),
    ...unary((x) => ops.unsqueeze(x, [1]), ...floats, int(9, 'B')),
    ...unary((x) => ops.unsqueeze(x, [-1, 1]), float('B', 2)),
  ],
  concat: [
    two((a, b) => ops.concat([a, b], -1), float('B', 2, 'S'), float('B', 2, 'T')),
    two((a, b) => ops.concat([a, b, a], 1), float('B', 2), float('B', 3)),
    two((a, b) => ops.concat([a, b], 0), int(9, 'B'), int(9, 2)),
  ],
  head: [two(ops.head, float('B', 2, 'n'), float(2, 'T')), two(ops.head, float(5), float(2))],
  tail: [
    two((x, like) => ops.tail(x, like, 2), float('B', 2, 'n'), float(2, 'T')),
    two((x, like) => ops.tail(x, like, 3), float(5), float(2)),
  ],
  gather: [
    two(ops.gather, float(5, 3), int(5, 'B', 'T')),
    two(ops.gather, float(5, 3), int(5)),
    two(ops.gather, float(4, 2), int(2, 'n')),
    two(ops.gather, float('S'), int(5, 'B', 'T')),
    two(ops.gather, float('S', 2, 3), int(5, 'B')),
  ],
  scatterAddRows: [
    [int(4, 'n', 1), float('n', 3), float(4, 3)],
    [int(1, 5, 1), float(5, 2), float('T', 2)],
    [int(3, 'n', 1), float('n'), float('B')],
  ].map((inputs) => ({
    inputs,
    build: ([ids, rows, table]: readonly Value[]) => [
      ops.scatterAddRows(ids as Value, rows as Value, table as Value),
    ],
  })),
  moveRows: [
    [float(4, 3), listed(2, 0, -1, 3, -1), listed(1, -1, 0, 3)],
    [float(3, 2, 2), listed(1, 2, 0), listed(2, 0, 1)],
    [float(3, 2), { ...listed(2, -1, 0, -1), shape: [2, 2] }, listed(2, -1, 0)],
  ].map((inputs) => ({
    inputs,
    build: ([x, index, inverse]: readonly Value[]) => [
      ops.moveRows(x as Value, index as Value, inverse as Value),
    ],
  })),
  gatherElements: [
    two(ops.gatherElements, float('B', 5), int(5, 'B', 1)),
    two(ops.gatherElements, float('B', 'T', 5), int(5, 'B', 'T', 3)),
  ],
  scatterAddElements: [
    {
      inputs: [float('B', 'T', 5), int(5, 'B', 'T', 2), float('B', 'T', 2)],
      build: ([x, index, updates]) => [
        ops.scatterAddElements(x as Value, index as Value, updates as Value),
      ],
    },
  ],
  topK: [
    float('B', 6),
    float(5),
    { ...float('B', 6), draw: (random: Prng) => random.below(3) },
  ].map((input) => ({
    inputs: [input],
    build: ([x]) => {
      const { values, indices } = ops.topK(x as Value, 3);
      return [values, indices];
    },
  })),
  dimension: [
    ...unary((x) => ops.dimension(x, 0), float('B', 2), bool('n')),
    ...unary((x) => ops.dimension(x, -1), int(9, 'B', 'T')),
  ],
  zerosFor: [
    ...unary((x) => ops.zerosFor(x, [2, 3]), float('B', 2)),
    ...unary((x) => ops.zerosFor(x, []), int(9, 'n')),
    ...unary((x) => ops.zerosFor(x, [2, 0, 3]), int(9, 'n')),
  ],
  loop: [loopSample(10), loopSample(2), loopSample(1)],
  choose: [chooseSample(true), chooseSample(false)],
};

/** The number that a dimension stands for: `B`, `S+T`, `T*2`. */
export function sizeOfDim(dim: Dim): number {
  if (typeof dim === 'number') return dim;
  const product = (text: string) =>
    text.split('*').reduce((value, factor) => value * (SIZES[factor] ?? Number(factor)), 1);
  return dim.split('+').reduce((sum, term) => sum + product(term), 0);
}
