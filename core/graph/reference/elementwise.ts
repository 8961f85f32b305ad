/** Elementwise ops of the slow twin. */
import { fromHalf, toHalf } from '../../half.ts';
import type { OpName } from '../op-table.ts';
import type { elementwiseOps } from '../ops/elementwise.ts';
import { at, expandAll, generate, type ReferenceGroup, type Tensor } from './tensor.ts';

function binary(f: (a: number, b: number) => number) {
  return (inputs: readonly Tensor[]): Tensor[] => {
    const [a, b] = expandAll(...inputs) as [Tensor, Tensor];
    return [generate(a.shape, (i) => f(at(a, i), at(b, i)))];
  };
}

function unary(f: (x: number) => number) {
  return ([x]: readonly Tensor[]): Tensor[] => [
    generate((x as Tensor).shape, (i) => f(at(x as Tensor, i))),
  ];
}

const CAST = {
  float16: (x: number) => fromHalf(toHalf(Float32Array.of(x)))[0] as number,
  float32: (x: number) => x,
  int64: Math.trunc,
  bool: (x: number) => Number(x !== 0),
};

export const elementwise: ReferenceGroup<keyof typeof elementwiseOps & OpName> = {
  add: binary((a, b) => a + b),
  sub: binary((a, b) => a - b),
  mul: binary((a, b) => a * b),
  div: binary((a, b) => a / b),
  min: binary(Math.min),
  max: binary(Math.max),
  less: binary((a, b) => Number(a < b)),
  lessOrEqual: binary((a, b) => Number(a <= b)),
  equal: binary((a, b) => Number(a === b)),
  and: binary((a, b) => a && b),
  or: binary((a, b) => a || b),
  not: unary((x) => 1 - x),
  neg: unary((x) => -x),
  exp: unary(Math.exp),
  log: unary(Math.log),
  sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  silu: unary((x) => x / (1 + Math.exp(-x))),
  stopGradient: unary((x) => x),
  where: (inputs) => {
    const [condition, a, b] = expandAll(...inputs) as [Tensor, Tensor, Tensor];
    return [generate(a.shape, (i) => (at(condition, i) ? at(a, i) : at(b, i)))];
  },
  clip: (inputs) => {
    const [x, low, high] = inputs as [Tensor, Tensor, Tensor];
    return [generate(x.shape, (i) => Math.min(Math.max(at(x, i), at(low, 0)), at(high, 0)))];
  },
  cast: (inputs, { to }) => unary(CAST[to])(inputs),
};
