/** Helpers for ops that lower to one ONNX node. */
import type { Graph, GraphNode, Value } from './graph.ts';
import type { Attribute, OnnxNode } from './onnx.ts';

/** One ONNX node with the op's inputs (and further constant ones) and outputs. */
export function onnxNode(
  opType: string,
  node: GraphNode,
  attributes: Readonly<Record<string, Attribute>> = {},
  extraInputs: readonly Value[] = [],
): OnnxNode {
  return {
    opType,
    inputs: [...node.inputs, ...extraInputs].map((value) => value.name),
    outputs: node.outputs.map((value) => value.name),
    attributes,
  };
}

/** A constant int64 vector in the graph around the node, for axes, sizes and bounds. */
export function intVector(node: GraphNode, list: readonly number[]): Value {
  return outermost(node).constant(list, 'int64');
}

/** An intermediate name for lowerings of several nodes. */
export function scratchName(node: GraphNode, hint: string): string {
  return outermost(node).freshName(hint);
}

function outermost(node: GraphNode): Graph {
  const first = node.outputs[0] ?? node.inputs[0];
  if (first === undefined) throw new Error('internal: node without values');
  let graph = first.graph;
  while (graph.parent !== null) graph = graph.parent;
  return graph;
}
