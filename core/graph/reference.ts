/**
 * The slow twin of every graph: a plain evaluator in float64, the oracle for onnxruntime and, by
 * finite differences, for the gradients. Values are computed on demand and once, so a nested graph
 * finds what it reads around it, and outputs that nobody asks for cost nothing.
 *
 * The record is total over the op names: an op without a slow twin does not compile.
 */
import { assert, must } from '../assert.ts';
import type { Graph, GraphNode } from './graph.ts';
import type { OpName } from './op-table.ts';
import { control } from './reference/control.ts';
import { elementwise } from './reference/elementwise.ts';
import { indexing } from './reference/index-ops.ts';
import { layout } from './reference/layout.ts';
import { linear } from './reference/linear.ts';
import { normalize } from './reference/normalize.ts';
import { reduce } from './reference/reduce.ts';
import { rotary } from './reference/rotary.ts';
import type { ReferenceGroup, Tensor } from './reference/tensor.ts';

export type { Tensor } from './reference/tensor.ts';

const REFERENCE: ReferenceGroup<OpName> = {
  ...elementwise,
  ...linear,
  ...normalize,
  ...reduce,
  ...layout,
  ...indexing,
  ...control,
  ...rotary,
};

/**
 * The outputs of an outermost graph by public name, given its inputs by name. `outputs` limits what
 * is computed; by default all are. Throws `internal` when an input is missing.
 */
export function evaluate(
  graph: Graph,
  feeds: Readonly<Record<string, Tensor>>,
  outputs: readonly string[] = graph.outputs.map(({ name }) => name),
): Record<string, Tensor> {
  const scope = new Scope(graph, null);
  for (const { name } of graph.inputs) {
    if (feeds[name] !== undefined) scope.set(name, feeds[name]);
  }
  const result: Record<string, Tensor> = {};
  for (const wanted of outputs) {
    const found = graph.outputs.find(({ name }) => name === wanted);
    result[wanted] = scope.get(must(found, `output ${wanted}`).value.name);
  }
  return result;
}

/** The known values of one run of a graph, within those of the graph around it. */
class Scope {
  private readonly around: Scope | null;
  private readonly known = new Map<string, Tensor>();
  private readonly makers: ReadonlyMap<string, GraphNode>;

  constructor(graph: Graph, around: Scope | null) {
    this.around = around;
    this.makers = makersOf(graph);
    for (const { name, shape, data } of graph.initializers) {
      this.known.set(name, { shape, data: Float64Array.from(data as ArrayLike<number>, Number) });
    }
  }

  set(name: string, value: Tensor): void {
    this.known.set(name, value);
  }

  get(name: string): Tensor {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    const node = this.makers.get(name);
    if (node === undefined) {
      assert(this.around !== null, `${name} is neither fed nor computed`);
      return this.around.get(name);
    }
    const values = this.run(node);
    node.outputs.forEach((output, i) => this.set(output.name, values[i] as Tensor));
    return must(this.known.get(name), name);
  }

  private run<K extends OpName>(node: GraphNode<K>): Tensor[] {
    const inputs = node.inputs.map((input) => this.get(input.name));
    return REFERENCE[node.op](inputs, node.params, (graph, values) => {
      const nested = new Scope(graph, this);
      graph.inputs.forEach((input, i) => nested.set(input.name, values[i] as Tensor));
      return graph.outputs.map(({ value }) => nested.get(value.name));
    });
  }
}

/** Which node makes a value; kept for each graph, because loop bodies run many times. */
const makersByGraph = new WeakMap<Graph, { nodes: number; makers: Map<string, GraphNode> }>();

function makersOf(graph: Graph): Map<string, GraphNode> {
  const held = makersByGraph.get(graph);
  if (held?.nodes === graph.nodes.length) return held.makers;
  const makers = new Map<string, GraphNode>();
  for (const node of graph.nodes) for (const { name } of node.outputs) makers.set(name, node);
  makersByGraph.set(graph, { nodes: graph.nodes.length, makers });
  return makers;
}
