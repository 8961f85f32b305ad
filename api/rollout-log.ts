/**
 * Writes the rollouts of a training step into the step log: in pieces with the event loop's turn
 * between them, so that live requests get theirs; parents first, leaves before their paths.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { LIMITS } from '../core/limits.ts';
import type { StepLog } from '../core/ports.ts';
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';

export async function writeRollouts(
  log: StepLog,
  rollouts: {
    steps: readonly StepRecord[];
    trajectories: readonly TrajectoryRecord[];
    /** The training step. */
    step: number;
  },
): Promise<void> {
  const ordered = [...rollouts.steps].sort((a, b) => a.index - b.index);
  for (const steps of pieces(ordered)) {
    await log.append({ steps });
    await nextTurn();
  }
  for (const trajectories of pieces(rollouts.trajectories)) {
    const ofStep = trajectories.map((record) => ({ ...record, trainingStep: rollouts.step }));
    await log.append({ trajectories: ofStep });
    await nextTurn();
  }
}

function* pieces<T>(rows: readonly T[]): Generator<T[]> {
  for (let at = 0; at < rows.length; at += LIMITS.rolloutRowsPerWrite) {
    yield rows.slice(at, at + LIMITS.rolloutRowsPerWrite);
  }
}
