/**
 * The events of a training run. Those of a run that has ended are rebuilt from its row and figures,
 * in the order and number in which they were sent, so a follower can resume after a restart.
 */
import type { TrainingMetrics, TrainingRunRecord } from '../core/records.ts';
import type { NumberedEvent } from './event-log.ts';
import type { Schemas } from './handlers.ts';
import { gateView, trainingRunView } from './views.ts';

export type TrainingEvent = Schemas['TrainingRunEvent'];

type RunEventType = 'run.created' | 'run.started' | 'run.completed' | 'run.failed';

export function runEvent(type: RunEventType, run: TrainingRunRecord): TrainingEvent {
  return { type, run: trainingRunView(run) };
}

export function storedEvents(
  run: TrainingRunRecord,
  metrics: readonly TrainingMetrics[],
): NumberedEvent<TrainingEvent>[] {
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
  const well = run.status === 'completed' || run.status === 'rejected';
  events.push(runEvent(well ? 'run.completed' : 'run.failed', run));
  return events.map((event, i) => ({ id: i + 1, event }));
}
