/**
 * Runs a mini-batch as micro-batches that fit in memory and adds up their gradients. Which rows go
 * together, and in which form, is planned by cost (pack-plan.ts); the sum of weights is taken over
 * the whole mini-batch beforehand, so the split changes nothing but the order of additions.
 *
 * Knows nothing of rewards or of the model inside the session.
 */
import { assert, must } from '../assert.ts';
import type { LossSettings, TrainRow, TrainingSession } from '../model/types.ts';
import { planRuns, type Packing, type PlannedRow } from './pack-plan.ts';

export interface MiniBatchResult {
  loss: number;
  /** d loss / d weight over all rows, by weight name. */
  gradients: Map<string, Float32Array>;
  /** ln p and entropy of each token under the weights of this run, in the order of `rows`. */
  logprobs: Float32Array[];
  entropies: Float32Array[];
  microBatches: number;
  /** How many of them forwarded shared prefixes once. */
  packedMicroBatches: number;
  /** Tokens that passed through the layers, padding included. */
  tokensForwarded: number;
  /** Tokens with a loss weight, counted in every row that has them. */
  tokensTrained: number;
}

/** Sum of the loss weights of all rows: what `LossSettings.weightSum` must be for them. */
export function weightSumOf(rows: readonly TrainRow[]): number {
  let sum = 0;
  for (const row of rows) for (const weight of row.weights) sum += weight;
  return sum;
}

export interface MiniBatchOptions {
  /** Tokens of one run, padding included. */
  tokenBudget: number;
  /** Absent: `auto`. */
  packing?: Packing;
  signal?: AbortSignal;
}

/**
 * Loss and gradients of a mini-batch, micro-batch by micro-batch. The signal is looked at before
 * each run; an abort rejects with its reason. Needs at least one row with a policy token. Without
 * `weightSum` that of the rows' weights is taken.
 */
export async function accumulateGradients(
  session: TrainingSession,
  rows: readonly TrainRow[],
  loss: Omit<LossSettings, 'weightSum'> & { weightSum?: number },
  options: MiniBatchOptions,
): Promise<MiniBatchResult> {
  const weightSum = loss.weightSum ?? weightSumOf(rows);
  assert(weightSum > 0, 'a mini-batch has no policy token');
  const { tokenBudget, packing = 'auto' } = options;
  const planned = rows.map(plannedRow);
  const plan = planRuns(planned, { config: session.config, packing, tokenBudget });
  const zeros = () => rows.map(({ tokens }) => new Float32Array(tokens.length));
  const result: MiniBatchResult = {
    loss: 0,
    gradients: new Map(),
    logprobs: zeros(),
    entropies: zeros(),
    microBatches: plan.length,
    packedMicroBatches: plan.filter(({ form }) => form === 'packed').length,
    tokensForwarded: 0,
    tokensTrained: planned.reduce((sum, { predictions }) => sum + predictions, 0),
  };
  for (const { rows: indices, form } of plan) {
    options.signal?.throwIfAborted();
    const batch = indices.map((index) => must(rows[index], 'the plan names rows'));
    const part = await session.lossAndGradients(batch, { ...loss, weightSum }, form);
    result.loss += part.loss;
    addInto(result.gradients, part.gradients);
    indices.forEach((index, k) => {
      result.logprobs[index] = must(part.logprobs[k], 'one array of logprobs a row');
      result.entropies[index] = must(part.entropies[k], 'one array of entropies a row');
    });
    result.tokensForwarded += part.tokensForwarded;
  }
  return result;
}

/** What lies behind the last token that is trained on needs no forward pass. */
function plannedRow({ tokens, weights }: TrainRow): PlannedRow {
  const used = Math.max(
    0,
    weights.findLastIndex((weight) => weight !== 0),
  );
  return { tokens, used, predictions: weights.reduce((n, weight) => n + Number(weight !== 0), 0) };
}

function addInto(sum: Map<string, Float32Array>, part: ReadonlyMap<string, Float32Array>): void {
  for (const [name, gradient] of part) {
    const held = sum.get(name);
    // A copy: the session may use its output buffers again at the next run.
    if (held === undefined) sum.set(name, gradient.slice());
    else
      for (let i = 0; i < held.length; i++) held[i] = (held[i] as number) + (gradient[i] as number);
  }
}
