/** Reductions and scans over axes. */
import type { Value } from '../graph.ts';
import { intVector, onnxNode } from '../lowering.ts';
import type { OpGroup, OpDefinition, OpName, OpParams, Ops } from '../op-table.ts';
import { axisOf, type Dim, type InputKind, type TensorType } from '../tensor-type.ts';

type ReduceName = 'reduceSum' | 'reduceMean' | 'reduceMax' | 'reduceMin';

function reduced(op: string, x: Value, params: OpParams['reduceSum']): TensorType {
  const { axes, keepDims } = params;
  const gone = new Set(axes.map((axis) => axisOf(op, axis, x.shape.length)));
  const shape: Dim[] = [];
  x.shape.forEach((dim, i) => {
    if (!gone.has(i)) shape.push(dim);
    else if (keepDims) shape.push(1);
  });
  return { dtype: x.dtype, shape };
}

function reduction<K extends ReduceName>(
  op: K,
  onnx: string,
  kind: InputKind,
  gradient: OpDefinition<K>['gradient'],
): OpDefinition<K> {
  return {
    takes: [kind],
    infer: ([x], params) => [reduced(op, x as Value, params)],
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
  reduceSum: reduction<'reduceSum'>(
    'reduceSum',
    'ReduceSum',
    'number',
    (ops, { inputs, params }, [grad]) => [spread(ops, inputs[0] as Value, params, grad as Value)],
  ),
  reduceMean: reduction<'reduceMean'>(
    'reduceMean',
    'ReduceMean',
    'float32',
    (ops, { inputs, params }, [grad]) => {
      const x = inputs[0] as Value;
      return [ops.div(spread(ops, x, params, grad as Value), countAlong(ops, x, params.axes))];
    },
  ),
  reduceMax: reduction<'reduceMax'>(
    'reduceMax',
    'ReduceMax',
    'number',
    noGradient('used for sampling only'),
  ),
  reduceMin: reduction<'reduceMin'>(
    'reduceMin',
    'ReduceMin',
    'number',
    noGradient('used for sampling only'),
  ),
  cumSum: {
    takes: ['float32'],
    infer: (inputs, { axis }) => {
      const x = inputs[0] as Value;
      axisOf('cumSum', axis, x.shape.length);
      return [x];
    },
    gradient: { none: 'used for sampling only' },
    lower: (node) => {
      const axis = axisOf('cumSum', node.params.axis, (node.inputs[0] as Value).shape.length);
      return [onnxNode('CumSum', node, {}, [intVector(node, [axis])])];
    },
  },
  argMax: {
    takes: ['float32'],
    infer: ([x], { axis }) => {
      const { shape } = reduced('argMax', x as Value, { axes: [axis], keepDims: true });
      return [{ dtype: 'int64', shape }];
    },
    gradient: { none: 'an index has no gradient' },
    lower: (node) => [onnxNode('ArgMax', node, { axis: node.params.axis, keepdims: 1 })],
  },
};
