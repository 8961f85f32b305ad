/**
 * Which tasks a training step gets: families take turns, and each family deals its own tasks from a
 * seeded shuffle, anew when it has been dealt through. So every step is balanced over families (as
 * far as its size allows), and a task comes again only after all others of its family.
 */
import { AppError } from '../errors.ts';
import { mix, Prng } from '../prng.ts';
import type { Task } from '../records.ts';

export class TaskDeck {
  private readonly families: { tasks: Task[]; dealt: number; seed: number }[];
  private turn = 0;

  /** Tasks dealt so far: all that a later deck of the same tasks and seed has to `skip`. */
  get dealt(): number {
    return this.turn;
  }

  /** Throws invalid_request when there is no task. */
  constructor(tasks: readonly Task[], seed: number) {
    if (tasks.length === 0)
      throw new AppError('invalid_request', 'there are no tasks to draw from');
    const byFamily = new Map<string, Task[]>();
    for (const task of tasks) {
      byFamily.set(task.family, [...(byFamily.get(task.family) ?? []), task]);
    }
    this.families = [...byFamily.keys()].sort().map((name, index) => {
      const own = mix(seed, index);
      return { tasks: new Prng(own).shuffle(byFamily.get(name) as Task[]), dealt: 0, seed: own };
    });
  }

  /** The next `count` tasks. A family with fewer tasks than its share repeats them. */
  deal(count: number): Task[] {
    return Array.from({ length: count }, () => {
      const family = this.families[this.turn++ % this.families.length] as (typeof this.families)[0];
      const position = family.dealt++ % family.tasks.length;
      if (position === 0 && family.dealt > 1) {
        family.tasks = new Prng(mix(family.seed, family.dealt)).shuffle(family.tasks);
      }
      return family.tasks[position] as Task;
    });
  }

  /** Deals `count` tasks to nobody. */
  skip(count: number): void {
    for (let i = 0; i < count; i++) this.deal(1);
  }
}

/**
 * `count` tasks for the gate, balanced over families like a training step, each at most once; all
 * of them when there are fewer. The same seed gives the same tasks.
 */
export function drawGateTasks(tasks: readonly Task[], count: number, seed: number): Task[] {
  const size = Math.min(count, tasks.length);
  const drawn = new Map<string, Task>();
  const deck = new TaskDeck(tasks, seed);
  // A family that is dealt through repeats tasks until the larger ones have filled the gaps.
  while (drawn.size < size) for (const task of deck.deal(1)) drawn.set(task.id, task);
  return [...drawn.values()];
}
