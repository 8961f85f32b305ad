/** Elementwise ops with NumPy broadcasting. A gradient is summed back to the shape of its input. */
import type { Value } from '../graph.ts';
import { onnxNode, scratchName } from '../lowering.ts';
import type { OpGroup, OpDefinition, OpName, Ops } from '../op-table.ts';
import {
  broadcast,
  shapeError,
  type CastType,
  type DType,
  type InputKind,
  type TensorType,
} from '../tensor-type.ts';

function broadcasting(op: string, dtype: DType | 'same') {
  return (inputs: readonly Value[]): TensorType[] => {
    const [a, b] = inputs as [Value, Value];
    const shape = broadcast(a.shape, b.shape);
    if (shape === null || a.dtype !== b.dtype) {
      throw shapeError(op, 'two inputs of one type that broadcast', a, b);
    }
    return [{ dtype: dtype === 'same' ? a.dtype : dtype, shape }];
  };
}

type BinaryRule = (ops: Ops, a: Value, b: Value, out: Value, grad: Value) => [Value, Value];

function binary<K extends OpName>(
  op: K,
  onnx: string,
  rule: BinaryRule,
  kind: InputKind = 'number',
): OpDefinition<K> {
  return {
    takes: [kind, kind],
    infer: broadcasting(op, 'same'),
    gradient: (ops, { inputs, outputs }, [grad]) => {
      const [a, b] = inputs as [Value, Value];
      const [da, db] = rule(ops, a, b, outputs[0] as Value, grad as Value);
      return [ops.sumTo(da, a), ops.sumTo(db, b)];
    },
    lower: (node) => [onnxNode(onnx, node)],
  };
}

function comparison<K extends OpName>(op: K, onnx: string, kind: InputKind): OpDefinition<K> {
  return {
    takes: [kind, kind],
    infer: broadcasting(op, 'bool'),
    gradient: { none: 'a comparison is piecewise constant' },
    lower: (node) => [onnxNode(onnx, node)],
  };
}

type UnaryRule = (ops: Ops, x: Value, y: Value, grad: Value) => Value;

function unary<K extends OpName>(onnx: string, rule: UnaryRule): OpDefinition<K> {
  return {
    takes: ['float32'],
    infer: (inputs) => [inputs[0] as Value],
    gradient: (ops, { inputs, outputs }, [grad]) => [
      rule(ops, inputs[0] as Value, outputs[0] as Value, grad as Value),
    ],
    lower: (node) => [onnxNode(onnx, node)],
  };
}

/** The gradient of min / max flows to the chosen input; to the first one where both are equal. */
function choosing(pick: (ops: Ops, a: Value, b: Value) => Value): BinaryRule {
  return (ops, a, b, _out, grad) => {
    const first = ops.cast(pick(ops, a, b), 'float32');
    return [ops.mul(grad, first), ops.mul(grad, ops.sub(ops.scalar(grad, 1), first))];
  };
}

export const elementwiseOps: OpGroup<
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'min'
  | 'max'
  | 'less'
  | 'lessOrEqual'
  | 'equal'
  | 'and'
  | 'or'
  | 'not'
  | 'neg'
  | 'exp'
  | 'log'
  | 'sigmoid'
  | 'silu'
  | 'stopGradient'
  | 'where'
  | 'clip'
  | 'cast'
> = {
  add: binary('add', 'Add', (_ops, _a, _b, _out, grad) => [grad, grad]),
  sub: binary('sub', 'Sub', (ops, _a, _b, _out, grad) => [grad, ops.neg(grad)]),
  mul: binary('mul', 'Mul', (ops, a, b, _out, grad) => [ops.mul(grad, b), ops.mul(grad, a)]),
  div: binary(
    'div',
    'Div',
    (ops, _a, b, out, grad) => {
      const da = ops.div(grad, b);
      return [da, ops.neg(ops.mul(da, out))];
    },
    'float32',
  ),
  min: binary(
    'min',
    'Min',
    choosing((ops, a, b) => ops.lessOrEqual(a, b)),
  ),
  max: binary(
    'max',
    'Max',
    choosing((ops, a, b) => ops.lessOrEqual(b, a)),
  ),
  less: comparison('less', 'Less', 'number'),
  lessOrEqual: comparison('lessOrEqual', 'LessOrEqual', 'number'),
  equal: comparison('equal', 'Equal', 'any'),
  and: comparison('and', 'And', 'bool'),
  or: comparison('or', 'Or', 'bool'),
  not: {
    takes: ['bool'],
    infer: (inputs) => [inputs[0] as Value],
    gradient: { none: 'a truth value has no gradient' },
    lower: (node) => [onnxNode('Not', node)],
  },
  neg: unary<'neg'>('Neg', (ops, _x, _y, grad) => ops.neg(grad)),
  exp: unary<'exp'>('Exp', (ops, _x, y, grad) => ops.mul(grad, y)),
  log: unary<'log'>('Log', (ops, x, _y, grad) => ops.div(grad, x)),
  sigmoid: unary<'sigmoid'>('Sigmoid', (ops, _x, y, grad) =>
    ops.mul(grad, ops.mul(y, ops.sub(ops.scalar(y, 1), y))),
  ),
  silu: {
    takes: ['float32'],
    infer: (inputs) => [inputs[0] as Value],
    // y' = s + y (1 - s): two passes less than through the product's and the sigmoid's own rules.
    gradient: (ops, { inputs, outputs }, [grad]) => {
      const s = ops.sigmoid(inputs[0] as Value);
      const rest = ops.mul(outputs[0] as Value, ops.sub(ops.scalar(s, 1), s));
      return [ops.mul(grad as Value, ops.add(s, rest))];
    },
    // onnxruntime joins the two where nothing else reads the sigmoid.
    lower: (node) => {
      const [x, y] = [node.inputs[0] as Value, node.outputs[0] as Value];
      const sigmoid = scratchName(node, 'sigmoid');
      return [
        { opType: 'Sigmoid', inputs: [x.name], outputs: [sigmoid] },
        { opType: 'Mul', inputs: [x.name, sigmoid], outputs: [y.name] },
      ];
    },
  },
  stopGradient: {
    takes: ['float32'],
    infer: (inputs) => [inputs[0] as Value],
    gradient: () => [null],
    lower: (node) => [onnxNode('Identity', node)],
  },
  where: {
    takes: ['bool', 'number', 'number'],
    infer: (inputs) => {
      const [condition, a, b] = inputs as [Value, Value, Value];
      const values = broadcast(a.shape, b.shape);
      const shape = values && broadcast(condition.shape, values);
      if (!shape || a.dtype !== b.dtype) {
        throw shapeError('where', 'a bool and two of one type that broadcast', condition, a, b);
      }
      return [{ dtype: a.dtype, shape }];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [condition, a, b] = inputs as [Value, Value, Value];
      const chosen = ops.mul(grad as Value, ops.cast(condition, 'float32'));
      return [null, ops.sumTo(chosen, a), ops.sumTo(ops.sub(grad as Value, chosen), b)];
    },
    lower: (node) => [onnxNode('Where', node)],
  },
  clip: {
    takes: ['float32', 'float32', 'float32'],
    infer: (inputs) => {
      const [x, low, high] = inputs as [Value, Value, Value];
      if (low.shape.length > 0 || high.shape.length > 0) {
        throw shapeError('clip', 'a tensor and two scalars', x, low, high);
      }
      return [x];
    },
    gradient: (ops, { inputs }, [grad]) => {
      const [x, low, high] = inputs as [Value, Value, Value];
      const inside = ops.and(ops.lessOrEqual(low, x), ops.lessOrEqual(x, high));
      return [ops.mul(grad as Value, ops.cast(inside, 'float32')), null, null];
    },
    lower: (node) => [onnxNode('Clip', node)],
  },
  cast: {
    takes: ['any'],
    infer: ([x], { to }) => [{ dtype: to, shape: (x as Value).shape }],
    gradient: { none: 'casts go to integers, truth values and halves, which do not train' },
    lower: (node) => [onnxNode('Cast', node, { to: CAST_TYPE[node.params.to] })],
  },
};

const CAST_TYPE: Record<CastType, number> = { float32: 1, float16: 10, int64: 7, bool: 9 };
