/**
 * A training run whose process is killed (SIGKILL) again and again at seeded moments and started
 * again each time, as the server does with an interrupted run; and the same run left alone, to
 * compare with.
 *
 * Three kinds of moments: some time after some event, which falls anywhere (rollouts, an update, a
 * reload); in the middle of writing a checkpoint, seen by its temporary folder, every third time;
 * and at last some time after the last step (the last checkpoint, the gate, the candidate).
 */
import { existsSync, mkdirSync, rmSync, watch } from 'node:fs';
import { quiet } from '../../core/log.ts';
import { builtModule } from '../../core/paths.ts';
import { uniform } from '../../core/prng.ts';
import { trainerStarter } from '../../core/trainer/start-trainer.ts';
import type { TrainerEvent, TrainingJob } from '../../core/trainer/types.ts';

export interface KilledRunOptions {
  kills: number;
  /** Of the moments. */
  seed: number;
  /** Longest time from an event to the kill, about that of a step. */
  delayMsMax: number;
}

export interface Kill {
  moment: 'after an event' | 'in a checkpoint' | 'after the last step';
  /** The last event before it, and the step done then. */
  event: string;
  step: number;
  /** The step after which the next process went on. */
  resumedAt: number;
}

type Candidate = Extract<TrainerEvent, { type: 'candidate' }>;

const startTrainer = trainerStarter({
  module: builtModule(import.meta.url, '../trainer-process.ts'),
  logger: quiet,
});

/** Events after which a kill may be set off, counted in the process's own. */
const EVENTS_MAX = 12;
/** What follows the last step takes longer than this, so the kill is never too late. */
const END_MS_MAX = 60;

/** Runs a job to its end without disturbance. Throws what made it end otherwise. */
export async function wholeRun(job: TrainingJob): Promise<Candidate> {
  const { candidate, detail } = await runOnce(job, () => undefined);
  if (candidate === null) throw new Error(`the run ended without a candidate: ${detail}`);
  return candidate;
}

/**
 * Runs a job that has a checkpoint folder, killing it `kills` times; then lets it end. A process
 * that ends before its moment is a kill less, and the run is over.
 */
export async function killedRun(
  job: TrainingJob,
  { kills, seed, delayMsMax }: KilledRunOptions,
): Promise<{ candidate: Candidate; kills: Kill[] }> {
  const done: Kill[] = [];
  for (let attempt = 0; attempt < kills; attempt++) {
    const delayMs = uniform(seed, attempt, 0) * delayMsMax;
    const { candidate, kill } = await killOnce(job, {
      ...{ seed, attempt, delayMs },
      last: attempt === kills - 1,
    });
    noteResume(done, kill.resumedAt);
    if (candidate !== null) return { candidate, kills: done };
    done.push(kill);
    // As the server does: a candidate that nobody registered is in the way of the next one.
    rmSync(job.candidateDirectory, { recursive: true, force: true });
  }
  const seen: TrainerEvent[] = [];
  const { candidate, detail } = await runOnce(job, (event) => void seen.push(event));
  noteResume(done, resumedStep(seen));
  if (candidate === null) throw new Error(`the run ended without a candidate: ${detail}`);
  return { candidate, kills: done };
}

interface Attempt {
  candidate: Candidate | null;
  /** `resumedAt` is still where this process itself went on. */
  kill: Kill;
}

function killOnce(
  job: TrainingJob,
  plan: { seed: number; attempt: number; delayMs: number; last: boolean },
): Promise<Attempt> {
  const { seed, attempt, delayMs, last } = plan;
  if (last) {
    return killAfter(
      job,
      'after the last step',
      Math.min(delayMs, END_MS_MAX),
      (event) => event.type === 'step' && event.step === job.steps,
    );
  }
  if (attempt % 3 === 2) return killInCheckpoint(job, uniform(seed, attempt, 2));
  const after = Math.floor(uniform(seed, attempt, 1) * EVENTS_MAX);
  return killAfter(job, 'after an event', delayMs, (_, index) => index === after);
}

/** Kills `delayMs` after the first event that `isDue` says yes to. */
async function killAfter(
  job: TrainingJob,
  moment: Kill['moment'],
  delayMs: number,
  isDue: (event: TrainerEvent, index: number) => boolean,
): Promise<Attempt> {
  const events: TrainerEvent[] = [];
  const { candidate } = await runOnce(job, (event, kill) => {
    if (isDue(event, events.length)) setTimeout(kill, delayMs);
    events.push(event);
  });
  return { candidate, kill: killOf(moment, events) };
}

/** Kills while the `share`-th part of the first checkpoint that is seen is written. */
async function killInCheckpoint(job: TrainingJob, share: number): Promise<Attempt> {
  const folder = job.checkpointDirectory ?? '';
  mkdirSync(folder, { recursive: true });
  const events: TrainerEvent[] = [];
  let kill: () => void = () => undefined;
  const watcher = watch(folder, (_, name) => {
    // Writing and syncing the arrays takes some tens of milliseconds.
    if (name?.endsWith('.partial') === true) setTimeout(() => kill(), share * 40);
  });
  try {
    const { candidate } = await runOnce(job, (event, killNow) => {
      events.push(event);
      kill = killNow;
    });
    return { candidate, kill: killOf('in a checkpoint', events) };
  } finally {
    watcher.close();
  }
}

async function runOnce(
  job: TrainingJob,
  onEvent: (event: TrainerEvent, kill: () => void) => void,
): Promise<{ candidate: Candidate | null; detail: string }> {
  let candidate: Candidate | null = null;
  const handle = startTrainer(job, (event) => {
    if (event.type === 'candidate') candidate = event;
    onEvent(event, () => {
      const { pid } = handle;
      if (pid !== undefined && existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
    });
  });
  const { outcome, detail } = await handle.done;
  if (outcome === 'failed') throw new Error(`the run failed: ${detail}`);
  return { candidate: outcome === 'completed' ? candidate : null, detail };
}

function killOf(moment: Kill['moment'], events: readonly TrainerEvent[]): Kill {
  const last = events.at(-1);
  const steps = events.flatMap((event) => (event.type === 'step' ? [event.step] : []));
  const resumedAt = resumedStep(events);
  return { moment, event: last?.type ?? 'none', step: steps.at(-1) ?? resumedAt, resumedAt };
}

function resumedStep(events: readonly TrainerEvent[]): number {
  const resumed = events.find((event) => event.type === 'resumed');
  return resumed?.type === 'resumed' ? resumed.step : 0;
}

/** Where this process went on tells what the kill before it cost. */
function noteResume(kills: Kill[], step: number): void {
  const last = kills.at(-1);
  if (last !== undefined) last.resumedAt = step;
}
