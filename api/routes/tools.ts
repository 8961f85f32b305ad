/** The tools that run on the server, as agent runs and tasks may name them. */
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';

export function toolRoutes({ tools }: AppDeps): Pick<Handlers, 'listTools'> {
  return {
    // All of them: whoever chooses wants to see what there is, and they are read from memory.
    listTools: () =>
      json<Schemas['ServerToolList']>({
        object: 'list',
        data: tools.list().map(({ name, description, parameters, effects = 'writes' }) => ({
          ...{ name, object: 'tool', description, parameters, effects },
        })),
        has_more: false,
        next_cursor: null,
      }),
  };
}
