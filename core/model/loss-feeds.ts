/**
 * What the loss of a training graph reads, from the rows of a batch: arrays padded to the flat
 * layout (B rows, T predictions of the longest row). The other half of policy-loss.ts.
 */
import type { Objective } from './policy-loss.ts';
import type { Feeds } from './session.ts';
import type { LossSettings, TrainRow } from './types.ts';

/** `width` is T; index 0 of a row's arrays has no prediction and is left out. */
export function lossFeeds(
  rows: readonly TrainRow[],
  width: number,
  loss: LossSettings,
  objective: Objective,
): Feeds {
  const dims = [rows.length, width];
  const padded = (pick: (row: TrainRow) => Float32Array) => {
    const data = new Float32Array(rows.length * width);
    rows.forEach((row, r) => data.set(pick(row).subarray(1), r * width));
    return { dims, data };
  };
  const scalar = (value: number) => ({ dims: [], data: Float32Array.of(value) });
  const likelihood = {
    tokenWeights: padded((row) => row.weights),
    weightSum: scalar(loss.weightSum),
  };
  if (objective === 'likelihood') return likelihood;
  return {
    ...likelihood,
    advantages: padded((row) => row.advantages),
    old: padded((row) => row.oldLogprobs),
    ratioLow: scalar(1 - loss.epsLow),
    ratioHigh: scalar(1 + loss.epsHigh),
    dualClip: scalar(loss.dualClip),
  };
}
