/** Ops that move elements without changing them. */
import { assert } from '../../assert.ts';
import type { Value } from '../graph.ts';
import { intVector, onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import type { OnnxNode } from '../onnx.ts';
import { addDims, axisOf, shapeError, type Dim } from '../tensor-type.ts';

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

const CACHE_ONLY = 'splits attention over a KV cache, which is never differentiated';

export const layoutOps: OpGroup<
  'transpose' | 'reshape' | 'reshapeLike' | 'unsqueeze' | 'squeeze' | 'concat' | 'head' | 'tail'
> = {
  transpose: {
    infer: ([x], { permutation }) => {
      const { dtype, shape } = x as Value;
      if (permutation.length !== shape.length) {
        throw shapeError('transpose', `rank ${permutation.length}`, x as Value);
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
    infer: ([x], { sizes, inferred }) => {
      const { dtype, shape } = x as Value;
      const dims = sizes.map((size, i): Dim => {
        if (size === 0) return shape[i] as Dim;
        if (size > 0) return size;
        assert(inferred !== null, 'reshape: an inferred size needs a name');
        return inferred;
      });
      return [{ dtype, shape: dims }];
    },
    gradient: (ops, { inputs }, [grad]) => [ops.reshapeLike(grad as Value, inputs[0] as Value)],
    lower: (node) => [onnxNode('Reshape', node, {}, [intVector(node, node.params.sizes)])],
  },
  reshapeLike: {
    infer: ([x, like]) => [{ dtype: (x as Value).dtype, shape: (like as Value).shape }],
    gradient: (ops, { inputs }, [grad]) => [
      ops.reshapeLike(grad as Value, inputs[0] as Value),
      null,
    ],
    lower: (node) => {
      const [x, like] = node.inputs as [Value, Value];
      const shape = scratchName(node, 'shape');
      return [
        { opType: 'Shape', inputs: [like.name], outputs: [shape] },
        { opType: 'Reshape', inputs: [x.name, shape], outputs: [(node.outputs[0] as Value).name] },
      ];
    },
  },
  unsqueeze: {
    infer: ([x], { axes }) => {
      const { dtype, shape } = x as Value;
      const rank = shape.length + axes.length;
      const added = new Set(axes.map((axis) => axisOf(axis, rank)));
      const rest = [...shape];
      const dims = Array.from({ length: rank }, (_, i) => (added.has(i) ? 1 : rest.shift()!));
      return [{ dtype, shape: dims }];
    },
    gradient: (ops, { inputs }, [grad]) => [ops.reshapeLike(grad as Value, inputs[0] as Value)],
    lower: (node) => [onnxNode('Unsqueeze', node, {}, [intVector(node, node.params.axes)])],
  },
  squeeze: {
    infer: ([x], { axes }) => {
      const { dtype, shape } = x as Value;
      const gone = new Set(axes.map((axis) => axisOf(axis, shape.length)));
      return [{ dtype, shape: shape.filter((_, i) => !gone.has(i)) }];
    },
    gradient: (ops, { inputs }, [grad]) => [ops.reshapeLike(grad as Value, inputs[0] as Value)],
    lower: (node) => [onnxNode('Squeeze', node, {}, [intVector(node, node.params.axes)])],
  },
  concat: {
    infer: (inputs, { axis }) => {
      const first = inputs[0] as Value;
      const at = axisOf(axis, first.shape.length);
      const dims = [...first.shape];
      for (const next of inputs.slice(1)) {
        const fits = next.shape.every((dim, i) => i === at || dim === first.shape[i]);
        if (!fits) throw shapeError('concat', `equal sizes but on axis ${at}`, first, next);
        dims[at] = addDims(dims[at] as Dim, next.shape[at] as Dim);
      }
      return [{ dtype: first.dtype, shape: dims }];
    },
    gradient: { none: CACHE_ONLY },
    lower: (node) => [onnxNode('Concat', node, { axis: node.params.axis })],
  },
  head: {
    infer: ([x, like]) => {
      const { dtype, shape } = x as Value;
      return [{ dtype, shape: [...shape.slice(0, -1), (like as Value).shape.at(-1) as Dim] }];
    },
    gradient: { none: CACHE_ONLY },
    lower: (node) => splitAt(node, 'head'),
  },
  tail: {
    infer: ([x], { size }) => {
      const { dtype, shape } = x as Value;
      return [{ dtype, shape: [...shape.slice(0, -1), size] }];
    },
    gradient: { none: CACHE_ONLY },
    lower: (node) => splitAt(node, 'tail'),
  },
};
