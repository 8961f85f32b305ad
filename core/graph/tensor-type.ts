/**
 * Types of graph values: element type and shape. A dimension is a number or a symbol (`B`, `T`,
 * `S+T`): shape rules compare symbols by name, so a graph that type-checks fits every size at run
 * time. A pure leaf: knows nothing of ops or ONNX.
 */
import { AppError } from '../errors.ts';

/**
 * bfloat16 is only what a weight file may hold: it is gathered from and cast, never computed in.
 */
export type DType = 'float32' | 'float16' | 'bfloat16' | 'int64' | 'bool';
export type CastType = Exclude<DType, 'bfloat16'>;
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

/** What one input of an op may be: `number` is float32 or int64, `float` float32 or float16. */
export type InputKind = DType | 'number' | 'float' | 'any';

/** Whether an input of this kind may have this element type. */
export function acceptsType(kind: InputKind, dtype: DType): boolean {
  if (kind === 'number') return dtype === 'float32' || dtype === 'int64';
  if (kind === 'float') return dtype === 'float32' || dtype === 'float16';
  return kind === dtype || kind === 'any';
}

/** Refuses a wrong count or element type. A record takes any count, but at least one. */
export function checkInputs(
  op: string,
  kinds: readonly InputKind[] | { each: InputKind },
  inputs: readonly TensorType[],
): void {
  const wanted = 'each' in kinds ? inputs.map(() => kinds.each) : kinds;
  const fits = (kind: InputKind | undefined, { dtype }: TensorType) =>
    kind !== undefined && acceptsType(kind, dtype);
  const right = inputs.length === wanted.length && inputs.every((x, i) => fits(wanted[i], x));
  if (!right || inputs.length === 0) {
    const expected = 'each' in kinds ? `inputs, each ${kinds.each}` : wanted.join(', ');
    throw shapeError(op, expected, ...inputs);
  }
}

/** Axis counted from the front; negative ones count from the back. Throws outside of the rank. */
export function axisOf(op: string, axis: number, rank: number): number {
  const found = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(found) || found < 0 || found >= rank) {
    throw new AppError('internal', `internal: ${op}: axis ${axis} of a tensor of rank ${rank}`);
  }
  return found;
}

/** The number of elements; null while it depends on a symbol. */
export function elementCount(shape: Shape): number | null {
  let product = 1;
  for (const dim of shape) {
    if (typeof dim === 'string') return null;
    product *= dim;
  }
  return product;
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
