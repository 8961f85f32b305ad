/** Starts a training run and follows it to its end by its event stream. */
import { AppError } from '../../core/errors.ts';
import type { HttpClient, Schemas } from './http-client.ts';

/** Far above the 10 minutes that the embedded policy needs on two cores. */
const TRAINING_MS = 60 * 60_000;

export type TrainingEvent = Schemas['TrainingRunEvent'];

export interface StepFigures {
  step: number;
  values: Record<string, number>;
}

export interface Training {
  /** As it ended. */
  run: Schemas['TrainingRun'];
  steps: StepFigures[];
}

/**
 * `onEvent` is told of every event as it comes.
 * @throws AppError internal when the stream ends early.
 */
export async function train(
  client: HttpClient,
  request: Schemas['RetrainRequest'],
  onEvent: (event: TrainingEvent) => void,
): Promise<Training> {
  const { id } = await client.retrain(request);
  const steps: StepFigures[] = [];
  for await (const event of client.trainingEvents(id, TRAINING_MS)) {
    onEvent(event);
    if (event.type === 'step.completed') steps.push({ step: event.step, values: event.values });
    if (event.type === 'run.completed' || event.type === 'run.failed') {
      return { run: event.run, steps };
    }
  }
  throw new AppError('internal', `the events of training run ${id} stopped before its end`);
}
