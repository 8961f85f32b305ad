/**
 * Who runs next. A turn gives each policy version that takes part one batch. Classes go before each
 * other (live, rollout, evaluation), inside a class the first come is first. Nobody starves: who
 * was left out for `agingTurns` turns goes first once, on at most a quarter of the rows, whatever
 * its class or version. It knows nothing of memory or models.
 */
import type { Priority } from '../ports.ts';

export const PRIORITIES = ['live', 'rollout', 'evaluation'] as const satisfies Priority[];

export interface Waiting {
  readonly version: number;
  readonly priority: Priority;
  /** Arrival number. */
  readonly order: number;
  /** Turns planned since it last ran; who runs it sets it to 0. */
  waits: number;
}

export interface Turn<T> {
  version: number;
  /** At most `rowsMax`, the most urgent first. */
  jobs: T[];
}

export interface TurnOptions {
  rowsMax: number;
  agingTurns: number;
}

/**
 * The batches of the next turn, one a version. A version takes part when it has a job of the most
 * urgent class that waits anywhere, or one that waited long enough. Counts `waits` up: a job that
 * gets a row may still not run, for lack of memory.
 */
export function planTurn<T extends Waiting>(waiting: Iterable<T>, options: TurnOptions): Turn<T>[] {
  const byVersion = new Map<number, T[]>();
  for (const job of waiting) {
    const jobs = byVersion.get(job.version);
    if (jobs === undefined) byVersion.set(job.version, [job]);
    else jobs.push(job);
  }
  const best = Math.min(...[...byVersion.values()].flat().map(rank));
  const turns: Turn<T>[] = [];
  for (const [version, jobs] of byVersion) {
    const takesPart = jobs.some((job) => rank(job) === best || isAged(job, options));
    const chosen = takesPart ? choose(jobs, options) : [];
    for (const job of jobs) job.waits++;
    if (chosen.length > 0) turns.push({ version, jobs: chosen });
  }
  return turns;
}

function choose<T extends Waiting>(jobs: readonly T[], options: TurnOptions): T[] {
  const sorted = jobs.toSorted((a, b) => rank(a) - rank(b) || a.order - b.order);
  const agedMax = Math.max(1, Math.floor(options.rowsMax / 4));
  const aged = sorted
    .filter((job) => isAged(job, options))
    .sort((a, b) => a.order - b.order)
    .slice(0, agedMax);
  const first = new Set(aged);
  return [...aged, ...sorted.filter((job) => !first.has(job))].slice(0, options.rowsMax);
}

function isAged({ waits }: Waiting, { agingTurns }: TurnOptions): boolean {
  return waits >= agingTurns;
}

function rank({ priority }: Waiting): number {
  return PRIORITIES.indexOf(priority);
}
