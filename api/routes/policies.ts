/** The registry of policy versions: list, make one live, go back. */
import { AppError } from '../../core/errors.ts';
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { listView, policyView } from '../views.ts';

export function policyRoutes(
  deps: AppDeps,
): Pick<Handlers, 'listPolicies' | 'activatePolicy' | 'rollbackPolicy'> {
  const { policies: store } = deps.stores;
  return {
    listPolicies: ({ query }) => {
      if (query.cursor !== undefined && !/^\d{1,9}$/.test(query.cursor)) {
        throw new AppError(
          'invalid_request',
          `cursor: '${query.cursor}' is no cursor of this list`,
          {
            param: 'cursor',
          },
        );
      }
      const active = store.active()?.version ?? null;
      return json<Schemas['PolicyList']>({ ...listView(store.list(query), policyView), active });
    },
    activatePolicy: async ({ path }) => {
      return json<Schemas['Policy']>(policyView(await deps.policies.activate(path.version)));
    },
    rollbackPolicy: async () => {
      return json<Schemas['Policy']>(policyView(await deps.policies.rollback()));
    },
  };
}
