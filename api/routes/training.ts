/** Training runs: start, list, read, follow, cancel. */
import type { AppDeps } from '../app.ts';
import { EventLog } from '../event-log.ts';
import { followResponse } from '../follow.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { listView, trainingRunView } from '../views.ts';

export function trainingRoutes(
  deps: AppDeps,
): Pick<
  Handlers,
  | 'retrain'
  | 'listTrainingRuns'
  | 'getTrainingRun'
  | 'streamTrainingRunEvents'
  | 'cancelTrainingRun'
> {
  const { training: store } = deps.stores;
  return {
    retrain: ({ body }) => {
      const run = deps.training.retrain({
        algorithm: body.algorithm ?? 'arpo',
        settings: body.settings ?? {},
        ...(body.source !== undefined && { source: body.source }),
        ...(body.steps !== undefined && { steps: body.steps }),
        ...(body.seed !== undefined && { seed: body.seed }),
      });
      return json<Schemas['TrainingRun']>(trainingRunView(run), { status: 202 });
    },
    listTrainingRuns: ({ query }) => {
      const page = store.list({}, query);
      return json<Schemas['TrainingRunList']>(listView(page, (run) => trainingRunView(run)));
    },
    getTrainingRun: ({ path, query }) => {
      const run = store.get(path.run_id);
      const metrics = query.include === 'metrics' ? store.metrics(run.id) : undefined;
      return json<Schemas['TrainingRun']>(trainingRunView(run, metrics));
    },
    streamTrainingRunEvents: ({ path, header, requestId, activity }) => {
      const afterId = header['Last-Event-ID'] ?? 0;
      const events = deps.training.events(path.run_id);
      return followResponse(deps, { requestId, activity }, (signal) =>
        events instanceof EventLog
          ? events.follow(afterId, signal)
          : events.filter(({ id }) => id > afterId),
      );
    },
    cancelTrainingRun: ({ path }) => {
      return json<Schemas['TrainingRun']>(trainingRunView(deps.training.cancel(path.run_id)));
    },
  };
}
