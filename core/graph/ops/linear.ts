/** Matrix products. Gradients are products again, written so that no weight is transposed twice. */
import type { Value } from '../graph.ts';
import { onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { broadcast, shapeError } from '../tensor-type.ts';

export const linearOps: OpGroup<'matmul' | 'matmulTransposed' | 'linear' | 'leftTransposed'> = {
  matmul: {
    takes: ['float', 'float'],
    infer: (inputs) => {
      const [a, b] = inputs as [Value, Value];
      const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
      const fits = a.shape.at(-1) === b.shape.at(-2) && a.dtype === b.dtype;
      if (a.shape.length < 2 || b.shape.length < 2 || !batch || !fits) {
        throw shapeError('matmul', '(.., n, k) and (.., k, m)', a, b);
      }
      return [{ dtype: a.dtype, shape: [...batch, a.shape.at(-2)!, b.shape.at(-1)!] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [a, b] = inputs as [Value, Value];
      const da = ops.matmul(grad as Value, ops.transposeLast(b));
      const db = ops.matmul(ops.transposeLast(a), grad as Value);
      return [ops.sumTo(da, a), ops.sumTo(db, b)];
    },
    lower: (node) => [onnxNode('MatMul', node)],
  },
  matmulTransposed: {
    takes: ['float', 'float'],
    infer: (inputs) => {
      const [a, b] = inputs as [Value, Value];
      const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
      const sameRank = a.shape.length === b.shape.length && a.shape.length >= 2;
      if (!sameRank || a.dtype !== b.dtype || !batch || a.shape.at(-1) !== b.shape.at(-1)) {
        throw shapeError('matmulTransposed', '(.., n, k) and (.., m, k)', a, b);
      }
      return [{ dtype: a.dtype, shape: [...batch, a.shape.at(-2)!, b.shape.at(-2)!] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [a, b] = inputs as [Value, Value];
      const da = ops.matmul(grad as Value, b);
      const db = ops.matmul(ops.transposeLast(grad as Value), a);
      return [ops.sumTo(da, a), ops.sumTo(db, b)];
    },
    // The transpose stands beside the product, in a loop's body too, so onnxruntime folds it away:
    // its kernel for one row of `a` then reads `b` once, in order.
    lower: (node) => {
      const [a, b] = node.inputs as [Value, Value];
      const turned = scratchName(node, 'turned');
      const axes = b.shape.map((_, i) => i);
      const perm = [...axes.slice(0, -2), axes.length - 1, axes.length - 2];
      return [
        { opType: 'Transpose', inputs: [b.name], outputs: [turned], attributes: { perm } },
        { opType: 'MatMul', inputs: [a.name, turned], outputs: [node.outputs[0]!.name] },
      ];
    },
  },
  linear: {
    takes: ['float', 'float'],
    infer: (inputs) => {
      const [x, w] = inputs as [Value, Value];
      const matrices = w.shape.length === 2 && x.shape.length >= 2 && x.dtype === w.dtype;
      if (!matrices || x.shape.at(-1) !== w.shape[1]) {
        throw shapeError('linear', '(.., n, in) and (out, in)', x, w);
      }
      return [{ dtype: x.dtype, shape: [...x.shape.slice(0, -1), w.shape[0]!] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [x, w] = inputs as [Value, Value];
      const rows = (value: Value, width: number) => ops.reshape(value, [-1, width], 'rows');
      const [out, width] = w.shape as [number, number];
      const dw = ops.leftTransposed(rows(grad as Value, out), rows(x, width));
      return [ops.matmul(grad as Value, w), dw];
    },
    // onnxruntime folds the transpose into the product, or into the stored weight of an
    // initialiser.
    lower: (node) => {
      const [x, w] = node.inputs as [Value, Value];
      if (x.graph.fusedLinear) {
        return [{ ...onnxNode('FusedMatMul', node, { transB: 1 }), domain: 'com.microsoft' }];
      }
      const turned = scratchName(node, 'turned');
      return [
        {
          opType: 'Transpose',
          inputs: [w.name],
          outputs: [turned],
          attributes: { perm: [1, 0] },
        },
        { opType: 'MatMul', inputs: [x.name, turned], outputs: [node.outputs[0]!.name] },
      ];
    },
  },
  leftTransposed: {
    takes: ['float32', 'float32'],
    infer: (inputs) => {
      const [a, b] = inputs as [Value, Value];
      if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[0] !== b.shape[0]) {
        throw shapeError('leftTransposed', '(k, n) and (k, m)', a, b);
      }
      return [{ dtype: a.dtype, shape: [a.shape[1]!, b.shape[1]!] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [a, b] = inputs as [Value, Value];
      return [ops.matmul(b, ops.transposeLast(grad as Value)), ops.matmul(a, grad as Value)];
    },
    lower: (node) => [onnxNode('Gemm', node, { transA: 1 })],
  },
};
