/**
 * What the loss of a training graph reads, from the rows of a batch: arrays padded to the flat
 * layout (B rows, T predictions of the longest row). The other half of policy-loss.ts.
 */
import { must } from '../assert.ts';
import type { Objective, PolicyObjective } from './policy-loss.ts';
import type { Feeds } from './session.ts';
import type { LossSettings, TrainRow } from './types.ts';

/** Which graph computes the loss under these settings: a coefficient of 0 is not in it. */
export function objectiveOf(loss: LossSettings): PolicyObjective {
  return {
    clip: loss.clip ?? 'ppo',
    kl: (loss.klCoefficient ?? 0) !== 0,
    entropy: (loss.entropyCoefficient ?? 0) !== 0,
  };
}

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
  const feeds: Feeds = {
    tokenWeights: padded((row) => row.weights),
    weightSum: scalar(loss.weightSum),
  };
  if (objective === 'likelihood') return feeds;
  const { clip, kl, entropy } = objective;
  // Predictions without a weight are 0 in the graph; there a ratio to anything else might overflow.
  const weighted = (pick: (row: TrainRow) => Float32Array) =>
    padded((row) => pick(row).map((value, t) => (row.weights[t] === 0 ? 0 : value)));
  Object.assign(feeds, {
    advantages: padded((row) => row.advantages),
    old: weighted((row) => ratioBase(row, clip)),
    ratioLow: scalar(1 - loss.epsLow),
    ratioHigh: scalar(1 + loss.epsHigh),
  });
  if (clip === 'ppo' || clip === 'entropy-balanced') feeds.dualClip = scalar(loss.dualClip);
  if (clip === 'gspo') feeds.sequenceShares = padded(sequenceShares);
  if (kl) {
    feeds.klCoefficient = scalar(loss.klCoefficient ?? 0);
    feeds.reference = weighted((row) => must(row.referenceLogprobs, 'a reference of each row'));
  }
  if (entropy) feeds.entropyCoefficient = scalar(loss.entropyCoefficient ?? 0);
  return feeds;
}

/** ln p that the ratio of each token divides by: the behaviour's for CISPO, else `old`. */
export function ratioBase(row: TrainRow, clip: PolicyObjective['clip']): Float32Array {
  return clip === 'cispo' ? (row.behaviourLogprobs ?? row.oldLogprobs) : row.oldLogprobs;
}

const scalar = (value: number) => ({ dims: [], data: Float32Array.of(value) });

/** Of a mean over the tokens that have a weight. */
function sequenceShares({ weights }: TrainRow): Float32Array {
  const count = weights.reduce((sum, weight) => sum + Number(weight !== 0), 0);
  return weights.map((weight) => (weight === 0 ? 0 : 1 / count));
}
