/** Softmax family and RMSNorm of the slow twin. */
import type { normalizeOps } from '../ops/normalize.ts';
import { at, generate, mapLines, type ReferenceGroup, type Tensor } from './tensor.ts';

function logSoftmax(line: Float64Array): Float64Array {
  const largest = Math.max(...line);
  const total = line.reduce((sum, x) => sum + Math.exp(x - largest), 0);
  return line.map((x) => x - largest - Math.log(total));
}

export const normalize: ReferenceGroup<keyof typeof normalizeOps> = {
  softmax: ([x], { axis }) => [
    mapLines(x as Tensor, axis, (line) => logSoftmax(line).map(Math.exp)),
  ],
  logSoftmax: ([x], { axis }) => [mapLines(x as Tensor, axis, logSoftmax)],
  rmsNorm: ([x, gain], { epsilon }) => {
    const scaled = (line: Float64Array) => {
      const power = line.reduce((sum, v) => sum + v * v, 0) / line.length;
      return line.map((v, i) => (v / Math.sqrt(power + epsilon)) * at(gain as Tensor, i));
    };
    return [mapLines(x as Tensor, -1, scaled)];
  },
  tokenLogprob: (inputs) => {
    const [logits, ids] = inputs as [Tensor, Tensor];
    const all = mapLines(logits, -1, logSoftmax);
    const vocabulary = logits.shape.at(-1) as number;
    return [generate(ids.shape, (i) => at(all, i * vocabulary + at(ids, i)))];
  },
};
