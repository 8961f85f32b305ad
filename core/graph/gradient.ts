/**
 * Reverse-mode automatic differentiation: walks the nodes backwards and lets each op's rule add
 * more nodes to the same graph. Gradients of a value that is used several times add up.
 */
import { AppError } from '../errors.ts';
import * as functions from './functions.ts';
import { Graph, type GraphNode, type Value } from './graph.ts';
import { OPS, type OpName } from './op-table.ts';

/**
 * d loss / d value for each value in `wrt`, in order. `loss` is a float scalar of `graph`. Throws
 * when a value does not reach the loss, or when the way passes through an op without gradient.
 */
export function gradients(graph: Graph, loss: Value, wrt: readonly Value[]): Value[] {
  const needed = ancestorsOf(graph, wrt);
  const forward = graph.nodes.length;
  const known = new Map<string, Value>([[loss.name, graph.constant(1)]]);
  // The rules append nodes while we walk, so the walk runs over a copy.
  for (const node of [...graph.nodes].reverse()) {
    const grads = node.outputs.map((output) => known.get(output.name) ?? null);
    if (grads.every((grad) => grad === null)) continue;
    if (!namesRead(node).some((name) => needed.has(name))) continue;
    inputGradients(node, grads).forEach((grad, i) => {
      const input = node.inputs[i] as Value;
      if (grad === null || !needed.has(input.name)) return;
      const before = known.get(input.name);
      known.set(input.name, before === undefined ? grad : functions.add(before, grad));
    });
  }
  const found = wrt.map((value) => {
    const grad = known.get(value.name);
    if (grad === undefined)
      throw new AppError('internal', `internal: ${value.name} has no gradient`);
    return grad;
  });
  dropUnread(graph, forward, found);
  return found;
}

/**
 * Removes the nodes from `start` on that none of `results` needs: a rule gives the gradients of all
 * inputs of its op, those of frozen weights too.
 */
function dropUnread(graph: Graph, start: number, results: readonly Value[]): void {
  const read = new Set(results.map(({ name }) => name));
  const kept: GraphNode[] = [];
  for (const node of graph.nodes.splice(start).reverse()) {
    if (!node.outputs.some(({ name }) => read.has(name))) continue;
    kept.push(node);
    for (const name of namesRead(node)) read.add(name);
  }
  graph.nodes.push(...kept.reverse());
}

function inputGradients<K extends OpName>(
  node: GraphNode<K>,
  grads: readonly (Value | null)[],
): (Value | null)[] {
  const rule = OPS[node.op].gradient;
  if (typeof rule !== 'function') {
    throw new AppError('internal', `internal: gradient through ${node.op}: ${rule.none}`);
  }
  return rule(functions, node, grads);
}

/** Names of all values that depend on one of `wrt` (those included): only they need gradients. */
function ancestorsOf(graph: Graph, wrt: readonly Value[]): Set<string> {
  const reached = new Set(wrt.map((value) => value.name));
  for (const node of graph.nodes) {
    if (namesRead(node).some((name) => reached.has(name))) {
      for (const output of node.outputs) reached.add(output.name);
    }
  }
  return reached;
}

/** What a node reads: its inputs, and what graphs nested in it read around them. */
function namesRead({ inputs, params }: GraphNode): string[] {
  const names = inputs.map(({ name }) => name);
  for (const nested of Object.values(params)) {
    if (!(nested instanceof Graph)) continue;
    names.push(
      ...nested.nodes.flatMap(namesRead),
      ...nested.outputs.map(({ value }) => value.name),
    );
  }
  return names;
}
