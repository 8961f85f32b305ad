/** Loops and branches over subgraphs; only the decode graph has them. */
import { assert } from '../../assert.ts';
import { onnxNode } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { sameShape, shapeError, type Dim, type TensorType } from '../tensor-type.ts';

const DECODE_ONLY = 'control flow belongs to decoding, which is never differentiated';

export const controlOps: OpGroup<'loop' | 'choose'> = {
  /**
   * Inputs: trip count, condition, carried values. Body inputs: iteration, condition, carried;
   * body outputs: condition, carried, scanned. Outputs: carried, then scanned with a leading axis.
   */
  loop: {
    takes: { each: 'any' },
    infer: (inputs, { body, carried, scanned }) => {
      const types = (values: readonly TensorType[]) => values.map(({ dtype }) => dtype).join();
      const state = inputs.slice(2);
      const outputs = body.outputs.map(({ value }) => value);
      const counts = state.length === carried && outputs.length === carried + scanned + 1;
      const typed =
        types(inputs.slice(0, 2)) === 'int64,bool' &&
        types(body.inputs) === types(inputs) &&
        types(outputs.slice(0, carried + 1)) === types(inputs.slice(1));
      if (!counts || !typed || scanned < 0) {
        throw shapeError('loop', 'a body like its state', ...inputs, ...body.inputs, ...outputs);
      }
      return body.outputs.slice(1).map(({ value }, i) => {
        const leading: Dim[] = i < carried ? [] : ['steps'];
        return { dtype: value.dtype, shape: [...leading, ...value.shape] };
      });
    },
    gradient: { none: DECODE_ONLY },
    lower: (node) => [onnxNode('Loop', node, { body: { graph: node.params.body } })],
  },
  choose: {
    takes: ['bool'],
    infer: (_inputs, { whenTrue, whenFalse }) => {
      assert(whenTrue.outputs.length === whenFalse.outputs.length, 'choose: branches differ');
      return whenTrue.outputs.map(({ value }, i) => {
        const other = whenFalse.outputs[i]?.value;
        const same = other?.dtype === value.dtype && sameShape(other.shape, value.shape);
        assert(same, `choose: output ${i} differs between the branches`);
        return { dtype: value.dtype, shape: value.shape };
      });
    },
    gradient: { none: DECODE_ONLY },
    lower: (node) => [
      onnxNode('If', node, {
        then_branch: { graph: node.params.whenTrue },
        else_branch: { graph: node.params.whenFalse },
      }),
    ],
  },
};
