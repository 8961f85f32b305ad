/** Training and evaluation tasks: import and list. */
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { readTaskLines, requireTools } from '../task-lines.ts';
import { listView, taskView } from '../views.ts';

export function taskRoutes(deps: AppDeps): Pick<Handlers, 'importTasks' | 'listTasks'> {
  const { tasks } = deps.stores;
  return {
    importTasks: ({ body }) => {
      const read = readTaskLines(deps.contract, body, deps.newId);
      requireTools(read, deps.tools);
      const { created, replaced } = tasks.import(read);
      return json<Schemas['TaskImport']>({ object: 'task.import', imported: created + replaced });
    },
    listTasks: ({ query }) =>
      json<Schemas['TaskList']>(listView(tasks.list(query, query), taskView)),
  };
}
