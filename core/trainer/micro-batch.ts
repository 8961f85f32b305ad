/**
 * Splits the rows of a mini-batch into micro-batches that fit in memory and adds up their
 * gradients. Rows are sorted by length, so that short ones are not padded to the longest of the
 * mini-batch; the sum of weights is taken over the whole mini-batch beforehand, so the split
 * changes nothing but the order of additions.
 *
 * Flat rows only: a token shared by several branches is forwarded once for each of them (the packed
 * form of arpo.md section 7 is not here). Knows nothing of rewards or of the model inside the
 * session.
 */
import { assert, must } from '../assert.ts';
import type { LossSettings, TrainRow, TrainingSession } from '../model/types.ts';

export interface MiniBatchResult {
  loss: number;
  /** d loss / d weight over all rows, by weight name. */
  gradients: Map<string, Float32Array>;
  /** ln p and entropy of each token under the weights of this run, in the order of `rows`. */
  logprobs: Float32Array[];
  entropies: Float32Array[];
  microBatches: number;
  /** Tokens forwarded, padding included. */
  tokensForwarded: number;
}

/**
 * Row indices of each micro-batch: rows x longest row <= `tokenBudget`, except that a row longer
 * than the budget is alone in its own. Longest rows first: what needs most memory fails early.
 */
export function planMicroBatches(lengths: readonly number[], tokenBudget: number): number[][] {
  assert(tokenBudget >= 1, `a token budget of ${tokenBudget} holds nothing`);
  const order = lengths.map((_, index) => index);
  order.sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b);
  const batches: number[][] = [];
  let current: number[] = [];
  for (const index of order) {
    const longest = lengths[current[0] ?? index] as number;
    if (current.length > 0 && (current.length + 1) * longest > tokenBudget) {
      batches.push(current);
      current = [];
    }
    current.push(index);
  }
  if (current.length > 0) batches.push(current);
  return batches;
}

/** Sum of the loss weights of all rows: what `LossSettings.weightSum` must be for them. */
export function weightSumOf(rows: readonly TrainRow[]): number {
  let sum = 0;
  for (const row of rows) for (const weight of row.weights) sum += weight;
  return sum;
}

/**
 * Loss and gradients of a mini-batch, micro-batch by micro-batch. The signal is looked at before
 * each run; an abort rejects with its reason. Needs at least one row with a policy token.
 */
export async function accumulateGradients(
  session: TrainingSession,
  rows: readonly TrainRow[],
  loss: Omit<LossSettings, 'weightSum'>,
  options: { tokenBudget: number; signal?: AbortSignal },
): Promise<MiniBatchResult> {
  const weightSum = weightSumOf(rows);
  assert(weightSum > 0, 'a mini-batch has no policy token');
  const plan = planMicroBatches(
    rows.map((row) => row.tokens.length),
    options.tokenBudget,
  );
  const result: MiniBatchResult = {
    loss: 0,
    gradients: new Map(),
    logprobs: new Array<Float32Array>(rows.length),
    entropies: new Array<Float32Array>(rows.length),
    microBatches: plan.length,
    tokensForwarded: 0,
  };
  for (const indices of plan) {
    options.signal?.throwIfAborted();
    const batch = indices.map((index) => must(rows[index], 'the plan names rows'));
    const part = await session.lossAndGradients(batch, { ...loss, weightSum });
    result.loss += part.loss;
    addInto(result.gradients, part.gradients);
    indices.forEach((index, k) => {
      result.logprobs[index] = must(part.logprobs[k], 'one array of logprobs a row');
      result.entropies[index] = must(part.entropies[k], 'one array of entropies a row');
    });
    result.tokensForwarded += batch.length * (batch[0]?.tokens.length ?? 0);
  }
  return result;
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
