/** Training and evaluation tasks: imported in one transaction, read in pages or all of a split. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { and, asc, count, eq, gt } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Task, TaskSplit } from '../core/records.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { tasks } from './schema.ts';

export interface TaskFilter {
  family?: string;
  split?: TaskSplit;
}

export class TaskStore {
  private readonly db: Database;

  constructor(db: Database) {
    this.db = db;
  }

  /**
   * Stores all tasks in one transaction; one with a known id replaces the stored one.
   * @throws AppError task_invalid when there are more than LIMITS.tasksPerImportMax.
   */
  import(imported: readonly Task[]): { created: number; replaced: number } {
    if (imported.length > LIMITS.tasksPerImportMax) {
      throw new AppError(
        'task_invalid',
        `${imported.length} tasks in one import; at most ${LIMITS.tasksPerImportMax}`,
      );
    }
    const insert = this.db.sqlite.prepare(`
      INSERT INTO tasks (id, family, split, question, truths, verifier, tools, metadata)
      VALUES (@id, @family, @split, @question, @truths, @verifier, @tools, @metadata)
      ON CONFLICT (id) DO UPDATE SET family = excluded.family, split = excluded.split,
        question = excluded.question, truths = excluded.truths, verifier = excluded.verifier,
        tools = excluded.tools, metadata = excluded.metadata`);
    return this.db.orm.transaction(() => {
      const before = this.count();
      for (const task of imported) {
        insert.run({
          ...task,
          truths: JSON.stringify(task.truths),
          tools: JSON.stringify(task.tools),
          metadata: JSON.stringify(task.metadata),
        });
      }
      const created = this.count() - before;
      return { created, replaced: imported.length - created };
    });
  }

  /**
   * The same in pieces, so that others get their turn between them. A disk that fails leaves those
   * that were stored; importing again makes up for it.
   */
  async importInTurns(imported: readonly Task[]): Promise<{ created: number; replaced: number }> {
    const counts = { created: 0, replaced: 0 };
    for (let i = 0; i < imported.length; i += LIMITS.taskRowsPerRead) {
      const { created, replaced } = this.import(imported.slice(i, i + LIMITS.taskRowsPerRead));
      counts.created += created;
      counts.replaced += replaced;
      await nextTurn();
    }
    return counts;
  }

  /** @throws AppError task_not_found */
  get(id: string): Task {
    const task = this.find(id);
    if (task === null) throw new AppError('task_not_found', `no task has the id ${id}`);
    return task;
  }

  /** By id. */
  list(filter: TaskFilter = {}, page: PageRequest = {}): Page<Task> {
    const limit = pageLimit(page);
    const after = page.cursor === undefined ? undefined : gt(tasks.id, page.cursor);
    return toPage(this.read(filter, limit + 1, after), limit, ({ id }) => id);
  }

  /**
   * By id, all that fit the filter up to `limit` (at most LIMITS.tasksPerImportMax): for training.
   * Read in pieces, with the event loop's turn between them.
   */
  async select(filter: TaskFilter, limit: number = LIMITS.tasksPerImportMax): Promise<Task[]> {
    const rowsMax = Math.min(limit, LIMITS.tasksPerImportMax);
    const selected: Task[] = [];
    for (let last: Task | undefined; ; last = selected.at(-1)) {
      const wanted = Math.min(LIMITS.taskRowsPerRead, rowsMax - selected.length);
      const after = last === undefined ? undefined : gt(tasks.id, last.id);
      const rows = this.read(filter, wanted, after);
      selected.push(...rows);
      // A short piece is the last one, and the bound ends with an empty one at the latest.
      if (rows.length < LIMITS.taskRowsPerRead) return selected;
      await nextTurn();
    }
  }

  find(id: string): Task | null {
    return this.db.orm.select().from(tasks).where(eq(tasks.id, id)).get() ?? null;
  }

  count(filter: TaskFilter = {}): number {
    const row = this.db.orm.select({ rows: count() }).from(tasks).where(condition(filter)).get();
    return row?.rows ?? 0;
  }

  /** Whether there was such a task. Trajectories that name it stay. */
  delete(id: string): boolean {
    return this.db.orm.delete(tasks).where(eq(tasks.id, id)).run().changes > 0;
  }

  private read(filter: TaskFilter, rowsMax: number, after?: SQL): Task[] {
    return this.db.orm
      .select()
      .from(tasks)
      .where(and(condition(filter), after))
      .orderBy(asc(tasks.id))
      .limit(rowsMax)
      .all();
  }
}

function condition({ family, split }: TaskFilter): SQL | undefined {
  return and(
    family === undefined ? undefined : eq(tasks.family, family),
    split === undefined ? undefined : eq(tasks.split, split),
  );
}
