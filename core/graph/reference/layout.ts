/** Ops of the slow twin that move elements. */
import type { layoutOps } from '../ops/layout.ts';
import {
  at,
  flatIndex,
  generate,
  indicesOf,
  mapLines,
  positive,
  sizeOf,
  type ReferenceGroup,
  type Tensor,
} from './tensor.ts';

function concat(parts: readonly Tensor[], axis: number): Tensor {
  const first = parts[0] as Tensor;
  const along = positive(axis, first.shape.length);
  const total = parts.reduce((sum, part) => sum + (part.shape[along] as number), 0);
  const shape = first.shape.map((dim, i) => (i === along ? total : dim));
  return generate(shape, (i) => {
    const indices = indicesOf(shape, i);
    for (const part of parts) {
      const size = part.shape[along] as number;
      if ((indices[along] as number) < size) return at(part, flatIndex(part.shape, indices));
      (indices[along] as number) -= size;
    }
    return NaN;
  });
}

export const layout: ReferenceGroup<keyof typeof layoutOps> = {
  transpose: ([input], { permutation }) => {
    const x = input as Tensor;
    const shape = permutation.map((axis) => x.shape[axis] as number);
    return [
      generate(shape, (i) => {
        const indices = indicesOf(shape, i);
        const from = x.shape.map((_, axis) => indices[permutation.indexOf(axis)] as number);
        return at(x, flatIndex(x.shape, from));
      }),
    ];
  },
  reshape: ([input], { sizes }) => {
    const { shape, data } = input as Tensor;
    const copied = sizes.map((size, i) => (size === 0 ? (shape[i] as number) : size));
    const known = sizeOf(copied.filter((size) => size !== -1));
    return [{ shape: copied.map((size) => (size === -1 ? data.length / known : size)), data }];
  },
  reshapeLike: (inputs, { ownLast }) => {
    const [x, like] = inputs as [Tensor, Tensor];
    const shape = ownLast ? like.shape.with(-1, x.shape.at(-1) as number) : like.shape;
    return [{ shape, data: x.data }];
  },
  unsqueeze: ([input], { axes }) => {
    const { shape, data } = input as Tensor;
    const rank = shape.length + axes.length;
    const out = [...shape];
    // From the front, each new axis stands where the final shape has it.
    const added = axes.map((axis) => positive(axis, rank)).sort((a, b) => a - b);
    for (const axis of added) out.splice(axis, 0, 1);
    return [{ shape: out, data }];
  },
  concat: (parts, { axis }) => [concat(parts, axis)],
  head: ([x, like]) => {
    const size = (like as Tensor).shape.at(-1) as number;
    return [mapLines(x as Tensor, -1, (line) => line.subarray(0, size), size)];
  },
  tail: ([x, like]) => {
    const size = (like as Tensor).shape.at(-1) as number;
    const rest = ((x as Tensor).shape.at(-1) as number) - size;
    return [mapLines(x as Tensor, -1, (line) => line.subarray(size), rest)];
  },
};
