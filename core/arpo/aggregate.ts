/**
 * How the objectives of tokens become one number (arpo.md section 6). Each way is a weighted sum
 * and a divisor that holds for the whole mini-batch, so it does not matter how a mini-batch is cut
 * into micro-batches. With w_it the weight of a token from everything else (importance, a shared
 * token's part) and M_i the weight of a sequence before importance:
 *
 *   token-mean      sum_it w_it l_it         / sum_it w_it
 *   sequence-mean   sum_it w_it / M_i l_it   / sum_it w_it / M_i
 *   constant        sum_it w_it l_it         / (sequences * maxTokens)          (Dr.GRPO)
 */
import type { TrainRow } from '../model/types.ts';

export type Aggregate = 'token-mean' | 'sequence-mean' | 'constant';

export interface AggregateSettings {
  aggregate: Aggregate;
  /** Most tokens that a trajectory may sample. */
  maxTokens: number;
}

/** By what the token weights of a sequence of weight M_i are divided. */
export function sequenceDivisor(weightOfSequence: number, aggregate: Aggregate): number {
  return aggregate === 'sequence-mean' && weightOfSequence > 0 ? weightOfSequence : 1;
}

/** The divisor of a mini-batch; `rows` are all of its sequences, those that are left out too. */
export function lossDivisor(
  rows: readonly Pick<TrainRow, 'weights'>[],
  { aggregate, maxTokens }: AggregateSettings,
): number {
  if (aggregate === 'constant') return rows.length * maxTokens;
  let sum = 0;
  for (const { weights } of rows) for (const weight of weights) sum += weight;
  return sum;
}
