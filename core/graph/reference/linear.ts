/** Matrix products of the slow twin: three nested loops. */
import type { linearOps } from '../ops/linear.ts';
import { at, expand, generate, sizeOf, type ReferenceGroup, type Tensor } from './tensor.ts';
import { broadcast } from '../tensor-type.ts';

function swapLast(x: Tensor): Tensor {
  const [rows, columns] = x.shape.slice(-2) as [number, number];
  const shape = [...x.shape.slice(0, -2), columns, rows];
  return generate(shape, (i) => {
    const [matrix, within] = [Math.floor(i / (rows * columns)), i % (rows * columns)];
    const [column, row] = [Math.floor(within / rows), within % rows];
    return at(x, matrix * rows * columns + row * columns + column);
  });
}

/** (.., n, k) times (.., k, m), leading axes broadcast. */
function product(a: Tensor, b: Tensor): Tensor {
  const [n, k] = a.shape.slice(-2) as [number, number];
  const m = b.shape.at(-1) as number;
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2)) as readonly number[];
  const left = expand(a, [...batch, n, k]).data;
  const right = expand(b, [...batch, k, m]).data;
  const data = new Float64Array(sizeOf(batch) * n * m);
  for (let matrix = 0; matrix < sizeOf(batch); matrix++) {
    for (let row = 0; row < n; row++) {
      for (let column = 0; column < m; column++) {
        let sum = 0;
        for (let i = 0; i < k; i++) {
          const x = left[(matrix * n + row) * k + i] as number;
          sum += x * (right[(matrix * k + i) * m + column] as number);
        }
        data[(matrix * n + row) * m + column] = sum;
      }
    }
  }
  return { shape: [...batch, n, m], data };
}

export const linear: ReferenceGroup<keyof typeof linearOps> = {
  matmul: ([a, b]) => [product(a as Tensor, b as Tensor)],
  matmulTransposed: ([a, b]) => [product(a as Tensor, swapLast(b as Tensor))],
  linear: ([x, w]) => [product(x as Tensor, swapLast(w as Tensor))],
  leftTransposed: ([a, b]) => [product(swapLast(a as Tensor), b as Tensor)],
};
