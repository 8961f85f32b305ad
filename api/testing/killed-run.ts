/**
 * A training run whose process is killed (SIGKILL) at given moments and started again each time, as
 * the server does with an interrupted run; and the same run left alone, to compare with.
 *
 * A moment is an event of the process, not a time on the clock: the trainer waits until a `step` is
 * acknowledged, and after its last event too, so a kill from the handler of an event always meets a
 * process at work. A delay may be added to fall anywhere behind the event (sampling, an update, a
 * write); a process that comes to its `candidate` first is killed there, so every kill lands.
 */
import { existsSync, mkdirSync, readdirSync, rmSync, watch } from 'node:fs';
import { must } from '../../core/assert.ts';
import { quiet } from '../../core/log.ts';
import { builtModule } from '../../core/paths.ts';
import { uniform } from '../../core/prng.ts';
import { trainerStarter } from '../../core/trainer/start-trainer.ts';
import type { TrainerEvent, TrainingJob } from '../../core/trainer/types.ts';

export interface Moment {
  /** The event that brings the kill. */
  due: (event: TrainerEvent) => boolean;
  /** From that event on, kill when the next checkpoint begins to be written. */
  inCheckpoint?: boolean;
  /** From the event, or from the begin of the checkpoint, to the kill; absent: at once. */
  delayMs?: number;
}

export interface Kill {
  /** The last event before it, and the step done then. */
  event: string;
  step: number;
  /** Whether it left a checkpoint half written. */
  halfWritten: boolean;
  /** The step after which the next process went on. */
  resumedAt: number;
}

type Candidate = Extract<TrainerEvent, { type: 'candidate' }>;

const startTrainer = trainerStarter({
  module: builtModule(import.meta.url, '../trainer-process.ts'),
  logger: quiet,
});

/** Writing and syncing the arrays of the shipped policy takes some tens of milliseconds. */
const CHECKPOINT_MS = 40;

/** Kills that are spread over a run: the base's answers, the steps, checkpoints, the end. */
export function seededMoments(options: {
  kills: number;
  steps: number;
  seed: number;
  /** Longest time from an event to the kill, about that of a step. */
  delayMsMax: number;
}): Moment[] {
  const { kills, steps, seed, delayMsMax } = options;
  return Array.from({ length: kills }, (_, i): Moment => {
    const delayMs = uniform(seed, i, 0) * delayMsMax;
    if (i === kills - 1) return { due: ({ type }) => type === 'candidate' };
    if (i === kills - 2) return { due: stepDone(steps), delayMs };
    if (i === 0) return { due: ({ type }) => type === 'started', delayMs };
    const target = 1 + Math.floor(((i - 1 + uniform(seed, i, 1)) * steps) / kills);
    if (i % 3 === 2) {
      const share = uniform(seed, i, 2);
      return { due: stepDone(target), inCheckpoint: true, delayMs: share * CHECKPOINT_MS };
    }
    return { due: (event) => event.type === 'rollouts' && event.step >= target, delayMs };
  });
}

const stepDone =
  (step: number) =>
  (event: TrainerEvent): boolean =>
    event.type === 'step' && event.step >= step;

/** Runs a job to its end without disturbance. Throws what made it end otherwise. */
export async function wholeRun(job: TrainingJob): Promise<Candidate> {
  return (await live(job, null)).candidate;
}

/** Runs a job that has a checkpoint folder, killing it at each moment; then lets it end. */
export async function killedRun(
  job: TrainingJob,
  moments: readonly Moment[],
): Promise<{ candidate: Candidate; kills: Kill[] }> {
  const kills: Kill[] = [];
  const folder = must(job.checkpointDirectory, 'a checkpoint folder');
  mkdirSync(folder, { recursive: true });
  for (const moment of moments) {
    const { events } = await live(job, moment);
    noteResume(kills, resumedStep(events));
    kills.push({ ...killOf(events), halfWritten: readdirSync(folder).some(isPartial) });
    // As the server does: a candidate that nobody registered is in the way of the next one.
    rmSync(job.candidateDirectory, { recursive: true, force: true });
  }
  const { candidate, events } = await live(job, null);
  noteResume(kills, resumedStep(events));
  return { candidate, kills };
}

/** One process, to its end or to its kill. Throws when it ended in any other way. */
async function live(job: TrainingJob, moment: null): Promise<Life & { candidate: Candidate }>;
async function live(job: TrainingJob, moment: Moment): Promise<Life>;
async function live(job: TrainingJob, moment: Moment | null): Promise<Life> {
  const events: TrainerEvent[] = [];
  let killed = false;
  const killer = new Killer(moment, job.checkpointDirectory, () => {
    const { pid } = handle;
    if (pid === undefined || !existsSync(`/proc/${pid}`)) return;
    process.kill(pid, 'SIGKILL');
    killed = true;
  });
  const handle = startTrainer(job, (event) => {
    // What was on its way already says nothing about the moment of the kill.
    if (killed) return;
    events.push(event);
    killer.see(event);
  });
  const { outcome, detail } = await handle.done;
  killer.stop();
  const last = events.at(-1);
  if (moment !== null && killed) return { candidate: null, events };
  if (moment === null && last?.type === 'candidate') return { candidate: last, events };
  throw new Error(`the run ${outcome} unasked: ${detail}`);
}

interface Life {
  candidate: Candidate | null;
  events: readonly TrainerEvent[];
}

/** Waits for its moment in what a process tells, and in its checkpoint folder. */
class Killer {
  private readonly moment: Moment | null;
  private readonly folder: string | undefined;
  private readonly kill: () => void;
  private due = false;
  private timer: NodeJS.Timeout | undefined;
  private watcher: ReturnType<typeof watch> | undefined;

  constructor(moment: Moment | null, folder: string | undefined, kill: () => void) {
    [this.moment, this.folder, this.kill] = [moment, folder, kill];
  }

  see(event: TrainerEvent): void {
    if (this.moment === null) return;
    if (event.type === 'candidate') return this.kill();
    if (this.due || !this.moment.due(event)) return;
    this.due = true;
    if (this.moment.inCheckpoint !== true) return this.killSoon(this.moment);
    const { moment } = this;
    this.watcher = watch(must(this.folder, 'a checkpoint folder'), (_, name) => {
      if (name !== null && isPartial(name)) this.killSoon(moment);
    });
  }

  stop(): void {
    clearTimeout(this.timer);
    this.watcher?.close();
  }

  private killSoon({ delayMs }: Moment): void {
    if (delayMs === undefined) this.kill();
    else this.timer ??= setTimeout(this.kill, delayMs);
  }
}

const isPartial = (name: string): boolean => name.endsWith('.partial');

function killOf(events: readonly TrainerEvent[]): Omit<Kill, 'halfWritten'> {
  const steps = events.flatMap((event) => (event.type === 'step' ? [event.step] : []));
  const resumedAt = resumedStep(events);
  return { event: events.at(-1)?.type ?? 'none', step: steps.at(-1) ?? resumedAt, resumedAt };
}

function resumedStep(events: readonly TrainerEvent[]): number {
  const resumed = events.find((event) => event.type === 'resumed');
  return resumed?.type === 'resumed' ? resumed.step : 0;
}

/** Where this process went on tells what the kill before it cost. */
function noteResume(kills: readonly Kill[], step: number): void {
  const last = kills.at(-1);
  if (last !== undefined) last.resumedAt = step;
}
