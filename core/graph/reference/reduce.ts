/** Reductions and scans of the slow twin. */
import type { reduceOps } from '../ops/reduce.ts';
import { mapLines, positive, type ReferenceGroup, type Tensor } from './tensor.ts';

type Params = { axes: readonly number[]; keepDims: boolean };

/** Folds one axis after the other. */
function reduction(fold: (line: Float64Array) => number) {
  return ([input]: readonly Tensor[], { axes, keepDims }: Params): Tensor[] => {
    const x = input as Tensor;
    const gone = axes.map((axis) => positive(axis, x.shape.length));
    const kept = gone.reduce(
      (partial, axis) => mapLines(partial, axis, (line) => [fold(line)], 1),
      x,
    );
    const shape = kept.shape.filter((_, axis) => keepDims || !gone.includes(axis));
    return [{ shape, data: kept.data }];
  };
}

const sum = (line: Float64Array) => line.reduce((total, x) => total + x, 0);

export const reduce: ReferenceGroup<keyof typeof reduceOps> = {
  reduceSum: reduction(sum),
  // Lines of one axis are equally long, so a mean of means is the mean.
  reduceMean: reduction((line) => sum(line) / line.length),
  reduceMax: reduction((line) => Math.max(...line)),
  reduceMin: reduction((line) => Math.min(...line)),
  cumSum: ([x], { axis }) => [
    mapLines(x as Tensor, axis, (line) => {
      let total = 0;
      return line.map((value) => (total += value));
    }),
  ],
  argMax: ([x], { axis }) => [
    mapLines(x as Tensor, axis, (line) => [line.indexOf(Math.max(...line))], 1),
  ],
};
