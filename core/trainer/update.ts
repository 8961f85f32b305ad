/**
 * One policy update from the rollout groups of a training step (arpo.md sections 5, 6 and 8):
 * advantages within each group, groups whose rewards are all equal dropped and counted, rows in the
 * flat form, mini-batches of whole groups, clipped gradient, AdamW with warm-up.
 *
 * The old log-probabilities are those at the start of the update, for every mini-batch of every
 * epoch: of fresh rollouts the recorded ones, because the policy that sampled them is that policy,
 * else those of `group.rescored`. A test of the model holds the recorded and the recomputed numbers
 * to 1e-4; the difference at the first mini-batch is reported as `logprob_drift_max`, so that a
 * drift would show.
 */
import { isZeroVariance } from '../arpo/advantage.ts';
import { lossDivisor, type AggregateSettings } from '../arpo/aggregate.ts';
import { lossTerms } from '../arpo/loss-settings.ts';
import { LossTally } from '../arpo/loss-tally.ts';
import type { RolloutGroup } from '../arpo/rollout.ts';
import type { ArpoSettings } from '../arpo/settings.ts';
import { trainRows, type PolicyRow, type RowSettings } from '../arpo/train-rows.ts';
import { must } from '../assert.ts';
import type { TrainingSession } from '../model/types.ts';
import type { AdamWState } from './adamw.ts';
import { ADAMW_DEFAULTS, clipScale, updateAdamW, rateAt } from './adamw.ts';
import type { Figures } from './figures.ts';
import type { MiniBatchResult } from './micro-batch.ts';
import { accumulateGradients } from './micro-batch.ts';
import { scoreRows } from './rescoring.ts';

export interface UpdateOptions {
  session: TrainingSession;
  /** Kept by the caller over the run; one of its steps is one mini-batch. */
  optimiser: AdamWState;
  settings: ArpoSettings;
  /** Scores with the run's base weights; needed when `klCoefficient` is not 0. */
  reference?: Pick<TrainingSession, 'config' | 'score'>;
  /** Tokens of one micro-batch. */
  tokenBudget: number;
  /** The share of the run that is done, 0 unless given. */
  progress?: number;
  signal?: AbortSignal;
}

/**
 * Changes the session's weights in place. Returns the figures of the update; when no group can
 * teach anything the weights stay and only the shares are reported. Rejects when aborted between
 * micro-batches, or when a gradient is not finite; mini-batches done before that have had effect.
 */
export async function updatePolicy(
  groups: readonly RolloutGroup[],
  options: UpdateOptions,
): Promise<Figures> {
  const { session, optimiser, settings } = options;
  const loss = lossTerms(settings);
  const batches = miniBatches(groups, settings);
  if (settings.klCoefficient > 0) await addReference(batches, options);
  const tally = new UpdateTally(loss);
  const { epochs } = settings;
  for (const batch of Array.from({ length: epochs }, () => batches).flat()) {
    const { rows, weightSum } = batch;
    const terms = { ...loss, weightSum };
    const result = await accumulateGradients(session, rows, terms, {
      tokenBudget: options.tokenBudget,
      packing: settings.packing,
      ...(options.signal && { signal: options.signal }),
    });
    const { norm, gradientScale } = clipScale(result.gradients, settings.gradientClip);
    const learningRate = rateAt(
      { ...settings, warmupUpdates: settings.warmupSteps * settings.miniBatches * epochs },
      optimiser.step,
      options.progress ?? 0,
    );
    const [beta1, beta2] = settings.betas;
    const { weightDecay } = settings;
    updateAdamW(session.weights, result.gradients, optimiser, {
      ...ADAMW_DEFAULTS,
      gradientScale,
      beta1,
      beta2,
      weightDecay,
      learningRate,
    });
    tally.add(batch, result, { gradientNorm: norm, learningRate });
  }
  const zero = groups.filter((group) => isZeroVariance(rewardsOf(group))).length;
  return { zero_variance_share: zero / Math.max(1, groups.length), ...tally.figures() };
}

/** Log-probabilities under the run's base weights, which the penalty of the loss is about. */
async function addReference(batches: readonly MiniBatch[], options: UpdateOptions): Promise<void> {
  const rows = batches.flatMap((batch) => batch.rows);
  const session = must(options.reference, 'klCoefficient needs a reference');
  const { logprobs: scored } = await scoreRows(
    rows.map(({ tokens }) => tokens),
    { ...options, session },
  );
  rows.forEach((row, i) => (row.referenceLogprobs = must(scored[i], 'a score of each row')));
}

const rewardsOf = (group: RolloutGroup): number[] =>
  group.trajectories.map((trajectory) => trajectory.reward);

export interface MiniBatch {
  /** Those that have a token to learn from. */
  rows: PolicyRow[];
  /** Divides the loss of all of them. */
  weightSum: number;
  /** Sequences, and how many of them the geometric mask left out. */
  sequences: number;
  leftOut: number;
}

/** Rows of the groups that teach something, as mini-batches of whole groups in the order given. */
export function miniBatches(
  groups: readonly RolloutGroup[],
  settings: RowSettings & AggregateSettings & Pick<ArpoSettings, 'miniBatches'>,
): MiniBatch[] {
  const kept = groups
    .filter((group) => !isZeroVariance(rewardsOf(group)))
    .map((group) => trainRows(group, settings));
  const count = Math.min(settings.miniBatches, kept.length);
  const batches = Array.from({ length: count }, (_, batch) => {
    const first = Math.floor((batch * kept.length) / count);
    const all = kept.slice(first, Math.floor(((batch + 1) * kept.length) / count)).flat();
    return {
      // A trajectory that ended before the policy wrote a token has nothing to learn from.
      rows: all.filter((row) => row.weights.some((weight) => weight > 0)),
      weightSum: lossDivisor(all, settings),
      sequences: all.length,
      leftOut: all.filter((row) => row.leftOut).length,
    };
  });
  return batches.filter(({ rows }) => rows.length > 0);
}

interface BatchFacts {
  gradientNorm: number;
  learningRate: number;
}

/** Adds up what the update reports. */
class UpdateTally {
  private readonly terms: ReturnType<typeof lossTerms>;
  private readonly losses = new LossTally();
  private batches = 0;
  private forwarded = 0;
  private runs = 0;
  private packedRuns = 0;
  private sequences = 0;
  private leftOut = 0;
  private loss = 0;
  private gradientNorm = 0;
  private learningRate = 0;

  constructor(terms: ReturnType<typeof lossTerms>) {
    this.terms = terms;
  }

  add(batch: MiniBatch, result: MiniBatchResult, facts: BatchFacts): void {
    const first = this.batches === 0;
    this.losses.add(batch.rows, result.logprobs, { loss: this.terms, first });
    this.batches++;
    this.sequences += batch.sequences;
    this.leftOut += batch.leftOut;
    this.forwarded += result.tokensForwarded;
    this.runs += result.microBatches;
    this.packedRuns += result.packedMicroBatches;
    this.loss += result.loss;
    this.gradientNorm += facts.gradientNorm;
    this.learningRate = facts.learningRate;
  }

  figures(): Figures {
    if (this.batches === 0) return { tokens_trained: 0 };
    const losses = this.losses.figures(this.terms);
    return {
      loss: this.loss / this.batches,
      gradient_norm: this.gradientNorm / this.batches,
      learning_rate: this.learningRate,
      ...losses,
      sequences_left_out_share: this.leftOut / this.sequences,
      tokens_forwarded: this.forwarded,
      forwarded_per_trained: this.forwarded / (losses['tokens_trained'] ?? 1),
      packed_share: this.packedRuns / this.runs,
    };
  }
}
