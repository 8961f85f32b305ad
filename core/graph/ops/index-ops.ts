/** Gather, scatter and sizes. */
import type { Value } from '../graph.ts';
import type { OnnxNode } from '../onnx.ts';
import { intVector, onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { axisOf, sameShape, shapeError } from '../tensor-type.ts';

export const indexOps: OpGroup<
  | 'gather'
  | 'scatterAddRows'
  | 'moveRows'
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
      const width = table.shape.slice(1);
      if (width.some((dim) => typeof dim === 'string')) {
        throw shapeError('gather', 'rows of a fixed shape to differentiate', table);
      }
      const rows = ops.reshape(grad as Value, [-1, ...(width as number[])], 'rows');
      return [ops.scatterAddRows(ops.reshape(ids, [-1, 1], 'rows'), rows, table), null];
    },
    lower: (node) => [onnxNode('Gather', node, { axis: 0 })],
  },
  scatterAddRows: {
    takes: ['int64', 'float32', 'float32'],
    infer: (inputs) => {
      const [ids, rows, table] = inputs as [Value, Value, Value];
      const fits = ids.shape.length === 2 && ids.shape[1] === 1 && ids.shape[0] === rows.shape[0];
      if (!fits || !sameShape(rows.shape.slice(1), table.shape.slice(1))) {
        throw shapeError('scatterAddRows', 'ids (n, 1), rows (n, ..), table', ids, rows, table);
      }
      return [{ dtype: rows.dtype, shape: table.shape }];
    },
    gradient: { none: 'it is itself a gradient, and no second derivative is taken' },
    lower: (node) => {
      const [ids, rows, table] = node.inputs as [Value, Value, Value];
      const scratch = (hint: string) => scratchName(node, hint);
      const [shape, zeros] = [scratch('shape'), scratch('zeros')];
      const [deep, size, index] = [scratch('deep'), scratch('size'), scratch('index')];
      const flat = rows.shape.length === 1;
      const axes = intVector(node, flat ? [1] : rows.shape.slice(2).map((_, i) => i + 2)).name;
      // ScatterND would take whole rows, but onnxruntime adds those on several threads without a
      // lock: of two rows for one place one may be lost, another one a run.
      return [
        { opType: 'Shape', inputs: [table.name], outputs: [shape] },
        { opType: 'ConstantOfShape', inputs: [shape], outputs: [zeros] },
        { opType: flat ? 'Squeeze' : 'Unsqueeze', inputs: [ids.name, axes], outputs: [deep] },
        { opType: 'Shape', inputs: [rows.name], outputs: [size] },
        { opType: 'Expand', inputs: [deep, size], outputs: [index] },
        {
          opType: 'ScatterElements',
          inputs: [zeros, index, rows.name],
          outputs: [(node.outputs[0] as Value).name],
          attributes: { axis: 0, reduction: 'add' },
        },
      ];
    },
  },
  moveRows: {
    takes: ['float32', 'int64', 'int64'],
    infer: (inputs) => {
      const [x, index, inverse] = inputs as [Value, Value, Value];
      const fits = index.shape.length > 0 && sameShape(inverse.shape, x.shape.slice(0, 1));
      if (x.shape.length < 2 || !fits) {
        throw shapeError('moveRows', '(n, ..), an index and (n)', x, index, inverse);
      }
      return [{ dtype: x.dtype, shape: [...index.shape, ...x.shape.slice(1)] }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [x, index, inverse] = inputs as [Value, Value, Value];
      const row = x.shape.slice(1);
      if (row.some((dim) => typeof dim === 'string')) {
        throw shapeError('moveRows', 'rows of a fixed shape to differentiate', x);
      }
      const rows = ops.reshape(grad as Value, [-1, ...(row as number[])], 'rows');
      return [ops.moveRows(rows, inverse, ops.reshape(index, [-1], 'rows')), null, null];
    },
    lower: (node) => {
      const [x, index] = node.inputs as [Value, Value];
      const zero = node.outputs[0]!.graph.constant(0, 'int64').name;
      const scratch = (hint: string) => scratchName(node, hint);
      const [taken, kept] = [scratch('taken'), scratch('kept')];
      const [factor, wide] = [scratch('factor'), scratch('wide')];
      const axes = intVector(
        node,
        x.shape.slice(1).map((_, i) => index.shape.length + i),
      ).name;
      // A negative index counts from the end: some row is read, and then counts 0 times.
      const made: [string, string[], string, OnnxNode['attributes']?][] = [
        ['Gather', [x.name, index.name], taken, { axis: 0 }],
        ['GreaterOrEqual', [index.name, zero], kept],
        ['Cast', [kept], factor, { to: 1 }],
        ['Unsqueeze', [factor, axes], wide],
        ['Mul', [taken, wide], node.outputs[0]!.name],
      ];
      return made.map(([opType, inputs, output, attributes]) => ({
        opType,
        inputs,
        outputs: [output],
        ...(attributes && { attributes }),
      }));
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
