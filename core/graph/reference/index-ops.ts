/** Gather, scatter and sizes of the slow twin. */
import type { indexOps } from '../ops/index-ops.ts';
import {
  at,
  generate,
  mapLines,
  positive,
  scalar,
  sizeOf,
  type ReferenceGroup,
  type Tensor,
} from './tensor.ts';

export const indexing: ReferenceGroup<keyof typeof indexOps> = {
  gather: (inputs) => {
    const [table, ids] = inputs as [Tensor, Tensor];
    const row = table.shape.slice(1);
    const width = sizeOf(row);
    return [
      generate([...ids.shape, ...row], (i) =>
        at(table, at(ids, Math.floor(i / width)) * width + (i % width)),
      ),
    ];
  },
  scatterAddRows: (inputs) => {
    const [ids, rows, { shape }] = inputs as [Tensor, Tensor, Tensor];
    const width = sizeOf(shape.slice(1));
    const data = new Float64Array(sizeOf(shape));
    rows.data.forEach((value, i) => {
      (data[at(ids, Math.floor(i / width)) * width + (i % width)] as number) += value;
    });
    return [{ shape, data }];
  },
  moveRows: (inputs) => {
    const [x, index] = inputs as [Tensor, Tensor];
    const row = x.shape.slice(1);
    const width = sizeOf(row);
    return [
      generate([...index.shape, ...row], (i) => {
        const from = at(index, Math.floor(i / width));
        return from < 0 ? 0 : at(x, from * width + (i % width));
      }),
    ];
  },
  gatherElements: (inputs) => {
    const [x, index] = inputs as [Tensor, Tensor];
    const [width, taken] = [x.shape.at(-1) as number, index.shape.at(-1) as number];
    return [generate(index.shape, (i) => at(x, Math.floor(i / taken) * width + at(index, i)))];
  },
  scatterAddElements: (inputs) => {
    const [x, index, updates] = inputs as [Tensor, Tensor, Tensor];
    const [width, taken] = [x.shape.at(-1) as number, index.shape.at(-1) as number];
    const data = x.data.slice();
    updates.data.forEach((value, i) => {
      (data[Math.floor(i / taken) * width + at(index, i)] as number) += value;
    });
    return [{ shape: x.shape, data }];
  },
  topK: (inputs) => {
    const [x, k] = inputs as [Tensor, Tensor];
    const size = at(k, 0);
    // A stable sort: of equal values the first comes first.
    const order = (line: Float64Array) =>
      [...line.keys()].sort((a, b) => (line[b] as number) - (line[a] as number)).slice(0, size);
    return [
      mapLines(x, -1, (line) => order(line).map((i) => line[i] as number), size),
      mapLines(x, -1, order, size),
    ];
  },
  dimension: ([x], { axis }) => {
    const { shape } = x as Tensor;
    return [scalar(shape[positive(axis, shape.length)] as number)];
  },
  zerosFor: ([like], { shape }) => [
    generate([(like as Tensor).shape[0] as number, ...shape], () => 0),
  ],
};
