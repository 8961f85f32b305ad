/** Gather, scatter and sizes. */
import type { Value } from '../graph.ts';
import type { OnnxNode } from '../onnx.ts';
import { intVector, onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { axisOf, sameShape, shapeError } from '../tensor-type.ts';

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
    takes: ['any', 'int64'],
    infer: (inputs) => {
      const [table, ids] = inputs as [Value, Value];
      if (table.shape.length === 0) throw shapeError('gather', 'a table with rows', table, ids);
      return [{ dtype: table.dtype, shape: [...ids.shape, ...table.shape.slice(1)] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [table, ids] = inputs as [Value, Value];
      if (table.shape.length !== 2) throw shapeError('gather', 'a matrix to differentiate', table);
      const [count, width] = table.shape as [number, number];
      const rows = ops.reshape(grad as Value, [-1, width], 'rows');
      return [ops.scatterAddRows(ops.reshape(ids, [-1, 1], 'rows'), rows, count), null];
    },
    lower: (node) => [onnxNode('Gather', node, { axis: 0 })],
  },
  scatterAddRows: {
    takes: ['int64', 'float32'],
    infer: (inputs, { count }) => {
      const [ids, rows] = inputs as [Value, Value];
      const fits = ids.shape.length === 2 && ids.shape[1] === 1 && ids.shape[0] === rows.shape[0];
      if (!fits || rows.shape.length !== 2 || typeof rows.shape[1] !== 'number') {
        throw shapeError('scatterAddRows', 'ids (n, 1) and rows (n, D)', ids, rows);
      }
      return [{ dtype: rows.dtype, shape: [count, rows.shape[1]] }];
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
    takes: ['any', 'int64'],
    infer: (inputs) => {
      const [x, index] = inputs as [Value, Value];
      const leading = sameShape(x.shape.slice(0, -1), index.shape.slice(0, -1));
      if (x.shape.length === 0 || x.shape.length !== index.shape.length || !leading) {
        throw shapeError('gatherElements', '(.., V) and (.., n)', x, index);
      }
      return [{ dtype: x.dtype, shape: index.shape }];
    },
    gradient: { none: 'used for sampling; training uses tokenLogprob' },
    lower: (node) => [onnxNode('GatherElements', node, { axis: -1 })],
  },
  scatterAddElements: {
    takes: ['float32', 'int64', 'float32'],
    infer: (inputs) => {
      const [x, index, updates] = inputs as [Value, Value, Value];
      const leading = sameShape(x.shape.slice(0, -1), index.shape.slice(0, -1));
      if (
        x.shape.length !== index.shape.length ||
        !sameShape(index.shape, updates.shape) ||
        !leading
      ) {
        throw shapeError('scatterAddElements', '(.., V) and twice (.., n)', x, index, updates);
      }
      return [x];
    },
    gradient: { none: 'it is itself a gradient, and no second derivative is taken' },
    lower: (node) => [onnxNode('ScatterElements', node, { axis: -1, reduction: 'add' })],
  },
  topK: {
    takes: ['float32', 'int64'],
    infer: ([x], { size }) => {
      const width = (x as Value).shape.at(-1);
      if (width === undefined || (typeof width === 'number' && Number(size) > width)) {
        throw shapeError('topK', `a last axis of at least ${size}`, x as Value);
      }
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
    takes: ['any'],
    infer: ([x], { axis }) => {
      axisOf('dimension', axis, (x as Value).shape.length);
      return [{ dtype: 'int64', shape: [] }];
    },
    gradient: { none: 'a size has no gradient' },
    lower: (node) => {
      const x = node.inputs[0] as Value;
      const axis = axisOf('dimension', node.params.axis, x.shape.length);
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
    takes: ['any'],
    infer: ([like], { shape }) => {
      const first = (like as Value).shape[0];
      if (first === undefined) throw shapeError('zerosFor', 'a first axis', like as Value);
      return [{ dtype: 'float32', shape: [first, ...shape] }];
    },
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
