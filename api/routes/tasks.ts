/** Training and evaluation tasks: import, list, read, delete. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AppError, toAppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Task } from '../../core/records.ts';
import type { AppDeps } from '../app.ts';
import { bodyLines } from '../body-lines.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { readTaskLine, requireTools } from '../task-lines.ts';
import { listView, taskView } from '../views.ts';

type TaskOperation = 'importTasks' | 'listTasks' | 'getTask' | 'deleteTask';

export function taskRoutes(deps: AppDeps): Pick<Handlers, TaskOperation> {
  const { tasks } = deps.stores;
  return {
    importTasks: async (input) => {
      const { created, replaced } = await tasks.importInTurns(await readTasks(deps, input));
      return json<Schemas['TaskImport']>({ object: 'task.import', imported: created + replaced });
    },
    listTasks: ({ query }) =>
      json<Schemas['TaskList']>(listView(tasks.list(query, query), taskView)),
    getTask: ({ path }) => json<Schemas['Task']>(taskView(tasks.get(path.task_id))),
    deleteTask: ({ path }) => {
      const { id } = tasks.get(path.task_id);
      tasks.delete(id);
      return json<Schemas['TaskDeleted']>({ id, object: 'task', deleted: true });
    },
  };
}

/** All of the body. @throws AppError task_invalid that names the first wrong lines. */
async function readTasks(
  deps: AppDeps,
  { stream, header, activity }: Input<'importTasks'>,
): Promise<Task[]> {
  const tasks: Task[] = [];
  const mistakes: AppError[] = [];
  let wrong = 0;
  const lines = bodyLines(stream, {
    compressed: header['Content-Encoding'] === 'gzip',
    bytesMax: LIMITS.importTaskBytesMax,
    signal: activity.signal,
  });
  for await (const line of lines) {
    try {
      const task = readTaskLine(deps.contract, line, deps.newId);
      requireTools([task], deps.tools);
      tasks.push(task);
    } catch (thrown) {
      wrong++;
      if (mistakes.length < LIMITS.importMistakesTold) mistakes.push(atLine(line.number, thrown));
    }
    if (tasks.length > LIMITS.tasksPerImportMax) {
      const message = `line ${line.number}: more than ${LIMITS.tasksPerImportMax} tasks`;
      throw new AppError('task_invalid', message, { param: `line ${line.number}` });
    }
    if (line.number % LIMITS.importLinesPerTurn === 0) await nextTurn();
  }
  const [first] = mistakes;
  if (first === undefined) return tasks;
  const more = wrong - mistakes.length;
  const told = mistakes.map(({ message }) => message).join('; ');
  throw new AppError('task_invalid', more === 0 ? told : `${told}; and ${more} more wrong lines`, {
    param: first.param ?? '',
    cause: first,
  });
}

function atLine(number: number, thrown: unknown): AppError {
  const error = toAppError(thrown);
  if (error.code !== 'task_invalid') throw error;
  const place = `line ${number}`;
  const message = error.message.startsWith(place) ? error.message : `${place}: ${error.message}`;
  return new AppError('task_invalid', message, { param: place, cause: error });
}
