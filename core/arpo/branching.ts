/**
 * The probability that a tool result opens a branch (arpo.md section 3.2), one pure function a
 * rule. dH is the entropy of the step after the result minus that of the trajectory's first step,
 * so a result that left the policy unsure is explored more. Drawing and slot accounting are the
 * caller's.
 */
import { clamp } from './number.ts';

/** ARPO as the paper writes it: P = clamp(alpha + beta dH, 0, 1). */
export function paperProbability(
  deltaEntropy: number,
  rule: { alpha: number; beta: number },
): number {
  return clamp(rule.alpha + rule.beta * deltaEntropy, 0, 1);
}

/**
 * Whether the paper's rule branches: with a threshold iff P > threshold, else with probability P,
 * decided by `draw` from (0, 1).
 */
export function paperDecision(
  probability: number,
  threshold: number | null,
  draw: number,
): boolean {
  return threshold === null ? draw < probability : probability > threshold;
}

/**
 * The released code draws u from (0, 1), s = clamp(u - w dH, 0, 1), and branches iff s <= p0. That
 * is a biased coin: P(u <= p0 + w dH). No s is above 1, so p0 = 1 always branches.
 */
export function releasedCodeProbability(
  deltaEntropy: number,
  rule: { w: number; p0: number },
): number {
  if (rule.p0 >= 1) return 1;
  return clamp(rule.p0 + rule.w * deltaEntropy, 0, 1);
}

/**
 * AEPO: s = clamp((u + w dH) * max(0, 1 - 0.05 c), 0, 1), branch iff s >= p0, where c counts the
 * consecutive branches on this prompt. P = 1 - (p0 / damping - w dH), clamped. No s is below 0, so
 * p0 = 0 always branches.
 */
export function aepoProbability(
  deltaEntropy: number,
  consecutive: number,
  rule: { w: number; p0: number },
): number {
  const damping = Math.max(0, 1 - 0.05 * consecutive);
  if (rule.p0 <= 0) return 1;
  // With no room left s is always 0.
  if (damping === 0) return 0;
  return clamp(1 - (rule.p0 / damping - rule.w * deltaEntropy), 0, 1);
}

/**
 * AEPO's split of a group: N = clamp(floor(M sigmoid(0.5 (H_root - H_tool))) + 1, 1, M) root
 * rollouts of M; the rest of the group is left to branches.
 */
export function aepoRootCount(groupSize: number, rootMinusTool: number): number {
  const share = 1 / (1 + Math.exp(-0.5 * rootMinusTool));
  return clamp(Math.floor(groupSize * share) + 1, 1, groupSize);
}
