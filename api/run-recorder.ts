/**
 * Writes what the trainer of one run reports: rollouts, figures, and the candidate, which it hands
 * on to be judged. A run may have several trainer processes, one after another; what one of them
 * does again takes the place of what was written before, and followers are told of it once.
 */
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { isAdapterDirectory } from '../core/model/lora-directory.ts';
import type { GateReport, TrainingRunRecord } from '../core/records.ts';
import type { TrainerEvent } from '../core/trainer/types.ts';
import type { Stores } from '../db/stores.ts';
import type { EventLog } from './event-log.ts';
import type { PolicyReleases } from './policy-releases.ts';
import { writeRollouts } from './rollout-log.ts';
import { decisionEvent } from './training-events.ts';
import type { StoredRun, TrainingEvent } from './training-events.ts';
import { gateView } from './views.ts';

/** How a run ends, once its process has. */
export type Ending = Pick<TrainingRunRecord, 'status' | 'error'>;

export interface RunRecorderOptions {
  stores: Stores;
  releases: PolicyReleases;
  clock: Clock;
  logger: Logger;
  run: { id: string; baseVersion: number; version: number; events: EventLog<TrainingEvent> };
}

export class RunRecorder {
  /** The ending that the trainer's last event decided; null while it has sent none. */
  ending: Ending | null = null;
  private readonly options: RunRecorderOptions;
  /** The newest step that followers were told of. */
  private shownStep: number;
  /** Whether what an earlier process wrote beyond this one's start is gone. */
  private replaced = false;

  constructor(options: RunRecorderOptions) {
    this.options = options;
    this.shownStep = this.stored().metrics.at(-1)?.step ?? 0;
  }

  /** To be called before each process. */
  begin(): void {
    this.replaced = false;
  }

  async receive(event: TrainerEvent): Promise<void> {
    const { stores, logger, run } = this.options;
    if (event.runId !== run.id) return;
    switch (event.type) {
      case 'started':
        stores.training.update(run.id, { settings: event.settings });
        return;
      case 'resumed':
        logger.info({ runId: run.id, step: event.step, refused: event.refused }, 'run resumed');
        return this.replaceAfter(event.step);
      case 'rollouts':
        // Without a checkpoint a process starts over, and does not say so.
        await this.replaceAfter(event.step - 1);
        return writeRollouts(stores.stepLog, event);
      case 'step':
        return this.step(event);
      case 'stopped':
        logger.info({ runId: run.id, step: event.step, reason: event.reason }, 'run stopped early');
        return;
      case 'candidate':
        return this.judge(event);
      case 'failed':
        this.ending = { status: 'failed', error: event.message };
        return;
      case 'cancelled':
        // Whether a client or a shutdown cancelled it is decided at the end.
        return;
    }
  }

  /** Ends a run whose candidate an earlier process of the server registered, if it did. */
  async finishRegistered(): Promise<void> {
    const { stores, run } = this.options;
    const policy = stores.policies.find(run.version);
    if (policy === null || policy.sourceRunId !== run.id || policy.evaluation === null) return;
    this.showGate(policy.evaluation);
    if (policy.status === 'candidate') await this.release(policy.evaluation);
    else if (policy.status === 'rejected') this.ending = { status: 'rejected', error: null };
    else this.ending = { status: 'completed', error: null };
  }

  private async replaceAfter(step: number): Promise<void> {
    if (this.replaced) return;
    this.replaced = true;
    await this.options.stores.rolloutRemoval.removeAfter(this.options.run.id, step);
  }

  private step(event: Extract<TrainerEvent, { type: 'step' }>): void {
    const { stores, clock, run } = this.options;
    const { step, values, counts } = event;
    stores.training.appendMetrics({ runId: run.id, step, values, createdAt: clock.now() });
    if (step <= this.shownStep) return;
    this.shownStep = step;
    stores.training.update(run.id, { step, counts, attempts: 0 });
    run.events.append({ type: 'step.completed', step, values });
  }

  /** Registers the candidate; the gate decides whether it goes live. */
  private async judge(event: Extract<TrainerEvent, { type: 'candidate' }>): Promise<void> {
    const { stores, clock, run } = this.options;
    const { gate, directory, sha256 } = event;
    stores.policies.register({
      version: run.version,
      parentVersion: run.baseVersion,
      kind: isAdapterDirectory(directory) ? 'lora' : 'full',
      path: directory,
      sha256,
      sourceRunId: run.id,
      status: 'candidate',
      evaluation: gate,
      createdAt: clock.now(),
    });
    this.showGate(gate);
    await this.release(gate);
  }

  private showGate(gate: GateReport): void {
    const { stores, run } = this.options;
    if (stores.training.get(run.id).gate !== null) return;
    stores.training.update(run.id, { candidateVersion: run.version, gate });
    run.events.append({ type: 'gate.completed', gate: gateView(gate) });
  }

  private async release(gate: GateReport): Promise<void> {
    const { releases, run } = this.options;
    const { id: runId, version, baseVersion } = run;
    const before = this.stored().decisions.length;
    this.ending = await releases.release({ version, baseVersion, gate, runId });
    const made = this.stored().decisions.slice(before);
    for (const decision of made) run.events.append(decisionEvent(decision));
  }

  private stored(): StoredRun {
    return storedRun(this.options.stores, this.options.run.id);
  }
}

/** Everything that the database has of a run's course. @throws AppError training_run_not_found */
export function storedRun({ training, policies }: Stores, id: string): StoredRun {
  return {
    run: training.get(id),
    metrics: training.metrics(id),
    // Of one candidate: few.
    decisions: policies.decisions.list({ trainingRunId: id }).items.reverse(),
  };
}
