/** Softmax family and RMSNorm of the slow twin. */
import type { normalizeOps } from '../ops/normalize.ts';
import { at, generate, mapLines, sizeOf, type ReferenceGroup, type Tensor } from './tensor.ts';

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
  jointSoftmax: (inputs) => {
    const parts = inputs.map((x) => ({ x, width: x.shape.at(-1) as number }));
    const lines = sizeOf(parts[0]?.x.shape.slice(0, -1) as number[]);
    const outputs = parts.map(({ x }) => ({
      shape: x.shape,
      data: new Float64Array(x.data.length),
    }));
    for (let line = 0; line < lines; line++) {
      const values = parts.flatMap(({ x, width }) => [
        ...x.data.subarray(line * width, (line + 1) * width),
      ]);
      const soft = logSoftmax(Float64Array.from(values)).map(Math.exp);
      let from = 0;
      parts.forEach(({ width }, i) => {
        outputs[i]?.data.set(soft.subarray(from, from + width), line * width);
        from += width;
      });
    }
    return outputs;
  },
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
