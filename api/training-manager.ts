/**
 * Training runs as the server sees them: a bounded queue, one run at a time, each in a process of
 * its own (StartTrainer). What the trainer reports goes to the database (run-recorder.ts), and a
 * candidate that passes the gate is released. A run that fails or is cancelled leaves serving as it
 * was. One whose process dies goes on from its checkpoint in another one; one that a stop of the
 * server interrupted does so when it starts again.
 *
 * Status: queued -> running -> completed (candidate released) | rejected (kept, not live) | failed
 * | cancelled | interrupted (the server stopped; queued again at its next start).
 */
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { parseSettings } from '../core/arpo/settings.ts';
import type { Clock } from '../core/clock.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import { freshSeed } from '../core/prng.ts';
import type { TrainingRunRecord } from '../core/records.ts';
import { scheduledRunReason } from '../core/trainer/schedule.ts';
import type { ScheduleSettings } from '../core/trainer/schedule.ts';
import type { StartTrainer, TrainerHandle, TrainingJob } from '../core/trainer/types.ts';
import type { TrainingRunChange } from '../db/training-store.ts';
import { EventLog } from './event-log.ts';
import type { PolicyReleases } from './policy-releases.ts';
import { RunRecorder, storedRun } from './run-recorder.ts';
import type { Ending } from './run-recorder.ts';
import { endEvent, eventsSoFar, runEvent, storedEvents } from './training-events.ts';
import type { TrainingEvent } from './training-events.ts';
import { candidateVersion, DEFAULT_STEPS, TrainingJobs } from './training-jobs.ts';
import type { RetrainRequest, SeededRequest, TrainingJobsOptions } from './training-jobs.ts';

export interface TrainingManagerOptions extends TrainingJobsOptions {
  releases: PolicyReleases;
  startTrainer: StartTrainer;
  /** Called after each run: deletes what is too much. */
  afterRun?: () => Promise<void>;
  /** Pause before a trainer that died is started again; LIMITS.trainerRestartMs by default. */
  restartMs?: number;
  schedule: ScheduleSettings;
  clock: Clock;
  newId: NewId;
}

interface Queued {
  id: string;
  /** As requested: what it means depends on the kind of the base, known when the run starts. */
  request: SeededRequest;
  events: EventLog<TrainingEvent>;
}

interface Active extends Queued {
  /** Null between two processes. */
  handle: TrainerHandle | null;
  /** Ends the pause between two processes. */
  wake: AbortController;
  cancelled: boolean;
}

export class TrainingManager {
  private readonly options: TrainingManagerOptions;
  private readonly jobs: TrainingJobs;
  /** The first stays here until it is active: at every moment a run is queued, active or ended. */
  private readonly queue: Queued[] = [];
  private active: Active | null = null;
  private working: Promise<void> | null = null;
  private stopping = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly scheduleStartedAt: number;

  constructor(options: TrainingManagerOptions) {
    this.options = options;
    this.jobs = new TrainingJobs(options);
    this.scheduleStartedAt = options.clock.now();
  }

  /**
   * Takes up the runs that an earlier process of the server left, then begins to look at the
   * schedule.
   */
  async start(): Promise<void> {
    await this.takeUp();
    void this.options.afterRun?.();
    const { minNewScored, everyMinutes } = this.options.schedule;
    if (minNewScored === null && everyMinutes === null) return;
    this.timer = setInterval(() => this.lookAtSchedule(), LIMITS.schedulePollMs);
    this.timer.unref();
  }

  /**
   * Queues a run and starts it when none is active.
   * @throws AppError invalid_request, training_queue_full, not_ready.
   */
  retrain(
    request: RetrainRequest,
    trigger: TrainingRunRecord['trigger'] = 'request',
  ): TrainingRunRecord {
    const { stores, policies, clock, newId } = this.options;
    const { kind } = stores.policies.get(policies.liveVersion);
    const { algorithm, settings: overrides, source = 'tasks' } = request;
    const fedWith = this.jobs.sourceOf(request);
    const settings = { ...parseSettings(algorithm, overrides, kind, fedWith) };
    this.jobs.checkSource(source);
    if (this.stopping) throw new AppError('not_ready', 'the server is stopping');
    if (this.working !== null && this.queue.length >= LIMITS.trainingQueueMax) {
      throw new AppError(
        'training_queue_full',
        `a run is active and ${this.queue.length} wait; no more fit`,
        { retryAfterS: 60 },
      );
    }
    const seeded: SeededRequest = { ...request, seed: request.seed ?? freshSeed() };
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
      request: { ...seeded },
    });
    const events = new EventLog<TrainingEvent>();
    events.append(runEvent('run.created', run));
    this.queue.push({ id: run.id, request: seeded, events });
    this.working ??= this.work();
    return stores.training.get(run.id);
  }

  /** @throws AppError training_run_not_found, training_run_finished. */
  cancel(id: string): TrainingRunRecord {
    const { stores } = this.options;
    const run = stores.training.get(id);
    if (this.active?.id === id) {
      this.active.cancelled = true;
      this.endProcess(this.active);
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
    if (this.active?.id === id) return this.active.events;
    const queued = this.queue.find((waiting) => waiting.id === id);
    return queued?.events ?? storedEvents(storedRun(this.options.stores, id));
  }

  /**
   * Ends the process of the active run and waits for it. That run and those that wait are marked
   * interrupted; they keep their checkpoints.
   */
  async stop(): Promise<void> {
    this.stopping = true;
    clearInterval(this.timer);
    for (const queued of this.queue.splice(0)) this.end(queued, INTERRUPTED);
    if (this.active !== null) this.endProcess(this.active);
    await this.working;
  }

  private endProcess({ handle, wake }: Active): void {
    handle?.cancel();
    wake.abort();
  }

  private async takeUp(): Promise<void> {
    const { stores, clock, runFiles, logger } = this.options;
    const giveUp = (id: string, ending: Ending): void =>
      void this.update(id, { ...ending, endedAt: clock.now() });
    for (const { id, request, attempts } of stores.training.unfinished()) {
      if (request === null) {
        giveUp(id, INTERRUPTED);
      } else if (attempts >= LIMITS.trainingAttemptsMax) {
        giveUp(id, { status: 'failed', error: `interrupted ${attempts} times without a new step` });
      } else {
        this.update(id, { status: 'queued', error: null, endedAt: null });
        const events = new EventLog<TrainingEvent>();
        for (const event of eventsSoFar(storedRun(stores, id))) events.append(event);
        // Written by `retrain` of this very class.
        this.queue.push({ id, request: request as unknown as SeededRequest, events });
        logger.info({ runId: id }, 'an interrupted training run is taken up');
      }
    }
    await runFiles.removeOthers(this.queue.map(({ id }) => id));
    if (this.queue.length > 0) this.working ??= this.work();
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
        const { stores, logger } = this.options;
        const { status, endedAt } = stores.training.get(next.id);
        // A cancellation removes the files of a run, also while they are written: no failure then.
        if (status !== 'cancelled') {
          logger.error({ runId: next.id, stack: error.stack }, error.message);
        }
        if (endedAt === null) this.end(next, { status: 'failed', error: error.message });
      }
      this.active = null;
    }
    this.working = null;
  }

  private async run(queued: Queued): Promise<void> {
    const { stores, clock } = this.options;
    const job = await this.jobs.jobOf(queued);
    if (this.queue[0] !== queued) {
      // Ended meanwhile: cancelled, or interrupted.
      if (!this.stopping) await this.options.runFiles.remove(queued.id);
      return;
    }
    const { startedAt } = stores.training.get(queued.id);
    const run = this.update(queued.id, {
      status: 'running',
      baseVersion: job.baseVersion,
      startedAt: startedAt ?? clock.now(),
    });
    if (startedAt === null) queued.events.append(runEvent('run.started', run));
    this.queue.shift();
    const active = { ...queued, handle: null, wake: new AbortController(), cancelled: false };
    this.active = active;
    this.end(queued, await this.train(active, job));
  }

  /** Trainer processes, one after another while they die, until the run has an ending. */
  private async train(active: Active, job: TrainingJob): Promise<Ending> {
    const { stores, startTrainer, restartMs = LIMITS.trainerRestartMs } = this.options;
    const recorder = this.recorder(active, job);
    await recorder.finishRegistered();
    if (recorder.ending !== null) return recorder.ending;
    // At most so many processes in a row without a new step, and a run has so many steps.
    for (let died = ''; ;) {
      const { attempts } = stores.training.get(active.id);
      if (attempts >= LIMITS.trainingAttemptsMax) {
        const error = `the trainer process died ${attempts} times without a new step: ${died}`;
        return { status: 'failed', error };
      }
      this.update(active.id, { attempts: attempts + 1 });
      recorder.begin();
      active.handle = startTrainer(job, (event) => recorder.receive(event));
      const { outcome, detail } = await active.handle.done;
      active.handle = null;
      if (recorder.ending !== null) return recorder.ending;
      if (this.stopping) return this.interrupted(active.id);
      if (active.cancelled || outcome === 'cancelled') return CANCELLED;
      if (outcome !== 'died') return { status: 'failed', error: detail };
      died = detail;
      this.options.logger.warn({ runId: active.id, detail }, 'the trainer process died');
      // Ended by a cancellation or a stop.
      await pause(restartMs, undefined, { signal: active.wake.signal }).catch(() => undefined);
      if (this.stopping) return this.interrupted(active.id);
      if (active.cancelled) return CANCELLED;
    }
  }

  private recorder(active: Active, job: TrainingJob): RunRecorder {
    const { stores, releases, clock, logger } = this.options;
    const { id, events } = active;
    const run = { id, events, baseVersion: job.baseVersion, version: candidateVersion(job) };
    return new RunRecorder({ stores, releases, clock, logger, run });
  }

  /** A stop in good order is not the run's fault: its process does not count. */
  private interrupted(id: string): Ending {
    const { attempts } = this.options.stores.training.get(id);
    this.update(id, { attempts: Math.max(0, attempts - 1) });
    return INTERRUPTED;
  }

  private end(queued: Queued, ending: Ending): TrainingRunRecord {
    const { clock, runFiles, afterRun, logger } = this.options;
    const run = this.update(queued.id, { ...ending, endedAt: clock.now() });
    // The events of an interrupted run go on after the next start, under the next number.
    if (ending.status !== 'interrupted') {
      queued.events.append(endEvent(run));
      runFiles.remove(run.id).catch((error: unknown) => {
        logger.warn({ runId: run.id, error }, 'files of a training run could not be deleted');
      });
    }
    queued.events.close();
    logger.info({ runId: run.id, ...ending }, 'training run ended');
    if (!this.stopping) void afterRun?.();
    return run;
  }

  private update(id: string, change: TrainingRunChange): TrainingRunRecord {
    return this.options.stores.training.update(id, change);
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
      const run = this.retrain(
        { algorithm: 'arpo', settings: {}, ...schedule.run, source: 'both' },
        'schedule',
      );
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

const CANCELLED: Ending = { status: 'cancelled', error: null };
