/** Ops that move elements without changing them. */
import { assert } from '../../assert.ts';
import type { Value } from '../graph.ts';
import { intVector, onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import type { OnnxNode } from '../onnx.ts';
import {
  addDims,
  axisOf,
  elementCount,
  shapeError,
  type Dim,
  type TensorType,
} from '../tensor-type.ts';

const END = Number.MAX_SAFE_INTEGER;

/** Slice of the last axis whose bound is the size of another tensor's last axis. */
function splitAt(node: Parameters<typeof onnxNode>[1], part: 'head' | 'tail'): OnnxNode[] {
  const [x, like] = node.inputs as [Value, Value];
  const size = scratchName(node, 'size');
  const rank = like.shape.length;
  const bounds =
    part === 'head' ? [intVector(node, [0]).name, size] : [size, intVector(node, [END]).name];
  return [
    {
      opType: 'Shape',
      inputs: [like.name],
      outputs: [size],
      attributes: { start: rank - 1, end: rank },
    },
    {
      opType: 'Slice',
      inputs: [x.name, ...bounds, intVector(node, [-1]).name],
      outputs: [(node.outputs[0] as Value).name],
    },
  ];
}

/** Where both counts of elements are known they must be equal. */
function refuseOtherCount(op: string, x: TensorType, to: TensorType): void {
  const [before, after] = [elementCount(x.shape), elementCount(to.shape)];
  if (before !== null && after !== null && before !== after) {
    throw shapeError(op, 'as many elements as before', x, to);
  }
}

function refuseScalars(op: string, x: Value, like: Value): void {
  const scalar = x.shape.length === 0 || like.shape.length === 0;
  if (scalar) throw shapeError(op, 'two tensors with a last axis', x, like);
}

const CACHE_ONLY = 'splits attention over a KV cache, which is never differentiated';

export const layoutOps: OpGroup<
  'transpose' | 'reshape' | 'reshapeLike' | 'unsqueeze' | 'concat' | 'head' | 'tail'
> = {
  transpose: {
    takes: ['any'],
    infer: ([x], { permutation }) => {
      const { dtype, shape } = x as Value;
      const once = shape.every((_, axis) => permutation.includes(axis));
      if (permutation.length !== shape.length || !once) {
        throw shapeError('transpose', `axes ${permutation.join()}`, x as Value);
      }
      return [{ dtype, shape: permutation.map((axis) => shape[axis] as Dim) }];
    },
    gradient: (ops, { params }, [grad]) => {
      const inverse = params.permutation.map((_, i) => params.permutation.indexOf(i));
      return [ops.transpose(grad as Value, inverse)];
    },
    lower: (node) => [onnxNode('Transpose', node, { perm: node.params.permutation })],
  },
  reshape: {
    takes: ['any'],
    infer: ([x], { sizes, inferred }) => {
      const { dtype, shape } = x as Value;
      const dims = sizes.map((size, i): Dim => {
        if (size === 0) return shape[i] as Dim;
        if (size > 0) return size;
        assert(inferred !== null, 'reshape: an inferred size needs a name');
        return inferred;
      });
      refuseOtherCount('reshape', x as Value, { dtype, shape: dims });
      return [{ dtype, shape: dims }];
    },
    gradient: (ops, { inputs }, [grad]) => [ops.reshapeLike(grad as Value, inputs[0] as Value)],
    lower: (node) => [onnxNode('Reshape', node, {}, [intVector(node, node.params.sizes)])],
  },
  reshapeLike: {
    takes: ['any', 'any'],
    infer: (inputs, { ownLast }) => {
      const [x, like] = inputs as [Value, Value];
      if (ownLast) refuseScalars('reshapeLike', x, like);
      const own = ownLast ? [x.shape.at(-1) as Dim] : [];
      const shape = [...like.shape.slice(0, like.shape.length - own.length), ...own];
      refuseOtherCount('reshapeLike', x, { dtype: x.dtype, shape });
      return [{ dtype: x.dtype, shape }];
    },
    gradient: (ops, { inputs }, [grad]) => [
      ops.reshapeLike(grad as Value, inputs[0] as Value),
      null,
    ],
    lower: (node) => {
      const [x, like] = node.inputs as [Value, Value];
      const [leading, shape] = [scratchName(node, 'leading'), scratchName(node, 'shape')];
      const output = (node.outputs[0] as Value).name;
      const last: OnnxNode[] = [
        { opType: 'Shape', inputs: [like.name], outputs: [leading], attributes: { end: -1 } },
        {
          opType: 'Concat',
          inputs: [leading, intVector(node, [-1]).name],
          outputs: [shape],
          attributes: { axis: 0 },
        },
      ];
      return [
        ...(node.params.ownLast
          ? last
          : [{ opType: 'Shape', inputs: [like.name], outputs: [shape] }]),
        { opType: 'Reshape', inputs: [x.name, shape], outputs: [output] },
      ];
    },
  },
  unsqueeze: {
    takes: ['any'],
    infer: ([x], { axes }) => {
      const { dtype, shape } = x as Value;
      const rank = shape.length + axes.length;
      const added = new Set(axes.map((axis) => axisOf('unsqueeze', axis, rank)));
      const rest = [...shape];
      const dims = Array.from({ length: rank }, (_, i) => (added.has(i) ? 1 : rest.shift()!));
      return [{ dtype, shape: dims }];
    },
    gradient: (ops, { inputs }, [grad]) => [ops.reshapeLike(grad as Value, inputs[0] as Value)],
    lower: (node) => [onnxNode('Unsqueeze', node, {}, [intVector(node, node.params.axes)])],
  },
  concat: {
    takes: { each: 'any' },
    infer: (inputs, { axis }) => {
      const first = inputs[0] as Value;
      const at = axisOf('concat', axis, first.shape.length);
      const dims = [...first.shape];
      for (const next of inputs.slice(1)) {
        const fits = next.shape.every((dim, i) => i === at || dim === first.shape[i]);
        const alike = next.dtype === first.dtype && next.shape.length === first.shape.length;
        if (!fits || !alike)
          throw shapeError('concat', `equal sizes but on axis ${at}`, first, next);
        dims[at] = addDims(dims[at] as Dim, next.shape[at] as Dim);
      }
      return [{ dtype: first.dtype, shape: dims }];
    },
    gradient: { none: CACHE_ONLY },
    lower: (node) => [onnxNode('Concat', node, { axis: node.params.axis })],
  },
  head: {
    takes: ['any', 'any'],
    infer: ([x, like]) => {
      refuseScalars('head', x as Value, like as Value);
      const { dtype, shape } = x as Value;
      return [{ dtype, shape: [...shape.slice(0, -1), (like as Value).shape.at(-1) as Dim] }];
    },
    gradient: { none: CACHE_ONLY },
    lower: (node) => splitAt(node, 'head'),
  },
  tail: {
    takes: ['any', 'any'],
    infer: ([x, like], { size }) => {
      refuseScalars('tail', x as Value, like as Value);
      const { dtype, shape } = x as Value;
      return [{ dtype, shape: [...shape.slice(0, -1), size] }];
    },
    gradient: { none: CACHE_ONLY },
    lower: (node) => splitAt(node, 'tail'),
  },
};
