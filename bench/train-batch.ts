/** The batch of the training benches: 8 rows of 256 predictions, random tokens and advantages. */
import type { LossSettings, TrainRow } from '../core/model/types.ts';
import { Prng } from '../core/prng.ts';

const ROWS = 8;
const PREDICTIONS = 256;

/** Predictions of a batch. */
export const BATCH_TOKENS = ROWS * PREDICTIONS;

export const BATCH_LOSS: LossSettings = {
  epsLow: 0.2,
  epsHigh: 0.2,
  dualClip: 3,
  weightSum: BATCH_TOKENS,
};

export function trainBatch(vocabulary: number): TrainRow[] {
  const prng = new Prng(5);
  const length = PREDICTIONS + 1;
  return Array.from({ length: ROWS }, () => ({
    tokens: Uint32Array.from({ length }, () => prng.below(vocabulary)),
    weights: Float32Array.from({ length }, (_, t) => Number(t > 0)),
    advantages: Float32Array.from({ length }, () => prng.gaussian()),
    oldLogprobs: new Float32Array(length).fill(-Math.log(vocabulary)),
  }));
}
