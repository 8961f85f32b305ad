/**
 * The trainer's side of the wire as a function over a port: says `ready`, waits for the job, runs
 * it, sends its events, turns a throw into the last event, and resolves when the server has
 * everything. Knows nothing of processes (trainer-shell.ts) nor of what a run does (train.ts).
 */
import { toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { FromTrainer, ToTrainer } from './protocol.ts';
import { EventStream } from './protocol.ts';
import type { TrainerEvent, TrainingJob } from './types.ts';

export interface TrainerPort {
  post(message: FromTrainer): void;
  /** Sets the one receiver of messages; none is lost before it is set. */
  receive(handler: (message: ToTrainer) => void): void;
}

export type Emit = (event: TrainerEvent) => Promise<void>;

/**
 * Does the job; its last act is to emit `candidate`. Throws its failures; an abort may throw
 * anything.
 */
export type RunJob = (job: TrainingJob, emit: Emit, signal: AbortSignal) => Promise<void>;

/**
 * Runs one job from first to last message. `cancel` is for a stop that does not come over the port
 * (SIGTERM). `report` gets the error of a failed run with its stack, for the process's own log.
 */
export async function runTrainerJob(
  port: TrainerPort,
  run: RunJob,
  options: { cancel: AbortController; report: (error: Error) => void },
): Promise<void> {
  const { cancel, report } = options;
  const stream = new EventStream((message) => port.post(message));
  const job = await new Promise<TrainingJob>((resolve) => {
    port.receive((message) => {
      if (message.type === 'job') resolve(message.job);
      else if (message.type === 'ack') stream.acknowledge(message.sequence);
      else cancel.abort(new Error('the run was cancelled'));
    });
    port.post({ type: 'ready' });
  });
  try {
    cancel.signal.throwIfAborted();
    await run(job, (event) => emit(stream, event, cancel.signal), cancel.signal);
  } catch (thrown) {
    const error = toAppError(thrown);
    if (cancel.signal.aborted) {
      await stream.send({ type: 'cancelled', runId: job.runId });
    } else {
      report(thrown instanceof Error ? thrown : error);
      const { code, message } = error;
      await stream.send({ type: 'failed', runId: job.runId, code, message });
    }
  }
  await stream.drained(AbortSignal.timeout(LIMITS.trainerStopTimeoutMs)).catch(report);
}

/**
 * Resolves once the event is on the wire; after a `step`, once the server has written it and all
 * before it: a checkpoint may follow, and must not know of more than the log.
 */
async function emit(stream: EventStream, event: TrainerEvent, signal: AbortSignal): Promise<void> {
  await stream.send(event, signal);
  if (event.type === 'step') await stream.drained(signal);
}
