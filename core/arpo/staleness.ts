/**
 * Which logged trajectories are young enough to train on (arpo.md section 6). A trajectory can hold
 * tokens of several versions; the one that is furthest from the policy of now counts. After a
 * rollback the log has versions above that one: they are as foreign as those below.
 */
import type { StepRecord } from '../records.ts';

/** Versions between the policy of now and the tokens of the trajectory that are furthest off. */
export function staleness(steps: readonly StepRecord[], currentVersion: number): number {
  let oldest = 0;
  for (const { kind, policyVersion } of steps) {
    if (kind === 'policy') oldest = Math.max(oldest, Math.abs(currentVersion - policyVersion));
  }
  return oldest;
}

/** Whether a trajectory may be trained on; without `maxStaleness` every one may. */
export function isAdmissible(
  trajectory: { steps: readonly StepRecord[] },
  currentVersion: number,
  { maxStaleness }: { maxStaleness?: number },
): boolean {
  return maxStaleness === undefined || staleness(trajectory.steps, currentVersion) <= maxStaleness;
}
