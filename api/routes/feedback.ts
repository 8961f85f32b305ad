/**
 * What clients say about answers: rewards that training reads, remarks and right answers beside
 * them.
 */
import { AppError } from '../../core/errors.ts';
import { DEFAULT_TENANT } from '../../core/records.ts';
import type { Feedback } from '../../core/records.ts';
import type { AppDeps } from '../app.ts';
import { tenantSeen } from '../auth.ts';
import type { Principal } from '../auth.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { checkMetric } from '../feedback-metrics.ts';
import { feedbackView, listView } from '../views.ts';

type Body = Input<'createFeedback'>['body'];

export function feedbackRoutes(deps: AppDeps): Pick<Handlers, 'createFeedback' | 'listFeedback'> {
  return {
    createFeedback: async ({ body, principal }) => {
      checkMetric(deps.metrics, body.metric_name, body.value);
      const feedback: Feedback = {
        id: feedbackId(body.id, principal) ?? deps.newId('feedback'),
        ...targetOf(deps, body, tenantSeen(principal)),
        metricName: body.metric_name,
        value: body.value,
        tags: body.tags ?? {},
        createdAt: deps.clock.now(),
      };
      const stored = await deps.stores.feedback.record(feedback);
      return json<Schemas['Feedback']>(feedbackView(stored.feedback));
    },
    listFeedback: ({ path, query, principal }) => {
      const { id } = deps.stores.trajectories.mustFind(path.trajectory_id, tenantSeen(principal));
      const page = deps.stores.feedback.list(id, query);
      return json<Schemas['FeedbackList']>(listView(page, feedbackView));
    },
  };
}

/** Clients of two tenants may choose the same id; no chosen one has a slash. */
function feedbackId(chosen: string | undefined, { tenant }: Principal): string | undefined {
  if (chosen === undefined || tenant === DEFAULT_TENANT) return chosen;
  return `${tenant}/${chosen}`;
}

function targetOf(
  deps: AppDeps,
  body: Body,
  tenant: string | undefined,
): Pick<Feedback, 'trajectoryId' | 'stepId'> {
  const { trajectory_id, step_id } = body;
  if (trajectory_id !== undefined && step_id === undefined) {
    if (tenant !== undefined && deps.stores.trajectories.find(trajectory_id, tenant) === null) {
      throw new AppError('trajectory_not_found', `no trajectory has the id ${trajectory_id}`, {
        param: 'trajectory_id',
      });
    }
    return { trajectoryId: trajectory_id, stepId: null };
  }
  if (step_id === undefined || trajectory_id !== undefined) {
    throw new AppError('invalid_request', 'give exactly one of trajectory_id and step_id', {
      param: 'trajectory_id',
    });
  }
  const trajectory = deps.stores.trajectories.findByStep(step_id, tenant);
  if (trajectory === null) {
    throw new AppError('step_not_found', `no step has the id ${step_id}`, { param: 'step_id' });
  }
  return { trajectoryId: trajectory.id, stepId: step_id };
}
