/**
 * PPO's policy loss in plain JavaScript (arpo.md sections 6 and 7): the definition against which
 * the training graph is tested. The flat form sums over every token of every trajectory; the packed
 * form visits a token that trajectories share once and must give the same number and gradient. The
 * other clip rules and ways to weigh are in loss-definition.ts.
 *
 * r = exp(logp - old). For A >= 0 the objective is min(r, 1 + epsHigh) A; for A < 0 it is
 * clamp(r, 1 - epsLow, dualClip) A. Both follow from PPO's min(r A, clip(r) A) with a dual clip.
 */
import { assert } from '../assert.ts';
import { clamp } from './number.ts';

export interface ClipSettings {
  epsLow: number;
  epsHigh: number;
  /** c > 1: a token with negative advantage costs at most c |A|. */
  dualClip: number;
}

export interface LossToken {
  /** ln p under the policy that is being updated. */
  logp: number;
  /** ln p under the policy at the start of the update. */
  old: number;
  advantage: number;
  weight: number;
}

export interface Objective {
  value: number;
  /** d value / d logp. */
  gradient: number;
}

/** l_t of one token, written as the paper has it: min, clip, dual clip. */
export function tokenObjective(
  logp: number,
  old: number,
  advantage: number,
  clip: ClipSettings,
): Objective {
  const r = Math.exp(logp - old);
  const free = { value: r * advantage, gradient: r * advantage };
  const clipped = { value: clamp(r, 1 - clip.epsLow, 1 + clip.epsHigh) * advantage, gradient: 0 };
  const lower = clipped.value < free.value ? clipped : free;
  if (advantage >= 0) return lower;
  const floor = clip.dualClip * advantage;
  return lower.value < floor ? { value: floor, gradient: 0 } : lower;
}

/**
 * L = -sum w l / sum w over all tokens (T), and dL/dlogp of each (T). Tokens of weight 0 have no
 * part.
 */
export function flatLoss(
  tokens: readonly LossToken[],
  clip: ClipSettings,
): { loss: number; gradients: Float64Array } {
  const weightSum = tokens.reduce((sum, token) => sum + token.weight, 0);
  const gradients = new Float64Array(tokens.length);
  if (weightSum === 0) return { loss: 0, gradients };
  let sum = 0;
  tokens.forEach(({ logp, old, advantage, weight }, t) => {
    if (weight === 0) return;
    const objective = tokenObjective(logp, old, advantage, clip);
    sum += weight * objective.value;
    gradients[t] = (-weight * objective.gradient) / weightSum;
  });
  return { loss: -sum / weightSum, gradients };
}

export interface PackedCoefficients {
  /** Sum of the positive advantages of the trajectories that contain the token. */
  plus: number;
  /** Sum of the negative ones. */
  minus: number;
  /** How many trajectories contain it. */
  d: number;
}

/** Coefficients of each unique token, by its id, from trajectories as lists of token ids. */
export function packedCoefficients<Id>(
  trajectories: readonly { tokens: readonly Id[]; advantage: number }[],
): Map<Id, PackedCoefficients> {
  const coefficients = new Map<Id, PackedCoefficients>();
  for (const { tokens, advantage } of trajectories) {
    for (const id of tokens) {
      const held = coefficients.get(id) ?? { plus: 0, minus: 0, d: 0 };
      held.plus += Math.max(0, advantage);
      held.minus += Math.min(0, advantage);
      held.d += 1;
      coefficients.set(id, held);
    }
  }
  return coefficients;
}

/** The sum of l_i over the trajectories that share a token, from its coefficients alone. */
export function packedObjective(
  logp: number,
  old: number,
  coefficients: PackedCoefficients,
  clip: ClipSettings,
): Objective {
  assert(clip.dualClip >= 1 - clip.epsLow, 'dual clip lies above the lower clip');
  const r = Math.exp(logp - old);
  const { plus, minus } = coefficients;
  const value =
    Math.min(r, 1 + clip.epsHigh) * plus + clamp(r, 1 - clip.epsLow, clip.dualClip) * minus;
  const gradient =
    (r <= 1 + clip.epsHigh ? r * plus : 0) +
    (r >= 1 - clip.epsLow && r <= clip.dualClip ? r * minus : 0);
  return { value, gradient };
}
