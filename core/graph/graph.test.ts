/**
 * What holds for whole graphs: gradients that meet add up, values that cannot have one are refused,
 * names are unique, constants are shared, loop invariants leave the loop.
 */
import { describe, expect, it } from 'vitest';
import { decodeGraph } from '../model/cache-graphs.ts';
import { initialWeights } from '../model/parameters.ts';
import { Prng } from '../prng.ts';
import * as ops from './functions.ts';
import { gradients } from './gradient.ts';
import { Graph, type Value } from './graph.ts';
import { evaluate, type Tensor } from './reference.ts';

const vector = (...values: number[]): Tensor => ({
  shape: [values.length],
  data: Float64Array.from(values),
});

function numbers(graph: Graph, value: Value, feeds: Record<string, Tensor>): number[] {
  graph.output(graph.freshName('y'), value);
  const name = graph.outputs.at(-1)!.name;
  return [...evaluate(graph, feeds, [name])[name]!.data];
}

describe('gradients', () => {
  it('add up where a value is used several times', () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', [2]);
    const cubed = ops.mul(x, ops.mul(x, x));
    const loss = ops.reduceSum(ops.add(cubed, ops.add(x, x)), [0]); // x^3 + 2 x
    const [grad] = gradients(graph, loss, [x]);
    expect(numbers(graph, grad!, { x: vector(2, -1) })).toEqual([14, 5]);
  });

  it('flow to inner values too, and the loss itself has gradient 1', () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', [2]);
    const inner = ops.exp(x);
    const loss = ops.reduceSum(ops.mul(inner, inner), [0]);
    const [ofInner, ofLoss] = gradients(graph, loss, [inner, loss]);
    expect(numbers(graph, ofInner!, { x: vector(0, 0) })).toEqual([2, 2]);
    expect(numbers(graph, ofLoss!, { x: vector(0, 0) })).toEqual([1]);
  });

  it('are refused for values that do not reach the loss', () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', [2]);
    const apart = graph.input('apart', 'float32', [2]);
    const loss = ops.reduceSum(ops.mul(x, x), [0]);
    ops.add(apart, x); // A use, but no way to the loss.
    expect(() => gradients(graph, loss, [x, apart])).toThrowError(
      'internal: apart has no gradient',
    );
  });

  it('do not look at ops off the way: an index needs no gradient', () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', [2, 3]);
    const best = ops.argMax(ops.transpose(x, [0, 1]), 1);
    const loss = ops.reduceSum(ops.mul(x, x), [0, 1]);
    expect(gradients(graph, loss, [x])).toHaveLength(1);
    const chosen = ops.reduceSum(ops.mul(x, ops.cast(best, 'float32')), [0, 1]);
    expect(() => gradients(graph, chosen, [x])).toThrowError(/gradient through cast: casts go/);
  });

  it('stop where they are told to: the value passes, the gradient does not', () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', [2]);
    const held = ops.stopGradient(ops.mul(x, x));
    const loss = ops.reduceSum(ops.mul(held, x), [0]); // x^3, as a constant times x
    const [grad] = gradients(graph, loss, [x]);
    expect(numbers(graph, loss, { x: vector(3, -1) })).toEqual([26]);
    expect(numbers(graph, grad!, { x: vector(3, -1) })).toEqual([9, 1]);
    const alone = ops.reduceSum(held, [0]);
    expect(() => gradients(graph, alone, [x])).toThrowError('internal: x has no gradient');
  });

  it('are refused through what a branch reads around it', () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', [2]);
    const yes = graph.input('yes', 'bool', []);
    const [whenTrue, whenFalse] = [2, 3].map((factor) => {
      const branch = new Graph(graph);
      branch.output('y', ops.mul(x, graph.constant(factor)));
      return branch;
    }) as [Graph, Graph];
    const chosen = ops.choose(graph, yes, whenTrue, whenFalse)[0]!;
    const loss = ops.reduceSum(ops.mul(chosen, x), [0]);
    expect(() => gradients(graph, loss, [x])).toThrowError(/gradient through choose/);
  });

  it('choose one side where min or max is tied', () => {
    const graph = new Graph();
    const [a, b] = ['a', 'b'].map((name) => graph.input(name, 'float32', [1])) as [Value, Value];
    for (const op of [ops.min, ops.max]) {
      const loss = ops.reduceSum(op(a, b), [0]);
      const both = gradients(graph, loss, [a, b]);
      const at = (grad: Value) => numbers(graph, grad, { a: vector(2), b: vector(2) });
      expect(both.map(at)).toEqual([[1], [0]]);
    }
  });
});

/**
 * All names that a graph and those nested in it define, but for the outputs of a branch: those of
 * both branches of a choice go by the same names, because they are never seen together.
 */
function definedNames(graph: Graph): string[] {
  const nested = graph.nodes.flatMap(({ op, params }) =>
    Object.values(params)
      .filter((param): param is Graph => param instanceof Graph)
      .flatMap((inner) => [
        ...definedNames(inner),
        ...(op === 'choose' ? [] : inner.outputs.map(({ name }) => name)),
      ]),
  );
  return [
    ...graph.inputs.map(({ name }) => name),
    ...graph.initializers.map(({ name }) => name),
    ...graph.nodes.flatMap(({ outputs }) => outputs.map(({ name }) => name)),
    ...nested,
  ];
}

describe('graphs', () => {
  it('define every name once, nested graphs included', () => {
    const config = {
      modelType: 'llama' as const,
      layers: 2,
      hidden: 4,
      heads: 2,
      kvHeads: 1,
      headDim: 2,
      intermediate: 6,
      vocabulary: 5,
      contextTokens: 8,
      ropeTheta: 10000,
      rmsNormEpsilon: 1e-6,
      qkvBias: false,
      tiedEmbeddings: true,
    };
    const names = definedNames(decodeGraph(config, initialWeights(config, new Prng(1))));
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
    expect(names.length).toBeGreaterThan(100);
  });

  it('share equal constants and keep different ones apart', () => {
    const graph = new Graph();
    const body = new Graph(graph);
    expect(body.constant(2)).toBe(graph.constant(2));
    expect(graph.constant([2])).not.toBe(graph.constant(2));
    expect(graph.constant(2, 'int64')).not.toBe(graph.constant(2));
    expect(graph.constant([1, 2], 'int64').shape).toEqual([2]);
    expect(graph.initializers).toHaveLength(4);
  });

  it('place an op in the deepest graph of its inputs, loop invariants outside', () => {
    const graph = new Graph();
    const outer = graph.input('outer', 'float32', [2]);
    const body = new Graph(graph);
    const inner = body.input('inner', 'float32', [2]);
    ops.add(outer, outer);
    ops.add(outer, inner);
    expect([graph.nodes.length, body.nodes.length]).toEqual([1, 1]);
  });

  it('refuse initialisers of another size', () => {
    const graph = new Graph();
    expect(() => graph.initializer('w', [2, 3], new Float32Array(5))).toThrowError(
      'internal: initializer w: 5 values for [2,3]',
    );
  });

  it('name inputs that the slow twin was not given', () => {
    const graph = new Graph();
    graph.output('y', ops.neg(graph.input('x', 'float32', [1])));
    expect(() => evaluate(graph, {})).toThrowError('internal: x is neither fed nor computed');
    expect(() => evaluate(graph, {}, ['z'])).toThrowError('internal: output z');
  });
});
