/**
 * Draws tasks by how often they were solved lately (setting `curriculum: 'solved-share'`). A group
 * teaches by the variance of its rewards, which for a task solved with probability p is p (1 - p):
 * so a family is drawn with weight p (1 - p) + floor, then a task in it likewise. What is always or
 * never solved is drawn less, but never not at all, because p moves while the policy learns.
 *
 * p is a running mean that halves the past at each observation; a task not yet met takes its
 * family's, a family not yet met 1/2. Every draw is keyed by (seed, step, draw).
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { mix, uniform } from '../prng.ts';
import type { Task } from '../records.ts';

/** Weight of the newest observation. */
const NEWEST = 0.5;
const UNKNOWN = 0.5;

export interface CurriculumState {
  families: [name: string, share: number][];
  /** By index in the job's tasks: only those met. */
  tasks: [index: number, share: number][];
}

export class Curriculum {
  private readonly tasks: readonly Task[];
  private readonly indexOf: ReadonlyMap<string, number>;
  /** Indices of each family's tasks, families in order of their names. */
  private readonly families: ReadonlyMap<string, readonly number[]>;
  private readonly seed: number;
  private readonly floor: number;
  private readonly familyShare = new Map<string, number>();
  private readonly taskShare = new Map<number, number>();

  /** Throws invalid_request when there is no task. */
  constructor(tasks: readonly Task[], seed: number, floor: number) {
    if (tasks.length === 0) {
      throw new AppError('invalid_request', 'there are no tasks to draw from');
    }
    this.tasks = tasks;
    this.indexOf = new Map(tasks.map(({ id }, index) => [id, index]));
    const families = new Map<string, number[]>();
    tasks.forEach(({ family }, index) => {
      const members = families.get(family);
      if (members === undefined) families.set(family, [index]);
      else members.push(index);
    });
    this.families = new Map([...families].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.seed = seed;
    this.floor = floor;
  }

  /**
   * `count` tasks for a step, none twice while its family has others that are not among `taken`
   * (ids). `round` keeps several deals of a step apart.
   */
  deal(count: number, { step, round }: { step: number; round: number }): Task[] {
    const taken = new Set<number>();
    return Array.from({ length: count }, (_, draw) => {
      const key = mix(this.seed, step, round, draw);
      const names = [...this.families.keys()];
      const family = must(
        names[
          weightedIndex(uniform(key, 0), names.length, (i) => this.familyWeight(names[i] as string))
        ],
        'a family',
      );
      const members = must(this.families.get(family), 'members of a family');
      const fresh = members.filter((index) => !taken.has(index));
      const among = fresh.length > 0 ? fresh : members;
      const index = must(
        among[
          weightedIndex(uniform(key, 1), among.length, (i) =>
            this.weight(among[i] as number, family),
          )
        ],
        'a task',
      );
      taken.add(index);
      return must(this.tasks[index], 'a task');
    });
  }

  /** Takes note of the share of a group's trajectories that solved its task. */
  learn(task: Task, solved: number): void {
    const index = must(this.indexOf.get(task.id), `task ${task.id} of this run`);
    const family = this.shareOf(task.family);
    const own = this.taskShare.get(index) ?? family;
    this.taskShare.set(index, own + NEWEST * (solved - own));
    this.familyShare.set(task.family, family + NEWEST * (solved - family));
  }

  state(): CurriculumState {
    return { families: [...this.familyShare], tasks: [...this.taskShare] };
  }

  restore({ families, tasks }: CurriculumState): void {
    for (const [name, share] of families) this.familyShare.set(name, share);
    for (const [index, share] of tasks) this.taskShare.set(index, share);
  }

  private shareOf(family: string): number {
    return this.familyShare.get(family) ?? UNKNOWN;
  }

  private familyWeight(family: string): number {
    return this.weightOf(this.shareOf(family));
  }

  private weight(index: number, family: string): number {
    return this.weightOf(this.taskShare.get(index) ?? this.shareOf(family));
  }

  private weightOf(share: number): number {
    return share * (1 - share) + this.floor;
  }
}

/** Index of one of `count` items, drawn with the given positive weights by u in (0, 1). */
function weightedIndex(u: number, count: number, weight: (index: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += weight(i);
  let rest = u * total;
  for (let i = 0; i + 1 < count; i++) {
    rest -= weight(i);
    if (rest < 0) return i;
  }
  return count - 1;
}
