/**
 * Writes a graph as an ONNX model (IR 8, opset 18). Field numbers are those of onnx.proto3. Each op
 * lowers itself (op-table.ts); this file knows only messages.
 *
 * Tensors that lie in files are named by file, offset and length, relative to one folder: the only
 * form that onnxruntime takes for a model that it gets as bytes.
 */
import { dirname, isAbsolute, relative, sep } from 'node:path';
import type { Graph, Initializer } from './graph.ts';
import { lowerNode } from './op-table.ts';
import { ProtoWriter } from './protobuf.ts';
import type { DType, TensorType } from './tensor-type.ts';

export type Attribute = number | string | readonly number[] | { float: number } | { graph: Graph };

export interface OnnxNode {
  opType: string;
  domain?: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes?: Readonly<Record<string, Attribute>>;
}

const IR_VERSION = 8;
const OPSET = 18;
const ELEMENT_TYPE: Record<DType, number> = {
  float32: 1,
  float16: 10,
  bfloat16: 16,
  int64: 7,
  bool: 9,
};
const EXTERNAL = 1;
const ATTRIBUTE_TYPE = { float: 1, int: 2, string: 3, graph: 5, ints: 7 };

/**
 * The bytes of a model that onnxruntime loads. Throws when an op in the graph cannot be lowered.
 */
export function encodeModel(graph: Graph): Uint8Array {
  const model = new ProtoWriter().varint(1, IR_VERSION).string(2, 'ramify');
  model.message(7, encodeGraph(graph, 'main'));
  model.message(8, new ProtoWriter().string(1, '').varint(2, OPSET));
  model.message(8, new ProtoWriter().string(1, 'com.microsoft').varint(2, 1));
  return model.finish();
}

function encodeGraph(graph: Graph, name: string): ProtoWriter {
  const out = new ProtoWriter();
  for (const node of graph.nodes) {
    for (const lowered of lowerNode(node)) out.message(1, encodeNode(lowered));
  }
  const outputs = outputNames(graph);
  graph.outputs.forEach(({ value }, i) => {
    const name = outputs[i] as string;
    if (name === value.name) return;
    out.message(1, encodeNode({ opType: 'Identity', inputs: [value.name], outputs: [name] }));
  });
  out.string(2, name);
  const folder = tensorFolder(graph) ?? '';
  for (const tensor of graph.initializers) out.message(5, encodeTensor(tensor, folder));
  for (const input of graph.inputs) out.message(11, encodeValueInfo(input.name, input));
  graph.outputs.forEach(({ value }, i) => {
    out.message(12, encodeValueInfo(outputs[i] as string, value));
  });
  return out;
}

/**
 * Output names. The outermost graph gives its values public names (by an Identity, which
 * onnxruntime removes when it can). Outputs of nested graphs go by their order, so a value that the
 * graph itself computes keeps its own name: an Identity there would copy the state of a loop in
 * every turn.
 */
function outputNames(graph: Graph): string[] {
  const computed = new Set(graph.nodes.flatMap(({ outputs }) => outputs.map(({ name }) => name)));
  return graph.outputs.map(({ name, value }) => {
    const nested = graph.parent !== null && computed.delete(value.name); // Each only once.
    return nested ? value.name : name;
  });
}

function encodeNode(node: OnnxNode): ProtoWriter {
  const out = new ProtoWriter();
  for (const input of node.inputs) out.string(1, input);
  for (const output of node.outputs) out.string(2, output);
  out.string(4, node.opType);
  for (const [name, value] of Object.entries(node.attributes ?? {})) {
    out.message(5, encodeAttribute(name, value));
  }
  if (node.domain !== undefined) out.string(7, node.domain);
  return out;
}

function encodeAttribute(name: string, value: Attribute): ProtoWriter {
  const out = new ProtoWriter().string(1, name);
  if (typeof value === 'number') return out.varint(3, value).varint(20, ATTRIBUTE_TYPE.int);
  if (typeof value === 'string') return out.string(4, value).varint(20, ATTRIBUTE_TYPE.string);
  if ('float' in value) return out.float(2, value.float).varint(20, ATTRIBUTE_TYPE.float);
  if ('graph' in value) {
    return out.message(6, encodeGraph(value.graph, name)).varint(20, ATTRIBUTE_TYPE.graph);
  }
  for (const item of value) out.varint(8, item);
  return out.varint(20, ATTRIBUTE_TYPE.ints);
}

function encodeTensor(tensor: Initializer, folder: string): ProtoWriter {
  const out = new ProtoWriter();
  for (const dim of tensor.shape) out.varint(1, dim);
  out.varint(2, ELEMENT_TYPE[tensor.dtype]).string(8, tensor.name);
  const { data } = tensor;
  if (!('path' in data)) {
    return out.bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  const entry = (key: string, value: string | number) =>
    out.message(13, new ProtoWriter().string(1, key).string(2, String(value)));
  entry('location', relative(folder, data.path).split(sep).join('/'));
  entry('offset', data.offset);
  entry('length', data.byteLength);
  return out.varint(14, EXTERNAL);
}

/**
 * The folder that holds every file the graph's tensors lie in, which a session must be told; null
 * when there are none.
 */
export function tensorFolder(graph: Graph): string | null {
  let folder: string | null = null;
  for (const { data } of graph.initializers) {
    if (!('path' in data)) continue;
    folder ??= dirname(data.path);
    while (isOutside(folder, data.path)) folder = dirname(folder);
  }
  return folder;
}

function isOutside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way);
}

function encodeValueInfo(name: string, type: TensorType): ProtoWriter {
  const shape = new ProtoWriter();
  for (const dim of type.shape) {
    const encoded = new ProtoWriter();
    if (typeof dim === 'number') encoded.varint(1, dim);
    else encoded.string(2, dim);
    shape.message(1, encoded);
  }
  const tensor = new ProtoWriter().varint(1, ELEMENT_TYPE[type.dtype]).message(2, shape);
  return new ProtoWriter().string(1, name).message(2, new ProtoWriter().message(1, tensor));
}
