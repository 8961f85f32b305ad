/** Softmax family and RMSNorm. */
import type { Value } from '../graph.ts';
import { onnxNode, intVector, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { axisOf, sameShape, shapeError, type TensorType } from '../tensor-type.ts';

function alongAxis(op: string) {
  return (inputs: readonly Value[], { axis }: { axis: number }): TensorType[] => {
    const x = inputs[0] as Value;
    axisOf(op, axis, x.shape.length);
    return [x];
  };
}

export const normalizeOps: OpGroup<
  'softmax' | 'logSoftmax' | 'jointSoftmax' | 'rmsNorm' | 'tokenLogprob'
> = {
  softmax: {
    takes: ['float32'],
    infer: alongAxis('softmax'),
    gradient: (ops, { outputs, params }, [grad]) => {
      const p = outputs[0] as Value;
      const weighted = ops.mul(grad as Value, p);
      const total = ops.reduceSum(weighted, [params.axis], true);
      return [ops.sub(weighted, ops.mul(p, total))];
    },
    lower: (node) => [onnxNode('Softmax', node, { axis: node.params.axis })],
  },
  logSoftmax: {
    takes: ['float32'],
    infer: alongAxis('logSoftmax'),
    gradient: (ops, { outputs, params }, [grad]) => {
      const p = ops.exp(outputs[0] as Value);
      const total = ops.reduceSum(grad as Value, [params.axis], true);
      return [ops.sub(grad as Value, ops.mul(p, total))];
    },
    lower: (node) => [onnxNode('LogSoftmax', node, { axis: node.params.axis })],
  },
  jointSoftmax: {
    takes: ['float32', 'float32'],
    infer: (inputs) => {
      const [a, b] = inputs as [Value, Value];
      if (a.shape.length === 0 || !sameShape(a.shape.slice(0, -1), b.shape.slice(0, -1))) {
        throw shapeError('jointSoftmax', '(.., n) and (.., m)', a, b);
      }
      return [a, b];
    },
    // As softmax; the parts are never put together on the way back.
    gradient: (ops, { outputs }, grads) => {
      const weighted = outputs.map((p, i) => (grads[i] ? ops.mul(grads[i], p) : null));
      const sums = weighted.filter((x) => x !== null).map((x) => ops.reduceSum(x, [-1], true));
      const total = sums.reduce((sum, next) => ops.add(sum, next));
      return outputs.map((p, i) => {
        const own = weighted[i] ?? null;
        const shared = ops.mul(p, total);
        return own === null ? ops.neg(shared) : ops.sub(own, shared);
      });
    },
    lower: (node) => {
      const axis = (node.inputs[0] as Value).shape.length - 1;
      const scratch = (hint: string) => scratchName(node, hint);
      const [both, all, cuts] = [scratch('both'), scratch('all'), scratch('cuts')];
      const sizes = node.inputs.map(() => scratch('size'));
      const inputs = node.inputs.map(({ name }) => name);
      const outputs = node.outputs.map(({ name }) => name);
      const shapes = inputs.map((input, i) => ({
        opType: 'Shape',
        inputs: [input],
        outputs: [sizes[i] as string],
        attributes: { start: axis, end: axis + 1 },
      }));
      return [
        ...shapes,
        { opType: 'Concat', inputs, outputs: [both], attributes: { axis } },
        { opType: 'Softmax', inputs: [both], outputs: [all], attributes: { axis } },
        { opType: 'Concat', inputs: sizes, outputs: [cuts], attributes: { axis: 0 } },
        { opType: 'Split', inputs: [all, cuts], outputs, attributes: { axis } },
      ];
    },
  },
  rmsNorm: {
    takes: ['float32', 'float32'],
    infer: (inputs) => {
      const [x, gain] = inputs as [Value, Value];
      if (gain.shape.length !== 1 || gain.shape[0] !== x.shape.at(-1)) {
        throw shapeError('rmsNorm', '(.., D) and (D)', x, gain);
      }
      return [x];
    },
    // 1 / rms is computed anew: the fused kernel has it as a second output on CPU and CUDA, but
    // onnxruntime's WebGPU kernel leaves that output unwritten.
    gradient: (ops, { inputs, params }, [grad]) => {
      const [x, gain] = inputs as [Value, Value];
      const power = ops.reduceMean(ops.mul(x, x), [-1], true);
      const logPower = ops.log(ops.add(power, ops.scalar(x, params.epsilon)));
      const inverse = ops.exp(ops.mul(logPower, ops.scalar(x, -0.5)));
      const unit = ops.mul(x, inverse);
      const scaled = ops.mul(grad as Value, gain);
      const along = ops.reduceMean(ops.mul(scaled, unit), [-1], true);
      const dx = ops.mul(inverse, ops.sub(scaled, ops.mul(unit, along)));
      return [dx, ops.sumTo(ops.mul(grad as Value, unit), gain)];
    },
    // A fused kernel of onnxruntime, on CPU and WebGPU; it lives in the default domain.
    lower: (node) => [
      onnxNode('SimplifiedLayerNormalization', node, {
        axis: -1,
        epsilon: { float: node.params.epsilon },
        stash_type: 1,
      }),
    ],
  },
  tokenLogprob: {
    takes: ['float32', 'int64'],
    infer: (inputs) => {
      const [logits, ids] = inputs as [Value, Value];
      if (logits.shape.length === 0 || !sameShape(logits.shape.slice(0, -1), ids.shape)) {
        throw shapeError('tokenLogprob', 'logits (.., V) and ids (..)', logits, ids);
      }
      return [{ dtype: logits.dtype, shape: ids.shape }];
    },
    // d logits = g (onehot - softmax); the dense one-hot is never built.
    gradient: (ops, { inputs }, [grad]) => {
      const [logits, ids] = inputs as [Value, Value];
      const wide = ops.unsqueeze(grad as Value, [-1]);
      const spread = ops.neg(ops.mul(ops.softmax(logits, -1), wide));
      return [ops.scatterAddElements(spread, ops.unsqueeze(ids, [-1]), wide), null];
    },
    lower: (node) => {
      const [logits, ids] = node.inputs as [Value, Value];
      const axis = axisOf('tokenLogprob', -1, logits.shape.length);
      const last = intVector(node, [axis]).name;
      const [all, index, picked] = [0, 1, 2].map(() => scratchName(node, 'logprob'));
      return [
        {
          opType: 'LogSoftmax',
          inputs: [logits.name],
          outputs: [all as string],
          attributes: { axis },
        },
        { opType: 'Unsqueeze', inputs: [ids.name, last], outputs: [index as string] },
        {
          opType: 'GatherElements',
          inputs: [all as string, index as string],
          outputs: [picked as string],
          attributes: { axis },
        },
        {
          opType: 'Squeeze',
          inputs: [picked as string, last],
          outputs: [(node.outputs[0] as Value).name],
        },
      ];
    },
  },
};
