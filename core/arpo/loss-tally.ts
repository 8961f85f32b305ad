/**
 * What a step reports of its losses: how far the policy had moved from the start of the update, how
 * often the clip bit, what importance weights did. Sums over tokens and sequences, so the cut into
 * batches changes none of it. Counted is every token that has a loss weight, in each row that has
 * it.
 */
import { must } from '../assert.ts';
import { ratioBase } from '../model/loss-feeds.ts';
import type { LossSettings } from '../model/types.ts';
import type { PolicyRow } from './train-rows.ts';

type LossTerms = Omit<LossSettings, 'weightSum'>;

export class LossTally {
  private tokens = 0;
  private clipped = 0;
  private kl = 0;
  private referenceKl = 0;
  private importance = 0;
  private importanceMax = 0;
  private drift = 0;

  /**
   * Rows of one mini-batch with their log-probabilities before its own update. `first`: no update
   * of the step came before, so a difference to `old` is rounding, or two programs that disagree.
   */
  add(
    rows: readonly PolicyRow[],
    logprobs: readonly Float32Array[],
    { loss, first }: { loss: LossTerms; first: boolean },
  ): void {
    rows.forEach((row, i) => {
      const now = must(logprobs[i], 'logprobs of each row');
      this.clipped += clippedTokens(row, now, loss);
      for (const t of weighted(row)) {
        const change = (now[t] as number) - (row.oldLogprobs[t] as number);
        const importance = row.importance[t] as number;
        this.tokens++;
        this.kl += divergence(change);
        if (first) this.drift = Math.max(this.drift, Math.abs(change));
        this.importance += importance;
        this.importanceMax = Math.max(this.importanceMax, importance);
        const reference = row.referenceLogprobs?.[t];
        if (reference !== undefined) this.referenceKl += divergence(reference - (now[t] as number));
      }
    });
  }

  /** `approx_kl` is KL(old || now), `reference_kl` KL(now || reference), in nats a token. */
  figures(loss: LossTerms): Record<string, number> {
    return {
      clip_share: this.clipped / this.tokens,
      approx_kl: this.kl / this.tokens,
      ...(loss.klCoefficient ? { reference_kl: this.referenceKl / this.tokens } : {}),
      importance_weight_mean: this.importance / this.tokens,
      importance_weight_max: this.importanceMax,
      logprob_drift_max: this.drift,
      tokens_trained: this.tokens,
    };
  }
}

/** Tokens of a row whose ratio the clip rule holds back. */
export function clippedTokens(row: PolicyRow, logprobs: Float32Array, loss: LossTerms): number {
  const { clip = 'ppo', epsLow, epsHigh, dualClip } = loss;
  const base = ratioBase(row, clip);
  const changes = weighted(row).map((t) => (logprobs[t] as number) - (base[t] as number));
  const sequence = changes.reduce((sum, change) => sum + change, 0) / changes.length;
  return weighted(row).filter((t, k) => {
    const ratio = Math.exp(clip === 'gspo' ? sequence : (changes[k] as number));
    const advantage = row.advantages[t] as number;
    const [below, above] = [ratio < 1 - epsLow, ratio > 1 + epsHigh];
    if (clip === 'cispo') return advantage !== 0 && (below || above);
    if (advantage > 0) return above;
    return advantage < 0 && (below || (clip !== 'gspo' && ratio > dualClip));
  }).length;
}

const weighted = ({ weights }: PolicyRow): number[] =>
  [...weights.keys()].filter((t) => weights[t] !== 0);

/** k3, from ln(q / p) of a token drawn from p: q / p - 1 - ln(q / p), never negative. */
const divergence = (gap: number): number => Math.exp(gap) - 1 - gap;
