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
import { groupAdvantages, isZeroVariance } from '../arpo/advantage.ts';
import type { RolloutGroup } from '../arpo/rollout.ts';
import type { ArpoSettings } from '../arpo/settings.ts';
import { trainRows } from '../arpo/train-rows.ts';
import { must } from '../assert.ts';
import type { TrainRow, TrainingSession } from '../model/types.ts';
import type { AdamWState } from './adamw.ts';
import { ADAMW_DEFAULTS, clipScale, updateAdamW, warmedUpRate } from './adamw.ts';
import type { Figures } from './figures.ts';
import type { MiniBatchResult } from './micro-batch.ts';
import { accumulateGradients } from './micro-batch.ts';

export interface UpdateOptions {
  session: TrainingSession;
  /** Kept by the caller over the run; one of its steps is one mini-batch. */
  optimiser: AdamWState;
  settings: ArpoSettings;
  /** Tokens of one micro-batch. */
  tokenBudget: number;
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
  const loss = {
    epsLow: settings.epsLow,
    epsHigh: settings.epsHigh,
    dualClip: settings.dualClip,
  };
  const batches = miniBatches(groups, settings);
  const tally = new UpdateTally();
  const { epochs } = settings;
  for (const rows of Array.from({ length: epochs }, () => batches).flat()) {
    const result = await accumulateGradients(session, rows, loss, {
      tokenBudget: options.tokenBudget,
      packing: settings.packing,
      ...(options.signal && { signal: options.signal }),
    });
    const { norm, gradientScale } = clipScale(result.gradients, settings.gradientClip);
    const learningRate = warmedUpRate(
      settings.learningRate,
      optimiser.step,
      settings.warmupSteps * settings.miniBatches * epochs,
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
    tally.add(rows, result, { gradientNorm: norm, learningRate, settings });
  }
  const zero = groups.filter((group) => isZeroVariance(rewardsOf(group))).length;
  return { zero_variance_share: zero / Math.max(1, groups.length), ...tally.figures() };
}

const rewardsOf = (group: RolloutGroup): number[] =>
  group.trajectories.map((trajectory) => trajectory.reward);

/** Rows of the groups that teach something, as mini-batches of whole groups in the order given. */
export function miniBatches(
  groups: readonly RolloutGroup[],
  settings: Pick<ArpoSettings, 'miniBatches' | 'normalise'>,
): TrainRow[][] {
  const kept = groups
    .filter((group) => !isZeroVariance(rewardsOf(group)))
    .map((group) => trainRows(group, groupAdvantages(rewardsOf(group), settings.normalise)));
  const count = Math.min(settings.miniBatches, kept.length);
  const batches = Array.from({ length: count }, (_, batch) =>
    kept
      .slice(
        Math.floor((batch * kept.length) / count),
        Math.floor(((batch + 1) * kept.length) / count),
      )
      .flat()
      // A trajectory that ended before the policy wrote a token has nothing to learn from.
      .filter((row) => row.weights.some((weight) => weight > 0)),
  );
  return batches.filter((rows) => rows.length > 0);
}

interface BatchFacts {
  gradientNorm: number;
  learningRate: number;
  settings: ArpoSettings;
}

/** Adds up what the update reports. */
class UpdateTally {
  private batches = 0;
  private tokens = 0;
  private forwarded = 0;
  private runs = 0;
  private packedRuns = 0;
  private clipped = 0;
  private kl = 0;
  private weight = 0;
  private weightMax = 0;
  private drift = 0;
  private loss = 0;
  private gradientNorm = 0;
  private learningRate = 0;

  add(rows: readonly TrainRow[], result: MiniBatchResult, facts: BatchFacts): void {
    rows.forEach((row, i) => {
      const logprobs = must(result.logprobs[i], 'logprobs of each row');
      for (let t = 0; t < row.tokens.length; t++) {
        const weight = row.weights[t] as number;
        if (weight === 0) continue;
        const change = (logprobs[t] as number) - (row.oldLogprobs[t] as number);
        if (this.batches === 0) this.drift = Math.max(this.drift, Math.abs(change));
        this.addToken(Math.exp(change), row.advantages[t] as number, weight, facts.settings);
      }
    });
    this.batches++;
    this.forwarded += result.tokensForwarded;
    this.runs += result.microBatches;
    this.packedRuns += result.packedMicroBatches;
    this.loss += result.loss;
    this.gradientNorm += facts.gradientNorm;
    this.learningRate = facts.learningRate;
  }

  private addToken(ratio: number, advantage: number, weight: number, clip: ArpoSettings): void {
    this.tokens++;
    this.weight += weight;
    this.weightMax = Math.max(this.weightMax, weight);
    // The k3 estimate of KL(old || new): r - 1 - ln r, never negative.
    this.kl += ratio - 1 - Math.log(ratio);
    const stopped =
      (advantage > 0 && ratio > 1 + clip.epsHigh) ||
      (advantage < 0 && (ratio < 1 - clip.epsLow || ratio > clip.dualClip));
    if (stopped) this.clipped++;
  }

  figures(): Figures {
    if (this.batches === 0) return { tokens_trained: 0 };
    return {
      loss: this.loss / this.batches,
      gradient_norm: this.gradientNorm / this.batches,
      learning_rate: this.learningRate,
      clip_share: this.clipped / this.tokens,
      approx_kl: this.kl / this.tokens,
      importance_weight_mean: this.weight / this.tokens,
      importance_weight_max: this.weightMax,
      logprob_drift_max: this.drift,
      tokens_trained: this.tokens,
      tokens_forwarded: this.forwarded,
      forwarded_per_trained: this.forwarded / this.tokens,
      packed_share: this.packedRuns / this.runs,
    };
  }
}
