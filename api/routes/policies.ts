/** The registry of policy versions: list, read, make one live, go back, and what was decided. */
import { AppError } from '../../core/errors.ts';
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { decisionView, listView, policyView } from '../views.ts';

export function policyRoutes(
  deps: AppDeps,
): Pick<
  Handlers,
  'listPolicies' | 'getPolicy' | 'listPolicyDecisions' | 'activatePolicy' | 'rollbackPolicy'
> {
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
      const canary = store.canary()?.version ?? null;
      const page = listView(store.list(query), policyView);
      return json<Schemas['PolicyList']>({ ...page, active, canary });
    },
    getPolicy: ({ path }) => json<Schemas['Policy']>(policyView(store.get(path.version))),
    listPolicyDecisions: ({ query }) => {
      const { version, ...page } = query;
      const filter = version === undefined ? {} : { version };
      const found = store.decisions.list(filter, page);
      return json<Schemas['PolicyDecisionList']>(listView(found, decisionView));
    },
    activatePolicy: async ({ path }) => {
      return json<Schemas['Policy']>(policyView(await deps.policies.activate(path.version)));
    },
    rollbackPolicy: async () => {
      return json<Schemas['Policy']>(policyView(await deps.policies.rollback()));
    },
  };
}
