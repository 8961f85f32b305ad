/**
 * The whole policy loss in plain JavaScript, as arpo.md section 6 writes it down: every clip rule,
 * aggregation and importance weight, divergence and entropy. It is the slow twin of train-rows.ts,
 * aggregate.ts and importance.ts (how much each token counts) and of core/model/policy-loss.ts (how
 * it is clipped) together, and shares no code with them.
 *
 * Where a formula stops the gradient, sg(x), the twin reads `held` in the place of `logp`. The two
 * are equal; central differences move only `logp`, so they check these gradients as well.
 */
import type { Aggregate } from './aggregate.ts';
import { tokenObjective, type ClipSettings, type Objective } from './loss.ts';
import { clamp } from './number.ts';

/** A policy token. Log-probabilities are ln p. */
export interface DefinedToken {
  logp: number;
  held: number;
  old: number;
  behaviour: number;
  reference: number;
  /** Of the prediction, in nats. */
  entropy: number;
  advantage: number;
  /** 1, or the part of 1 with which a token counts that trajectories share. */
  share: number;
}

export interface LossDefinition extends ClipSettings {
  clip: 'ppo' | 'entropy-balanced' | 'gspo' | 'cispo';
  aggregate: Aggregate;
  maxTokens: number;
  importance: 'none' | 'token' | 'sequence';
  importanceCap: number;
  geometricMask: readonly [number, number] | null;
  klCoefficient: number;
  entropyCoefficient: number;
}

export interface DefinedLoss {
  loss: number;
  /** d loss / d logp and d loss / d entropy of each token of each sequence. */
  byLogprob: number[][];
  byEntropy: number[][];
}

/** The loss of sequences of policy tokens: all those of a mini-batch. */
export function definedLoss(
  sequences: readonly (readonly DefinedToken[])[],
  settings: LossDefinition,
): DefinedLoss {
  const { klCoefficient, entropyCoefficient } = settings;
  const weights = sequences.map((tokens) => weightsOf(tokens, settings));
  const total = divisor(sequences, weights, settings);
  const result: DefinedLoss = { loss: 0, byLogprob: [], byEntropy: [] };
  sequences.forEach((tokens, i) => {
    const sequenceRatio = geometricMean(tokens.map(({ held, old }) => Math.exp(held - old)));
    const slopes = tokens.map((token, t) => {
      const weight = weights[i]?.[t] as number;
      if (weight === 0) return 0;
      const clipped = RULES[settings.clip](token, settings, sequenceRatio);
      const divergence = divergenceOf(token, settings);
      const value =
        clipped.value - klCoefficient * divergence.value + entropyCoefficient * token.entropy;
      const slope = clipped.gradient - klCoefficient * divergence.gradient;
      result.loss -= (weight * value) / total;
      return (-weight * slope) / total;
    });
    result.byLogprob.push(slopes);
    result.byEntropy.push(
      tokens.map((_, t) => (-(weights[i]?.[t] as number) * entropyCoefficient) / total),
    );
  });
  return result;
}

/** w_it with what the aggregation makes of it. */
function weightsOf(tokens: readonly DefinedToken[], settings: LossDefinition): number[] {
  const ratios = tokens.map(({ old, behaviour }) => Math.exp(old) / Math.exp(behaviour));
  if (settings.geometricMask !== null) {
    const [low, high] = settings.geometricMask;
    const ratio = geometricMean(ratios);
    if (ratio < low || ratio > high) return tokens.map(() => 0);
  }
  const product = ratios.reduce((a, b) => a * b, 1);
  const shares = tokens.reduce((sum, { share }) => sum + share, 0);
  return tokens.map(({ share }, t) => {
    const ratio = { none: 1, token: ratios[t] as number, sequence: product }[settings.importance];
    const weight =
      settings.importance === 'none' ? share : share * Math.min(settings.importanceCap, ratio);
    return settings.aggregate === 'sequence-mean' ? weight / shares : weight;
  });
}

function divisor(
  sequences: readonly (readonly DefinedToken[])[],
  weights: readonly (readonly number[])[],
  { aggregate, maxTokens }: LossDefinition,
): number {
  if (aggregate === 'constant') return sequences.length * maxTokens;
  return weights.flat().reduce((a, b) => a + b, 0);
}

type Rule = (token: DefinedToken, clip: ClipSettings, sequenceRatio: number) => Objective;

const RULES: Record<LossDefinition['clip'], Rule> = {
  ppo: ({ logp, old, advantage }, clip) => tokenObjective(logp, old, advantage, clip),
  'entropy-balanced': (token, clip) => {
    const { logp, held, old, advantage } = token;
    const high = 1 + clip.epsHigh;
    if (advantage <= 0 || Math.exp(held - old) <= high) {
      return tokenObjective(logp, old, advantage, clip);
    }
    const value = high * Math.exp(logp - held) * advantage;
    return { value, gradient: value };
  },
  gspo: ({ logp, held, advantage }, { epsLow, epsHigh }, sequenceRatio) => {
    const ratio = sequenceRatio * Math.exp(logp - held);
    const clipped = clamp(ratio, 1 - epsLow, 1 + epsHigh);
    return ratio * advantage <= clipped * advantage
      ? { value: ratio * advantage, gradient: ratio * advantage }
      : { value: clipped * advantage, gradient: 0 };
  },
  cispo: ({ logp, held, behaviour, advantage }, { epsLow, epsHigh }) => {
    const ratio = clamp(Math.exp(held - behaviour), 1 - epsLow, 1 + epsHigh);
    return { value: ratio * advantage * logp, gradient: ratio * advantage };
  },
};

/** r (q / p - ln(q / p) - 1), q the reference: an estimate of KL(p || q). */
function divergenceOf(token: DefinedToken, { clip }: LossDefinition): Objective {
  const { logp, old, behaviour, reference } = token;
  const ratio = Math.exp(logp - (clip === 'cispo' ? behaviour : old));
  const gap = reference - logp;
  return { value: ratio * (Math.exp(gap) - gap - 1), gradient: -ratio * gap };
}

const geometricMean = (values: readonly number[]): number =>
  values.reduce((product, value) => product * value ** (1 / values.length), 1);
