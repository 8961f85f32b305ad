/**
 * When a scheduled training run is due (ARCHITECTURE.md, "Training flow"): after `minNewScored`
 * agent runs got a reward since the last run began, or after `everyMinutes`, whichever comes
 * first. A pure decision over counts and times; who counts, who asks and who starts the run is the
 * server's matter.
 */

export interface ScheduleSettings {
  /** Scored agent runs that make a run worthwhile; null = never for this reason. */
  minNewScored: number | null;
  /** Minutes between the starts of two runs; null = never for this reason. */
  everyMinutes: number | null;
  /** What a scheduled run is asked to do; what is left out is as for a run by request. */
  run?: ScheduledRun;
}

export interface ScheduledRun {
  algorithm?: 'arpo' | 'grpo';
  steps?: number;
  settings?: Record<string, unknown>;
}

export interface ScheduleState {
  /** Milliseconds since the epoch. */
  now: number;
  /** Start of the last run, however it was triggered; null when there was none. */
  lastRunStartedAt: number | null;
  /** When the server began to keep the schedule: minutes count from here before the first run. */
  scheduleStartedAt: number;
  /** Agent runs whose reward was set or changed since `lastRunStartedAt`. */
  newScored: number;
  /** A run is active or waits: nothing is due, so that runs never pile up. */
  runPending: boolean;
}

/** Why a run is due, as a sentence for the log; null when none is. */
export function scheduledRunReason(
  settings: ScheduleSettings,
  state: ScheduleState,
): string | null {
  if (state.runPending) return null;
  const { minNewScored, everyMinutes } = settings;
  if (minNewScored !== null && state.newScored >= minNewScored) {
    return `${state.newScored} newly scored trajectories (minNewScored ${minNewScored})`;
  }
  const minutes = (state.now - (state.lastRunStartedAt ?? state.scheduleStartedAt)) / 60_000;
  if (everyMinutes !== null && minutes >= everyMinutes) {
    return `${Math.floor(minutes)} minutes since the last run (everyMinutes ${everyMinutes})`;
  }
  return null;
}
