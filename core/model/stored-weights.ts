/**
 * Weights as constants of a graph, whether they are held in memory or lie in a safetensors file. A
 * tensor in a file stays there: onnxruntime maps it, so no byte of it passes through JavaScript or
 * through a message of 2 GB at most, and casts what is not in the wanted type when the session is
 * made.
 */
import * as ops from '../graph/functions.ts';
import type { Graph, Value } from '../graph/graph.ts';
import type { DType } from '../graph/tensor-type.ts';
import { toHalf } from '../half.ts';
import { heldTensor, isHeld } from './tensor-file.ts';
import type { ComputeType, HeldTensor, ModelWeights, StoredTensor, Weights } from './types.ts';

const DTYPE: Record<StoredTensor['dtype'], DType> = {
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
};

/** Matrices in the compute type; gains and biases, which no product takes, in float32. */
export function storedWeights(
  graph: Graph,
  weights: ModelWeights,
  dtype: ComputeType,
): (name: string) => Value {
  const made = new Map<string, Value>();
  return (name) => {
    const found = made.get(name);
    if (found !== undefined) return found;
    const value = weightConstant(graph, name, weights.get(name) as HeldTensor, dtype);
    made.set(name, value);
    return value;
  };
}

function weightConstant(
  graph: Graph,
  name: string,
  tensor: HeldTensor | StoredTensor,
  dtype: ComputeType,
): Value {
  const wanted = dtype === 'f16' && tensor.shape.length > 1 ? 'float16' : 'float32';
  // Vectors are small, and kernels read them where they are, which for a file would be for ever.
  const held = isHeld(tensor) || tensor.shape.length < 2 ? heldTensor(tensor) : null;
  if (held !== null) {
    return graph.initializer(
      name,
      held.shape,
      wanted === 'float16' ? toHalf(held.data) : held.data,
    );
  }
  const file = tensor as StoredTensor;
  const value = graph.fileTensor(name, DTYPE[file.dtype], file.shape, file);
  return value.dtype === wanted ? value : ops.cast(value, wanted);
}

/**
 * A matrix as several constants of consecutive rows, each of `bytesMax` in float32 at most (and one
 * row at least). onnxruntime holds a constant and its packed form at once while it makes the
 * second, so parts lower the peak.
 */
export function weightParts(
  graph: Graph,
  name: string,
  weights: ModelWeights,
  bytesMax: number,
): Value[] {
  const tensor = weights.get(name) as HeldTensor | StoredTensor;
  const [rows, width] = tensor.shape as [number, number];
  const rowsMax = Math.max(1, Math.floor(bytesMax / (4 * width)));
  const parts: Value[] = [];
  for (let row = 0; row < rows; row += rowsMax) {
    const count = Math.min(rowsMax, rows - row);
    parts.push(weightConstant(graph, `${name}.${row}`, rowsOf(tensor, row, count), 'f32'));
  }
  return parts;
}

function rowsOf(
  tensor: HeldTensor | StoredTensor,
  row: number,
  count: number,
): HeldTensor | StoredTensor {
  const [rows, width] = tensor.shape as [number, number];
  const shape = [count, width];
  if (isHeld(tensor)) {
    return { shape, data: tensor.data.subarray(row * width, (row + count) * width) };
  }
  const rowBytes = tensor.byteLength / rows;
  const offset = tensor.offset + row * rowBytes;
  return { ...tensor, shape, offset, byteLength: count * rowBytes };
}

/** The weights in memory; those that are there already are not copied. Throws policy_invalid. */
export function heldWeights(weights: ModelWeights): Weights {
  return new Map([...weights].map(([name, tensor]) => [name, heldTensor(tensor)]));
}

/** Bytes of all weights in float32. */
export function weightBytes(weights: ModelWeights): number {
  let bytes = 0;
  for (const { shape } of weights.values()) bytes += 4 * shape.reduce((a, b) => a * b, 1);
  return bytes;
}
