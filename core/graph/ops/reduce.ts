/** Reductions and scans over axes. */
import type { Value } from '../graph.ts';
import { intVector, onnxNode } from '../lowering.ts';
import type { OpGroup, OpDefinition, OpName, OpParams, Ops } from '../op-table.ts';
import { axisOf, type Dim, type TensorType } from '../tensor-type.ts';

type ReduceName = 'reduceSum' | 'reduceMean' | 'reduceMax' | 'reduceMin';

function reduced(x: Value, { axes, keepDims }: OpParams['reduceSum']): TensorType {
  const gone = new Set(axes.map((axis) => axisOf(axis, x.shape.length)));
  const shape: Dim[] = [];
  x.shape.forEach((dim, i) => {
    if (!gone.has(i)) shape.push(dim);
    else if (keepDims) shape.push(1);
  });
  return { dtype: x.dtype, shape };
}

function reduction<K extends ReduceName>(
  onnx: string,
  gradient: OpDefinition<K>['gradient'],
): OpDefinition<K> {
  return {
    infer: ([x], params) => [reduced(x as Value, params)],
    gradient,
    lower: (node) => [
      onnxNode(onnx, node, { keepdims: node.params.keepDims ? 1 : 0 }, [
        intVector(node, node.params.axes),
      ]),
    ],
  };
}

/** Repeats a reduced gradient over the reduced axes. */
function spread(ops: Ops, x: Value, params: OpParams['reduceSum'], grad: Value): Value {
  const kept = params.keepDims ? grad : ops.unsqueeze(grad, params.axes);
  return ops.mul(kept, ops.onesLike(x));
}

/** Elements along the axes, as a float scalar made at run time: sizes may be symbols. */
function countAlong(ops: Ops, x: Value, axes: readonly number[]): Value {
  return axes
    .map((axis) => ops.cast(ops.dimension(x, axis), 'float32'))
    .reduce((product, size) => ops.mul(product, size));
}

const noGradient = <K extends OpName>(none: string): OpDefinition<K>['gradient'] => ({ none });

export const reduceOps: OpGroup<
  'reduceSum' | 'reduceMean' | 'reduceMax' | 'reduceMin' | 'cumSum' | 'argMax'
> = {
  reduceSum: reduction<'reduceSum'>('ReduceSum', (ops, { inputs, params }, [grad]) => [
    spread(ops, inputs[0] as Value, params, grad as Value),
  ]),
  reduceMean: reduction<'reduceMean'>('ReduceMean', (ops, { inputs, params }, [grad]) => {
    const x = inputs[0] as Value;
    return [ops.div(spread(ops, x, params, grad as Value), countAlong(ops, x, params.axes))];
  }),
  reduceMax: reduction<'reduceMax'>('ReduceMax', noGradient('used for sampling only')),
  reduceMin: reduction<'reduceMin'>('ReduceMin', noGradient('used for sampling only')),
  cumSum: {
    infer: ([x]) => [x as Value],
    gradient: { none: 'used for sampling only' },
    lower: (node) => {
      const axis = axisOf(node.params.axis, (node.inputs[0] as Value).shape.length);
      return [onnxNode('CumSum', node, {}, [intVector(node, [axis])])];
    },
  },
  argMax: {
    infer: ([x], { axis }) => {
      const { shape } = reduced(x as Value, { axes: [axis], keepDims: true });
      return [{ dtype: 'int64', shape }];
    },
    gradient: { none: 'an index has no gradient' },
    lower: (node) => [onnxNode('ArgMax', node, { axis: node.params.axis, keepdims: 1 })],
  },
};
