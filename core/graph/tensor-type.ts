/**
 * Types of graph values: element type and shape. A dimension is a number or a symbol (`B`, `T`,
 * `S+T`): shape rules compare symbols by name, so a graph that type-checks fits every size at run
 * time. A pure leaf: knows nothing of ops or ONNX.
 */
import { AppError } from '../errors.ts';

export type DType = 'float32' | 'int64' | 'bool';
export type Dim = number | string;
export type Shape = readonly Dim[];

export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Raised while a graph is built: always a bug in the code that builds it. */
export function shapeError(op: string, expected: string, ...got: TensorType[]): AppError {
  const shown = got.map(formatType).join(', ');
  return new AppError('internal', `internal: ${op}: expected ${expected}, got ${shown}`);
}

export function formatType(type: TensorType): string {
  return `${type.dtype}[${type.shape.join(', ')}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** NumPy broadcasting; null when the shapes do not fit. A symbol fits itself and 1. */
export function broadcast(a: Shape, b: Shape): Shape | null {
  const rank = Math.max(a.length, b.length);
  const out: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) return null;
    out.push(x === 1 ? y : x);
  }
  return out;
}

/** Axis counted from the front; negative ones count from the back. */
export function axisOf(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

export function addDims(a: Dim, b: Dim): Dim {
  if (a === 0) return b;
  if (b === 0) return a;
  return typeof a === 'number' && typeof b === 'number' ? a + b : `${a}+${b}`;
}

export function mulDims(a: Dim, b: Dim): Dim {
  if (a === 1) return b;
  if (b === 1) return a;
  return typeof a === 'number' && typeof b === 'number' ? a * b : `${a}*${b}`;
}
