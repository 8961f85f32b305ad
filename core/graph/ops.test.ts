/**
 * Every op of the table against its slow twin: onnxruntime, inferred shapes and gradients. The
 * tests loop over the table itself, so a new op is tested or fails.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { createSession, type Feeds, type ModelSession, type TensorData } from '../model/session.ts';
import { Prng } from '../prng.ts';
import * as ops from './functions.ts';
import { gradients } from './gradient.ts';
import { Graph, type GraphNode, type Value } from './graph.ts';
import { apply, OPS, type OpName } from './op-table.ts';
import { evaluate, type Tensor } from './reference.ts';
import type { DType, InputKind } from './tensor-type.ts';
import { OP_SAMPLES, sizeOfDim, type OpSample, type SampleInput } from './testing/op-samples.ts';

const NAMES = Object.keys(OPS) as OpName[];
const sessions: ModelSession[] = [];
afterAll(async () => {
  for (const session of sessions) await session.dispose();
});

const inputName = (i: number) => `x${i}`;

function graphOf(sample: OpSample) {
  const graph = new Graph();
  const values = sample.inputs.map(({ dtype, shape }, i) =>
    graph.input(inputName(i), dtype, shape),
  );
  return { graph, values, outputs: sample.build(values, graph) };
}

/** Random inputs, rounded to float32 so that both evaluators start from the same numbers. */
function draws(inputs: readonly SampleInput[], prng: Prng): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  inputs.forEach(({ shape, draw }, i) => {
    const sizes = shape.map(sizeOfDim);
    const length = sizes.reduce((product, size) => product * size, 1);
    const data = Float64Array.from({ length }, () => Math.fround(draw(prng)));
    feeds[inputName(i)] = { shape: sizes, data };
  });
  return feeds;
}

async function runOnnx(graph: Graph, feeds: Record<string, Tensor>) {
  const session = await createSession(graph, { device: 'cpu', threads: 1 });
  sessions.push(session);
  const typed: Feeds = {};
  for (const { name, dtype } of graph.inputs) {
    const { shape, data } = feeds[name]!;
    typed[name] = { dims: shape, data: typedData(data, dtype) };
  }
  const results = await session.run(typed);
  return Object.fromEntries(
    Object.entries(results).map(([name, { dims, data }]) => [
      name,
      { shape: [...dims], data: Float64Array.from(data as ArrayLike<number>, Number) },
    ]),
  );
}

function typedData(data: Float64Array, dtype: DType): TensorData {
  if (dtype === 'float32') return Float32Array.from(data);
  return dtype === 'bool' ? Uint8Array.from(data) : BigInt64Array.from(data, BigInt);
}

function expectClose(actual: Tensor, expected: Tensor, tolerance: number, floor = 1): void {
  expect(actual.shape).toEqual(expected.shape);
  expected.data.forEach((value, i) => {
    const allowed = tolerance * Math.max(floor, Math.abs(value));
    expect(Math.abs(actual.data[i]! - value), `element ${i}: ${value}`).toBeLessThanOrEqual(
      allowed,
    );
  });
}

/** The sum of the first output times random numbers, so that every element counts differently. */
function probe(graph: Graph, output: Value, prng: Prng) {
  const shape = output.shape;
  const weights = graph.input('probe', 'float32', shape);
  const product = ops.mul(output, weights);
  const axes = shape.map((_, i) => i);
  const loss = axes.length > 0 ? ops.reduceSum(product, axes) : product;
  const sizes = shape.map(sizeOfDim);
  const length = sizes.reduce((total, size) => total * size, 1);
  const data = Float64Array.from({ length }, () => Math.fround(prng.gaussian()));
  return { loss, feed: { shape: sizes, data } };
}

describe.each(NAMES)('%s', (name) => {
  const samples = OP_SAMPLES[name];

  it('computes in onnxruntime what its slow twin computes', async () => {
    expect(samples.length).toBeGreaterThan(0);
    const prng = new Prng(1);
    for (const sample of samples) {
      const { graph, outputs } = graphOf(sample);
      expect(allNodes(graph).some(({ op }) => op === name)).toBe(true);
      outputs.forEach((output, i) => graph.output(`y${i}`, output));
      const feeds = draws(sample.inputs, prng);
      const expected = evaluate(graph, feeds);
      const actual = await runOnnx(graph, feeds);
      outputs.forEach((output, i) => {
        expectClose(actual[`y${i}`]!, expected[`y${i}`]!, 1e-5);
        if (name === 'loop' && i >= 1) return; // Its trip count is known only at run time.
        expect(actual[`y${i}`]!.shape).toEqual(output.shape.map(sizeOfDim));
      });
    }
  });

  if (typeof OPS[name].gradient === 'function') {
    it('has the gradient of finite differences, in both evaluators', async () => {
      const prng = new Prng(2);
      let checked = 0;
      for (const sample of samples) {
        const moving = sample.inputs.flatMap(({ dtype, fixed }, i) =>
          dtype === 'float32' && fixed !== true ? [i] : [],
        );
        const { graph, values, outputs } = graphOf(sample);
        if (moving.length === 0) continue;
        const { loss, feed } = probe(graph, outputs[0]!, prng);
        graph.output('loss', loss);
        const wrt = moving.map((i) => values[i]!);
        gradients(graph, loss, wrt).forEach((grad, k) => {
          expect(grad.shape.map(sizeOfDim)).toEqual(wrt[k]!.shape.map(sizeOfDim));
          graph.output(`grad${moving[k]}`, grad);
        });
        const feeds = { ...draws(sample.inputs, prng), probe: feed };
        const reference = evaluate(graph, feeds);
        const actual = await runOnnx(graph, feeds);
        for (const i of moving) {
          const differences = finiteDifferences(graph, feeds, inputName(i));
          expectClose(reference[`grad${i}`]!, differences, 1e-6, 1e-2);
          expectClose(actual[`grad${i}`]!, reference[`grad${i}`]!, 1e-4);
          checked++;
        }
      }
      expect(checked).toBeGreaterThan(0);
    });
  } else {
    const { none } = OPS[name].gradient;
    it('refuses to be differentiated, with the reason', () => {
      const { graph, values, outputs } = graphOf(samples[0]!);
      expect(() => gradients(graph, outputs[0]!, [values[0]!])).toThrowError(
        `internal: gradient through ${name}: ${none}`,
      );
    });
  }

  it('refuses other element types and counts when the graph is built', () => {
    const { takes } = OPS[name];
    const graph = new Graph();
    const value = (dtype: DType) => graph.input(graph.freshName('z'), dtype, [2, 2]);
    // Types are checked before the shape rule, so no parameters are needed to be refused.
    const applied = (types: readonly DType[]) => () =>
      apply(
        name,
        types.map((dtype) => value(dtype)),
        {},
        graph,
      );
    const error = new RegExp(`^internal: ${name}: expected `);
    expect(applied([])).toThrowError(error);
    if ('each' in takes) return;
    const right = takes.map((kind) => DTYPES.find((dtype) => isAccepted(kind, dtype))!);
    takes.forEach((kind, i) => {
      for (const wrong of DTYPES.filter((dtype) => !isAccepted(kind, dtype))) {
        expect(applied(right.with(i, wrong))).toThrowError(error);
      }
    });
    expect(applied([...right, 'float32'])).toThrowError(error);
    expect(applied(right.slice(1))).toThrowError(error);
    expect(graph.nodes).toEqual([]);
  });
});

const DTYPES: readonly DType[] = ['float32', 'float16', 'int64', 'bool'];

function isAccepted(kind: InputKind, dtype: DType): boolean {
  const some: Partial<Record<InputKind, readonly DType[]>> = {
    number: ['float32', 'int64'],
    float: ['float32', 'float16'],
  };
  return kind === 'any' || kind === dtype || some[kind]?.includes(dtype) === true;
}

/** The nodes of a graph and of all graphs nested in it. */
function allNodes(graph: Graph): GraphNode[] {
  return graph.nodes.flatMap((node) => [node, ...nestedGraphs(node).flatMap(allNodes)]);
}

function nestedGraphs({ params }: GraphNode): Graph[] {
  return Object.values(params).filter((param) => param instanceof Graph);
}

/** d loss / d input by central differences of the slow twin, element by element. */
function finiteDifferences(graph: Graph, feeds: Record<string, Tensor>, name: string): Tensor {
  const { shape, data } = feeds[name]!;
  const step = 1e-5;
  const lossAt = (i: number, delta: number) => {
    const moved = data.slice();
    moved[i]! += delta;
    return evaluate(graph, { ...feeds, [name]: { shape, data: moved } }, ['loss']).loss!.data[0]!;
  };
  return { shape, data: data.map((_, i) => (lossAt(i, step) - lossAt(i, -step)) / (2 * step)) };
}
