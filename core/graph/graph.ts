/**
 * The graph: values and the nodes that make them, in an order in which they can run. Ops add nodes
 * (core/graph/ops), gradients add more of the same nodes (gradient.ts), the encoder writes them as
 * ONNX (onnx.ts). A graph may have a parent: the body of a loop reads the parent's values, and an
 * op whose inputs all belong to the parent is placed there, so loop invariants are computed once.
 */
import { assert } from '../assert.ts';
import type { OpName, OpParams } from './op-table.ts';
import type { DType, Shape, TensorType } from './tensor-type.ts';

export interface Value extends TensorType {
  readonly name: string;
  readonly graph: Graph;
}

export interface GraphNode<K extends OpName = OpName> {
  readonly op: K;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly params: OpParams[K];
}

/** float32, float16 as its bits, int64, bool. */
export type InitializerData = Float32Array | Uint16Array | BigInt64Array | Uint8Array;

/** Bytes that onnxruntime reads from a file itself, little-endian and row-major. */
export interface FileData {
  /** Absolute, without links. */
  readonly path: string;
  readonly offset: number;
  readonly byteLength: number;
}

export interface Initializer extends TensorType {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: InitializerData | FileData;
}

export class Graph {
  readonly parent: Graph | null;
  readonly depth: number;
  readonly nodes: GraphNode[] = [];
  readonly inputs: Value[] = [];
  readonly outputs: { name: string; value: Value }[] = [];
  readonly initializers: Initializer[] = [];
  private readonly constants = new Map<string, Value>();
  private readonly names: { next: number };

  /**
   * Whether `linear` becomes one node of onnxruntime's own domain, which reads the weight as it
   * lies. Otherwise the weight is turned first, which every provider can do, but which makes a copy
   * of a constant. For graphs of the CPU.
   */
  readonly fusedLinear: boolean;

  constructor(parent: Graph | null = null, options: { fusedLinear?: boolean } = {}) {
    this.parent = parent;
    this.fusedLinear = parent?.fusedLinear ?? options.fusedLinear ?? false;
    this.depth = parent === null ? 0 : parent.depth + 1;
    // Names are unique over nested graphs: ONNX subgraphs see the names around them.
    this.names = parent === null ? { next: 0 } : parent.names;
  }

  /** Declares an input that the caller feeds at run time. */
  input(name: string, dtype: DType, shape: Shape): Value {
    const value: Value = { name, dtype, shape, graph: this };
    this.inputs.push(value);
    return value;
  }

  /** A constant tensor stored in the model. */
  initializer(name: string, shape: readonly number[], data: InitializerData): Value {
    const size = shape.reduce((product, dim) => product * dim, 1);
    assert(
      size === data.length,
      `initializer ${name}: ${data.length} values for [${shape.join()}]`,
    );
    const dtype = dtypeOf(data);
    this.initializers.push({ name, dtype, shape, data });
    return { name, dtype, shape, graph: this };
  }

  /** A constant tensor that stays in its file; only the outermost graph may have one. */
  fileTensor(name: string, dtype: DType, shape: readonly number[], data: FileData): Value {
    assert(this.parent === null, `file tensor ${name} in a nested graph`);
    this.initializers.push({ name, dtype, shape, data });
    return { name, dtype, shape, graph: this };
  }

  /** A constant scalar or vector; equal ones are shared. Lives in the outermost graph. */
  constant(value: number | readonly number[], dtype: DType = 'float32'): Value {
    if (this.parent !== null) return this.parent.constant(value, dtype);
    const list = typeof value === 'number' ? [value] : [...value];
    const key = `${dtype}:${typeof value === 'number' ? 's' : 'v'}:${list.join(',')}`;
    const found = this.constants.get(key);
    if (found !== undefined) return found;
    const shape = typeof value === 'number' ? [] : [list.length];
    const made = this.initializer(this.freshName('const'), shape, typedData(list, dtype));
    this.constants.set(key, made);
    return made;
  }

  /** Marks a value as an output of the graph under a public name. */
  output(name: string, value: Value): void {
    this.outputs.push({ name, value });
  }

  freshName(hint: string): string {
    return `${hint}_${this.names.next++}`;
  }

  /** Appends a node; used by op-table.ts, which has inferred the output types. */
  append<K extends OpName>(
    op: K,
    inputs: readonly Value[],
    params: OpParams[K],
    types: readonly TensorType[],
  ): Value[] {
    const outputs = types.map(({ dtype, shape }) => ({
      name: this.freshName(op),
      dtype,
      shape,
      graph: this,
    }));
    this.nodes.push({ op, inputs, outputs, params });
    return outputs;
  }
}

function dtypeOf(data: InitializerData): DType {
  if (data instanceof Float32Array) return 'float32';
  if (data instanceof Uint16Array) return 'float16';
  return data instanceof BigInt64Array ? 'int64' : 'bool';
}

function typedData(list: readonly number[], dtype: DType): InitializerData {
  assert(dtype !== 'float16' && dtype !== 'bfloat16', 'constants are float32; cast them');
  if (dtype === 'float32') return Float32Array.from(list);
  if (dtype === 'int64') return BigInt64Array.from(list.map(BigInt));
  return Uint8Array.from(list);
}
