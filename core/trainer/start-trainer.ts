/**
 * The server's side of the trainer process: forks it, hands it one job, passes its events on one at
 * a time, and says how it ended. Nothing that happens to the process (crash, out of memory, kill, a
 * hang) reaches the server but as an outcome.
 *
 * States: starting (until `ready`) -> running -> ending (last event seen, cancelled or given up) ->
 * ended. Stopping goes from asking to SIGTERM to SIGKILL, one stop timeout apart; SIGKILL always
 * works. Knows nothing of runs in the database; the path of the built child is passed in, because
 * core must not know what api wires together.
 */
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { constants, setPriority } from 'node:os';
import type { Readable } from 'node:stream';
import { LIMITS } from '../limits.ts';
import type { Logger } from '../log.ts';
import type { FromTrainer, ToTrainer } from './protocol.ts';
import { isLast } from './protocol.ts';
import type { StartTrainer, TrainerEvent, TrainerHandle, TrainingJob } from './types.ts';

export interface TrainerProcessOptions {
  /** Built JavaScript of the child's main module; see builtModule in core/paths.ts. */
  module: URL;
  /** Of its command line. */
  args?: readonly string[];
  logger: Logger;
  /** Niceness added to the child, so that serving comes first when cores are short. */
  niceness?: number;
  startTimeoutMs?: number;
  silenceTimeoutMs?: number;
  stopTimeoutMs?: number;
}

/**
 * Events may still be in the channel's buffer when the process is gone; this long is waited for
 * them.
 */
const CHANNEL_CLOSE_MS = 1_000;

type Outcome = Awaited<TrainerHandle['done']>;

/** Makes the function that runs one job in a child process. */
export function trainerStarter(options: TrainerProcessOptions): StartTrainer {
  return (job, onEvent) => new TrainerProcess(job, onEvent, options);
}

class TrainerProcess implements TrainerHandle {
  readonly done: Promise<Outcome>;
  private state: 'starting' | 'running' | 'ending' | 'ended' = 'starting';
  private last: TrainerEvent | null = null;
  /** Why we stopped it ourselves; null while nobody did. */
  private stop: { outcome: Outcome['outcome']; reason: string } | null = null;
  /** Events are handled one after another. */
  private handled: Promise<void> = Promise.resolve();
  private errorOutput = '';
  private timer: NodeJS.Timeout | undefined;
  private readonly child: ChildProcess;
  private readonly job: TrainingJob;
  private readonly onEvent: (event: TrainerEvent) => void | Promise<void>;
  private readonly logger: Logger;
  private readonly stopTimeoutMs: number;
  private readonly silenceTimeoutMs: number;

  constructor(
    job: TrainingJob,
    onEvent: (event: TrainerEvent) => void | Promise<void>,
    options: TrainerProcessOptions,
  ) {
    this.job = job;
    this.onEvent = onEvent;
    this.logger = options.logger;
    this.stopTimeoutMs = options.stopTimeoutMs ?? LIMITS.trainerStopTimeoutMs;
    this.silenceTimeoutMs = options.silenceTimeoutMs ?? LIMITS.trainerSilenceMs;
    this.child = fork(options.module, options.args ?? [], {
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      execArgv: [],
    });
    this.lowerPriority(options.niceness ?? constants.priority.PRIORITY_BELOW_NORMAL);
    if (this.child.stderr !== null) this.captureErrors(this.child.stderr);
    this.child.on('message', (message) => this.receive(message as FromTrainer));
    this.awaitSign('failed', options.startTimeoutMs ?? LIMITS.workerStartTimeoutMs);
    this.done = this.ended();
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  cancel(): void {
    if (this.stop !== null || this.last !== null || this.state === 'ended') return;
    this.post({ type: 'cancel' });
    this.end('cancelled', 'cancelled', null);
  }

  /** Kills the child unless it is heard of in time. */
  private awaitSign(outcome: Outcome['outcome'], timeoutMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.end(outcome, `no sign of life within ${timeoutMs} ms`, 'SIGKILL');
    }, timeoutMs);
  }

  private lowerPriority(niceness: number): void {
    if (this.child.pid === undefined) return;
    try {
      setPriority(this.child.pid, niceness);
    } catch (error) {
      // It may have ended already, or the system does not allow it; the run itself is not affected.
      this.logger.warn({ runId: this.job.runId, error }, 'the trainer keeps its priority');
    }
  }

  private captureErrors(stderr: Readable): void {
    stderr.setEncoding('utf8');
    stderr.on('data', (text: string) => {
      this.errorOutput = (this.errorOutput + text).slice(-LIMITS.trainerStderrCharsMax);
      this.logger.warn({ runId: this.job.runId, pid: this.pid }, text.trimEnd());
    });
  }

  private receive(message: FromTrainer): void {
    if (this.state === 'ended') return;
    // A silent one has died, and may go on from its checkpoints.
    if (message.type === 'ready' && this.state === 'starting') this.state = 'running';
    if (this.state === 'running') this.awaitSign('died', this.silenceTimeoutMs);
    if (message.type === 'ready') {
      // Sent to a cancelled process too: it has heard of that already and answers `cancelled`.
      this.post({ type: 'job', job: this.job });
      return;
    }
    if (message.type === 'alive') return;
    this.handled = this.handled.then(() => this.handle(message.event, message.sequence));
  }

  private async handle(event: TrainerEvent, sequence: number): Promise<void> {
    // After a lost event the rest would leave a gap: the run has failed, the process may only end.
    if (this.stop === null || this.stop.outcome === 'cancelled') await this.passOn(event);
    this.post({ type: 'ack', sequence });
  }

  private async passOn(event: TrainerEvent): Promise<void> {
    try {
      await this.onEvent(event);
    } catch (error) {
      this.logger.error({ runId: this.job.runId, error }, `trainer event ${event.type} was lost`);
      const why = error instanceof Error ? error.message : String(error);
      this.end('failed', `event ${event.type} could not be handled: ${why}`, 'SIGTERM');
      return;
    }
    if (isLast(event)) {
      this.last = event;
      this.arm('SIGTERM');
    }
  }

  private post(message: ToTrainer): void {
    // A closed channel is not an error here: the exit that goes with it settles the run.
    if (this.child.connected) this.child.send(message, () => undefined);
  }

  /** Begins to stop the child: `signal` now (null: it was asked by message), harder ones later. */
  private end(outcome: Outcome['outcome'], reason: string, signal: NodeJS.Signals | null): void {
    this.stop ??= { outcome, reason };
    if (signal !== null) this.child.kill(signal);
    this.arm(signal === null ? 'SIGTERM' : 'SIGKILL');
  }

  private arm(signal: NodeJS.Signals): void {
    this.state = 'ending';
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.child.kill(signal);
      if (signal === 'SIGTERM') this.arm('SIGKILL');
    }, this.stopTimeoutMs);
  }

  /** Waits for the process and for the handling of its events; never rejects. */
  private async ended(): Promise<Outcome> {
    const exit = new Promise<string>((resolve) => {
      this.child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
      this.child.once('error', (error) => resolve(`could not be started: ${error.message}`));
    });
    const how = await exit;
    clearTimeout(this.timer);
    if (this.child.connected) {
      const limit = AbortSignal.timeout(CHANNEL_CLOSE_MS);
      await once(this.child, 'disconnect', { signal: limit }).catch(() => undefined);
    }
    await this.handled;
    this.state = 'ended';
    clearTimeout(this.timer);
    return this.outcome(how);
  }

  private outcome(how: string): Outcome {
    const { last, stop } = this;
    if (last?.type === 'candidate') return { outcome: 'completed', detail: last.gate.reason };
    if (last?.type === 'failed') return { outcome: 'failed', detail: last.message };
    if (last !== null) return { outcome: 'cancelled', detail: 'cancelled' };
    if (stop?.outcome === 'cancelled') return { outcome: 'cancelled', detail: `killed: ${how}` };
    if (stop !== null) return { outcome: stop.outcome, detail: stop.reason };
    const lines = this.errorOutput.trim();
    return { outcome: 'died', detail: lines === '' ? how : `${how}: ${lines}` };
  }
}
