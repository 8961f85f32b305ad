/**
 * Rotary position embedding as one op: onnxruntime has a kernel for it on every provider, where the
 * formula in elementwise ops takes six passes over the states and six nodes a step of decoding.
 */
import type { Value } from '../graph.ts';
import { onnxNode } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { sameShape, shapeError } from '../tensor-type.ts';

export const rotaryOps: OpGroup<'rotary'> = {
  rotary: {
    takes: ['float32', 'int64', 'float32', 'float32'],
    infer: (inputs) => {
      const [x, places, cosines, sines] = inputs as [Value, Value, Value, Value];
      const [width, half] = [x.shape.at(-1), cosines.shape.at(-1)];
      const fits =
        x.shape.length === 3 &&
        cosines.shape.length === 2 &&
        typeof width === 'number' &&
        typeof half === 'number' &&
        width % (2 * half) === 0 &&
        sameShape(places.shape, x.shape.slice(0, 2)) &&
        sameShape(sines.shape, cosines.shape);
      if (!fits) {
        throw shapeError('rotary', '(B, T, n*d), (B, T) and two of (P, d/2)', ...inputs);
      }
      return [x];
    },
    // A rotation times a gain: its transpose turns the other way.
    gradient: (ops, { inputs }, [grad]) => {
      const [, places, cosines, sines] = inputs as [Value, Value, Value, Value];
      return [ops.rotary(grad as Value, places, cosines, ops.neg(sines)), null, null, null];
    },
    lower: (node) => [{ ...onnxNode('RotaryEmbedding', node), domain: 'com.microsoft' }],
  },
};
