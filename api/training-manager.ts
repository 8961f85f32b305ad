/**
 * Training runs as the server sees them: a bounded queue, one run at a time, each in a process of
 * its own (StartTrainer). What the trainer reports goes to the database, and a candidate that
 * passes the gate becomes the live policy. A run that fails, dies or is cancelled leaves serving as
 * it was.
 *
 * Status: queued -> running -> completed (candidate live) | rejected (kept, not live) | failed |
 * cancelled | interrupted (the server stopped).
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseSettings } from '../core/arpo/settings.ts';
import type { Clock } from '../core/clock.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import { freshSeed } from '../core/prng.ts';
import { isAdapterDirectory } from '../core/model/lora-directory.ts';
import type { TrainingRunRecord } from '../core/records.ts';
import { scheduledRunReason } from '../core/trainer/schedule.ts';
import type { ScheduleSettings } from '../core/trainer/schedule.ts';
import type { StartTrainer, TrainerEvent, TrainerHandle } from '../core/trainer/types.ts';
import type { TrainingRunChange } from '../db/training-store.ts';
import type { Stores } from '../db/stores.ts';
import { EventLog } from './event-log.ts';
import type { PolicyService } from './policy-service.ts';
import { writeRollouts } from './rollout-log.ts';
import { runEvent, storedEvents } from './training-events.ts';
import type { TrainingEvent } from './training-events.ts';
import { gateView } from './views.ts';

export interface RetrainRequest {
  algorithm: 'arpo' | 'grpo';
  /** Default of the algorithm when absent. */
  steps?: number;
  settings: Record<string, unknown>;
  seed?: number;
}

export interface TrainingManagerOptions {
  stores: Stores;
  policies: PolicyService;
  startTrainer: StartTrainer;
  /** Candidates are written to <policiesFolder>/<version>. */
  policiesFolder: string;
  threads: number;
  device: 'cpu' | 'cuda' | 'webgpu';
  schedule: ScheduleSettings;
  clock: Clock;
  newId: NewId;
  logger: Logger;
}

/** Steps of a run that names none: enough for the embedded policy to learn its tasks. */
export const DEFAULT_STEPS = 100;

interface Queued {
  id: string;
  /** As requested: what they mean depends on the kind of the base, known when the run starts. */
  overrides: Record<string, unknown>;
  seed: number;
  events: EventLog<TrainingEvent>;
}

interface Active extends Queued {
  baseVersion: number;
  version: number;
  handle: TrainerHandle;
  cancelled: boolean;
}

/** How a run ends, once its process has. */
type Ending = Pick<TrainingRunRecord, 'status' | 'error'>;

export class TrainingManager {
  private readonly options: TrainingManagerOptions;
  /** The first stays here until it is active: at every moment a run is queued, active or ended. */
  private readonly queue: Queued[] = [];
  private active: Active | null = null;
  /** The ending that the trainer's last event decided; null while it has sent none. */
  private ending: Ending | null = null;
  private working: Promise<void> | null = null;
  private stopping = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly scheduleStartedAt: number;

  constructor(options: TrainingManagerOptions) {
    this.options = options;
    this.scheduleStartedAt = options.clock.now();
  }

  /** Begins to look at the schedule. */
  start(): void {
    const { minNewScored, everyMinutes } = this.options.schedule;
    if (minNewScored === null && everyMinutes === null) return;
    this.timer = setInterval(() => this.lookAtSchedule(), LIMITS.schedulePollMs);
    this.timer.unref();
  }

  /**
   * Queues a run and starts it when none is active.
   * @throws AppError invalid_request, unsupported_parameter (settings), training_queue_full.
   */
  retrain(
    request: RetrainRequest,
    trigger: TrainingRunRecord['trigger'] = 'request',
  ): TrainingRunRecord {
    const { stores, policies, clock, newId } = this.options;
    const { kind } = stores.policies.get(policies.liveVersion);
    const settings = { ...parseSettings(request.algorithm, request.settings, kind) };
    this.checkTasks();
    if (this.stopping) throw new AppError('not_ready', 'the server is stopping');
    if (this.working !== null && this.queue.length >= LIMITS.trainingQueueMax) {
      throw new AppError(
        'training_queue_full',
        `a run is active and ${this.queue.length} wait; no more fit`,
        { retryAfterS: 60 },
      );
    }
    const run = stores.training.create({
      id: newId('trainingRun'),
      status: 'queued',
      trigger,
      algorithm: request.algorithm,
      settings,
      baseVersion: null,
      candidateVersion: null,
      step: 0,
      steps: request.steps ?? DEFAULT_STEPS,
      counts: {
        rollouts: 0,
        branches: 0,
        toolCallsExecuted: 0,
        toolCallsSaved: 0,
        tokensSampled: 0,
      },
      gate: null,
      error: null,
      createdAt: clock.now(),
      startedAt: null,
      endedAt: null,
    });
    const events = new EventLog<TrainingEvent>();
    events.append(runEvent('run.created', run));
    const seed = request.seed ?? freshSeed();
    this.queue.push({ id: run.id, overrides: request.settings, seed, events });
    this.working ??= this.work();
    return stores.training.get(run.id);
  }

  /** @throws AppError training_run_not_found, training_run_finished. */
  cancel(id: string): TrainingRunRecord {
    const { stores } = this.options;
    const run = stores.training.get(id);
    if (this.active?.id === id) {
      this.active.cancelled = true;
      this.active.handle.cancel();
      return run;
    }
    const place = this.queue.findIndex((queued) => queued.id === id);
    if (place === -1) {
      throw new AppError('training_run_finished', `training run ${id} has ended: ${run.status}`);
    }
    const [queued] = this.queue.splice(place, 1);
    return this.end(queued as Queued, { status: 'cancelled', error: null });
  }

  /** The events of a run: a live log, or the list rebuilt from the database. */
  events(id: string): EventLog<TrainingEvent> | ReturnType<typeof storedEvents> {
    const { training } = this.options.stores;
    const run = training.get(id);
    if (this.active?.id === id) return this.active.events;
    const queued = this.queue.find((waiting) => waiting.id === id);
    return queued?.events ?? storedEvents(run, training.metrics(id));
  }

  /** Ends the active run and those that wait, marks them interrupted, and waits for the process. */
  async stop(): Promise<void> {
    this.stopping = true;
    clearInterval(this.timer);
    for (const queued of this.queue.splice(0)) this.end(queued, INTERRUPTED);
    this.active?.handle.cancel();
    await this.working;
  }

  private async work(): Promise<void> {
    // Let `retrain` answer first: starting a process reads all tasks.
    await nextTurn();
    // Every round takes the first run out of the queue, or a cancellation has.
    for (let next = this.queue[0]; next !== undefined; next = this.queue[0]) {
      try {
        await this.run(next);
      } catch (thrown) {
        const error = toAppError(thrown);
        if (this.queue[0] === next) this.queue.shift();
        this.options.logger.error({ runId: next.id, stack: error.stack }, error.message);
        this.end(next, { status: 'failed', error: error.message });
      }
      this.active = null;
    }
    this.working = null;
  }

  private async run(queued: Queued): Promise<void> {
    const { stores, policies, startTrainer, policiesFolder, threads, device, clock } = this.options;
    const baseVersion = policies.liveVersion;
    const base = stores.policies.get(baseVersion);
    const version = stores.policies.nextVersion();
    const candidateDirectory = join(policiesFolder, String(version));
    // Left over from a run that died between writing and registering: nobody knows it.
    await rm(candidateDirectory, { recursive: true, force: true });
    // Cancelled or interrupted meanwhile, and ended then.
    if (this.queue[0] !== queued) return;
    const run = this.update(queued.id, {
      status: 'running',
      baseVersion,
      startedAt: clock.now(),
    });
    queued.events.append(runEvent('run.started', run));
    this.ending = null;
    const handle = startTrainer(
      {
        runId: run.id,
        algorithm: run.algorithm,
        steps: run.steps,
        settings: queued.overrides,
        seed: queued.seed,
        baseVersion,
        baseDirectory: base.path,
        baseKind: base.kind,
        candidateDirectory,
        trainTasks: stores.tasks.select({ split: 'train' }),
        gateTasks: stores.tasks.select({ split: 'gate' }),
        threads,
        device,
      },
      (event) => this.receive(event),
    );
    this.queue.shift();
    this.active = { ...queued, baseVersion, version, handle, cancelled: false };
    const { outcome, detail } = await handle.done;
    this.end(queued, this.endingOf(outcome, detail));
  }

  private endingOf(outcome: string, detail: string): Ending {
    if (this.ending !== null) return this.ending;
    if (this.stopping) return INTERRUPTED;
    if (outcome === 'cancelled') return { status: 'cancelled', error: null };
    const error = outcome === 'died' ? `the trainer process died: ${detail}` : detail;
    return { status: 'failed', error };
  }

  private async receive(event: TrainerEvent): Promise<void> {
    const active = this.active;
    if (active === null || event.runId !== active.id) return;
    switch (event.type) {
      case 'started':
        this.update(active.id, { settings: event.settings });
        return;
      case 'rollouts':
        await writeRollouts(this.options.stores.stepLog, event);
        return;
      case 'step':
        this.options.stores.training.appendMetrics({
          runId: active.id,
          step: event.step,
          values: event.values,
          createdAt: this.options.clock.now(),
        });
        this.update(active.id, { step: event.step, counts: event.counts });
        active.events.append({
          type: 'step.completed',
          step: event.step,
          values: event.values,
        });
        return;
      case 'candidate':
        await this.judge(active, event);
        return;
      case 'failed':
        this.ending = { status: 'failed', error: event.message };
        return;
      case 'resumed':
      case 'stopped':
        return;
      case 'cancelled':
        // Whether a client or a shutdown cancelled it is decided at the end.
        return;
    }
  }

  /** Registers the candidate; the gate decides whether it goes live. */
  private async judge(
    active: Active,
    event: Extract<TrainerEvent, { type: 'candidate' }>,
  ): Promise<void> {
    const { stores, policies, clock } = this.options;
    const { gate } = event;
    const { version } = stores.policies.register({
      version: active.version,
      parentVersion: active.baseVersion,
      kind: isAdapterDirectory(event.directory) ? 'lora' : 'full',
      path: event.directory,
      sha256: event.sha256,
      sourceRunId: active.id,
      status: 'candidate',
      evaluation: gate,
      createdAt: clock.now(),
    });
    this.update(active.id, { candidateVersion: version, gate });
    active.events.append({ type: 'gate.completed', gate: gateView(gate) });
    if (!gate.passed) {
      stores.policies.setStatus(version, 'rejected');
      this.ending = { status: 'rejected', error: null };
      return;
    }
    if (policies.liveVersion !== active.baseVersion) {
      // The gate compared it with a policy that is live no more: a person decides.
      const now = policies.liveVersion;
      const error = `the live policy changed from ${active.baseVersion} to ${now} meanwhile`;
      this.ending = { status: 'rejected', error };
      return;
    }
    try {
      await policies.activate(version);
      this.ending = { status: 'completed', error: null };
    } catch (thrown) {
      const error = toAppError(thrown);
      const message = `the candidate could not be activated: ${error.message}`;
      this.options.logger.error({ runId: active.id, stack: error.stack }, message);
      this.ending = { status: 'failed', error: message };
    }
  }

  private end(queued: Queued, ending: Ending): TrainingRunRecord {
    const run = this.update(queued.id, { ...ending, endedAt: this.options.clock.now() });
    const well = ending.status === 'completed' || ending.status === 'rejected';
    queued.events.append(runEvent(well ? 'run.completed' : 'run.failed', run));
    queued.events.close();
    this.options.logger.info({ runId: run.id, ...ending }, 'training run ended');
    return run;
  }

  private update(id: string, change: TrainingRunChange): TrainingRunRecord {
    return this.options.stores.training.update(id, change);
  }

  private checkTasks(): void {
    for (const split of ['train', 'gate'] as const) {
      if (this.options.stores.tasks.count({ split }) > 0) continue;
      throw new AppError('invalid_request', `source: no task of split '${split}' is stored`, {
        param: 'source',
      });
    }
  }

  /** Starts a run when one is due; called by the timer. */
  lookAtSchedule(): void {
    const { schedule, stores, clock, logger } = this.options;
    try {
      const last = stores.training.list({}, { limit: 1 }).items[0];
      const lastRunStartedAt = last === undefined ? null : (last.startedAt ?? last.createdAt);
      const reason = scheduledRunReason(schedule, {
        now: clock.now(),
        lastRunStartedAt,
        scheduleStartedAt: this.scheduleStartedAt,
        newScored: stores.trajectories.countNewScored(lastRunStartedAt ?? 0),
        runPending: this.working !== null,
      });
      if (reason === null) return;
      const run = this.retrain({ algorithm: 'arpo', settings: {} }, 'schedule');
      logger.info({ runId: run.id, reason }, 'scheduled training run');
    } catch (error) {
      logger.error({ error }, 'the scheduled training run could not be started');
    }
  }
}

const INTERRUPTED: Ending = {
  status: 'interrupted',
  error: 'the server stopped before the run ended',
};
