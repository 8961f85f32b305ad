/** Gather, scatter and sizes. */
import type { Value } from '../graph.ts';
import type { OnnxNode } from '../onnx.ts';
import { intVector, onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { axisOf, shapeError, type Dim } from '../tensor-type.ts';

export const indexOps: OpGroup<
  | 'gather'
  | 'scatterAddRows'
  | 'gatherElements'
  | 'scatterAddElements'
  | 'topK'
  | 'dimension'
  | 'zerosFor'
> = {
  gather: {
    infer: ([table, ids]) => {
      if (!table || ids?.dtype !== 'int64') throw shapeError('gather', 'a table and int64 ids');
      return [{ dtype: table.dtype, shape: [...ids.shape, ...table.shape.slice(1)] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [table, ids] = inputs as [Value, Value];
      const [count, width] = table.shape as [number, number];
      const rows = ops.reshape(grad as Value, [-1, width], 'rows');
      return [ops.scatterAddRows(ops.reshape(ids, [-1, 1], 'rows'), rows, count), null];
    },
    lower: (node) => [onnxNode('Gather', node, { axis: 0 })],
  },
  scatterAddRows: {
    infer: ([ids, rows], { count }) => {
      if (ids?.shape.length !== 2 || rows?.shape.length !== 2) {
        throw shapeError('scatterAddRows', 'ids (n, 1) and rows (n, D)');
      }
      return [{ dtype: rows.dtype, shape: [count, rows.shape[1] as Dim] }];
    },
    gradient: { none: 'it is itself a gradient, and no second derivative is taken' },
    lower: (node) => {
      const [ids, rows] = node.inputs as [Value, Value];
      const zeros = scratchName(node, 'zeros');
      const size = intVector(node, (node.outputs[0] as Value).shape as number[]);
      return [
        { opType: 'ConstantOfShape', inputs: [size.name], outputs: [zeros] },
        {
          opType: 'ScatterND',
          inputs: [zeros, ids.name, rows.name],
          outputs: [(node.outputs[0] as Value).name],
          attributes: { reduction: 'add' },
        },
      ];
    },
  },
  gatherElements: {
    infer: ([x, index]) => [{ dtype: (x as Value).dtype, shape: (index as Value).shape }],
    gradient: { none: 'used for sampling; training uses tokenLogprob' },
    lower: (node) => [onnxNode('GatherElements', node, { axis: -1 })],
  },
  scatterAddElements: {
    infer: ([x]) => [x as Value],
    gradient: { none: 'it is itself a gradient, and no second derivative is taken' },
    lower: (node) => [onnxNode('ScatterElements', node, { axis: -1, reduction: 'add' })],
  },
  topK: {
    infer: ([x], { size }) => {
      const shape = [...(x as Value).shape.slice(0, -1), size];
      return [
        { dtype: (x as Value).dtype, shape },
        { dtype: 'int64', shape },
      ];
    },
    gradient: { none: 'used for sampling only' },
    lower: (node) => [onnxNode('TopK', node, { axis: -1, largest: 1, sorted: 1 })],
  },
  dimension: {
    infer: () => [{ dtype: 'int64', shape: [] }],
    gradient: { none: 'a size has no gradient' },
    lower: (node) => {
      const x = node.inputs[0] as Value;
      const axis = axisOf(node.params.axis, x.shape.length);
      const size = scratchName(node, 'size');
      return [
        {
          opType: 'Shape',
          inputs: [x.name],
          outputs: [size],
          attributes: { start: axis, end: axis + 1 },
        },
        {
          opType: 'Squeeze',
          inputs: [size, intVector(node, [0]).name],
          outputs: [(node.outputs[0] as Value).name],
        },
      ];
    },
  },
  zerosFor: {
    infer: ([like], { shape }) => [
      { dtype: 'float32', shape: [(like as Value).shape[0] as Dim, ...shape] },
    ],
    gradient: { none: 'a constant has no gradient' },
    lower: (node) => {
      const [first, size] = [scratchName(node, 'size'), scratchName(node, 'size')];
      const nodes: OnnxNode[] = [
        {
          opType: 'Shape',
          inputs: [(node.inputs[0] as Value).name],
          outputs: [first],
          attributes: { start: 0, end: 1 },
        },
        {
          opType: 'Concat',
          inputs: [first, intVector(node, node.params.shape).name],
          outputs: [size],
          attributes: { axis: 0 },
        },
        {
          opType: 'ConstantOfShape',
          inputs: [size],
          outputs: [(node.outputs[0] as Value).name],
        },
      ];
      return nodes;
    },
  },
};
