/** Training and evaluation tasks: import and list. */
import { AppError } from '../../core/errors.ts';
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { readTaskLines } from '../task-lines.ts';
import { listView, taskView } from '../views.ts';

export function taskRoutes(deps: AppDeps): Pick<Handlers, 'importTasks' | 'listTasks'> {
  const { tasks } = deps.stores;
  return {
    importTasks: ({ body }) => {
      const read = readTaskLines(deps.contract, body, deps.newId);
      const unknown = read.find((task) => task.tools.some((name) => !deps.tools.has(name)));
      if (unknown !== undefined) {
        const name = unknown.tools.find((tool) => !deps.tools.has(tool));
        throw new AppError('task_invalid', `task ${unknown.id}: no tool '${name}' on this server`);
      }
      const { created, replaced } = tasks.import(read);
      return json<Schemas['TaskImport']>({ object: 'task.import', imported: created + replaced });
    },
    listTasks: ({ query }) =>
      json<Schemas['TaskList']>(listView(tasks.list(query, query), taskView)),
  };
}
