/** The schedule at its edges. */
import { expect, it } from 'vitest';
import type { ScheduleState } from './schedule.ts';
import { scheduledRunReason } from './schedule.ts';

const MINUTE = 60_000;
const state = (change: Partial<ScheduleState>): ScheduleState => ({
  now: 100 * MINUTE,
  lastRunStartedAt: 90 * MINUTE,
  scheduleStartedAt: 0,
  newScored: 0,
  runPending: false,
  ...change,
});
const both = { minNewScored: 64, everyMinutes: 30 };

it('waits until there are enough newly scored trajectories', () => {
  expect(scheduledRunReason(both, state({ newScored: 63 }))).toBeNull();
  expect(scheduledRunReason(both, state({ newScored: 64 }))).toBe(
    '64 newly scored trajectories (minNewScored 64)',
  );
});

it('starts after the given minutes even without new data', () => {
  expect(scheduledRunReason(both, state({ now: 120 * MINUTE - 1 }))).toBeNull();
  expect(scheduledRunReason(both, state({ now: 120 * MINUTE }))).toContain('30 minutes');
});

it('counts from the start of the schedule before the first run', () => {
  const first = { lastRunStartedAt: null, scheduleStartedAt: 80 * MINUTE };
  expect(scheduledRunReason(both, state(first))).toBeNull();
  expect(scheduledRunReason(both, state({ ...first, now: 110 * MINUTE }))).not.toBeNull();
});

it('is never due while a run is pending, nor when both reasons are off', () => {
  const much = { newScored: 1_000, now: 10_000 * MINUTE };
  expect(scheduledRunReason(both, state({ ...much, runPending: true }))).toBeNull();
  expect(scheduledRunReason({ minNewScored: null, everyMinutes: null }, state(much))).toBeNull();
});
