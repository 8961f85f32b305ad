/**
 * The events of a training run. Those of a run that has ended, or that goes on in another process,
 * are rebuilt from its row, figures and decisions, in the order and number in which they were sent,
 * so a follower can resume after a restart.
 */
import type { PolicyDecision, TrainingMetrics, TrainingRunRecord } from '../core/records.ts';
import type { NumberedEvent } from './event-log.ts';
import type { Schemas } from './handlers.ts';
import { decisionView, gateView, trainingRunView } from './views.ts';

export type TrainingEvent = Schemas['TrainingRunEvent'];

type RunEventType = 'run.created' | 'run.started' | 'run.completed' | 'run.failed';

/** What the database knows of a run. */
export interface StoredRun {
  run: TrainingRunRecord;
  /** In order. */
  metrics: readonly TrainingMetrics[];
  /** Those that were made during the run, oldest first. */
  decisions: readonly PolicyDecision[];
}

export function runEvent(type: RunEventType, run: TrainingRunRecord): TrainingEvent {
  return { type, run: trainingRunView(run) };
}

export function decisionEvent(decision: PolicyDecision): TrainingEvent {
  return { type: 'policy.decided', decision: decisionView(decision) };
}

/** The last event of a run that has ended. */
export function endEvent(run: TrainingRunRecord): TrainingEvent {
  const well = run.status === 'completed' || run.status === 'rejected';
  return runEvent(well ? 'run.completed' : 'run.failed', run);
}

export function storedEvents(stored: StoredRun): NumberedEvent<TrainingEvent>[] {
  const events = [...eventsSoFar(stored), endEvent(stored.run)];
  return events.map((event, i) => ({ id: i + 1, event }));
}

/** All but the last. */
export function eventsSoFar({ run, metrics, decisions }: StoredRun): TrainingEvent[] {
  const counts = {
    rollouts: 0,
    branches: 0,
    toolCallsExecuted: 0,
    toolCallsSaved: 0,
    tokensSampled: 0,
  };
  // What was not known yet when the event was sent is taken out again.
  const before = {
    candidateVersion: null,
    step: 0,
    counts,
    gate: null,
    error: null,
    endedAt: null,
  };
  const events: TrainingEvent[] = [
    runEvent('run.created', {
      ...run,
      ...before,
      status: 'queued',
      baseVersion: null,
      startedAt: null,
    }),
  ];
  if (run.startedAt !== null) {
    events.push(runEvent('run.started', { ...run, ...before, status: 'running' }));
  }
  for (const { step, values } of metrics) events.push({ type: 'step.completed', step, values });
  if (run.gate !== null) events.push({ type: 'gate.completed', gate: gateView(run.gate) });
  events.push(...decisions.map(decisionEvent));
  return events;
}
