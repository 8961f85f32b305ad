/** Loops and branches over subgraphs; only the decode graph has them. */
import { assert } from '../../assert.ts';
import { onnxNode } from '../lowering.ts';
import type { OpGroup } from '../op-table.ts';
import { sameShape, type Dim } from '../tensor-type.ts';

const DECODE_ONLY = 'control flow belongs to decoding, which is never differentiated';

export const controlOps: OpGroup<'loop' | 'choose'> = {
  /**
   * Inputs: trip count, condition, carried values. Body inputs: iteration, condition, carried;
   * body outputs: condition, carried, scanned. Outputs: carried, then scanned with a leading axis.
   */
  loop: {
    infer: (_inputs, { body, carried, scanned }) => {
      assert(
        body.inputs.length === carried + 2,
        'loop: body inputs are iteration, condition, state',
      );
      assert(
        body.outputs.length === carried + scanned + 1,
        'loop: body outputs are condition, ...',
      );
      return body.outputs.slice(1).map(({ value }, i) => {
        const leading: Dim[] = i < carried ? [] : ['steps'];
        return { dtype: value.dtype, shape: [...leading, ...value.shape] };
      });
    },
    gradient: { none: DECODE_ONLY },
    lower: (node) => [onnxNode('Loop', node, { body: { graph: node.params.body } })],
  },
  choose: {
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
