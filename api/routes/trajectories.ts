/** Reading the log: pages of trajectories, one with its steps, the tree that it is a path of. */
import type { TrajectoryFilter } from '../../db/trajectory-filter.ts';
import type { AppDeps } from '../app.ts';
import { tenantSeen } from '../auth.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { listView, stepView, trajectoryView } from '../views.ts';

export function trajectoryRoutes(
  deps: AppDeps,
): Pick<Handlers, 'listTrajectories' | 'getTrajectory' | 'getTrajectoryTree'> {
  const { trajectories } = deps.stores;
  return {
    listTrajectories: ({ query, principal }) => {
      const tenant = tenantSeen(principal);
      const filter = { ...filterOf(query), ...(tenant !== undefined && { tenant }) };
      const page = trajectories.list(filter, query);
      return json<Schemas['TrajectoryList']>(listView(page, trajectoryView));
    },
    getTrajectory: ({ path, query, principal }) => {
      const { trajectory, steps } = trajectories.get(path.trajectory_id, tenantSeen(principal));
      const rewards = stepRewards(deps, trajectory.id);
      const tokens = query.include === 'tokens';
      return json<Schemas['Trajectory']>({
        ...trajectoryView(trajectory),
        steps: steps.map((step) => {
          const reward = rewards.get(step.id);
          return stepView(step, { tokens, ...(reward !== undefined && { reward }) });
        }),
      });
    },
    getTrajectoryTree: ({ path, principal }) => {
      const tree = trajectories.tree(path.trajectory_id, tenantSeen(principal));
      return json<Schemas['TrajectoryTree']>({
        object: 'trajectory.tree',
        trajectory_id: path.trajectory_id,
        truncated: tree.truncated,
        steps: tree.steps.map((step) => stepView(step)),
        trajectories: tree.trajectories.map(trajectoryView),
      });
    },
  };
}

function filterOf(query: Input<'listTrajectories'>['query']): TrajectoryFilter {
  const { source, policy_version, task_id, training_run_id, tool, reward_min, reward_max } = query;
  const { created_after, created_before } = query;
  return {
    ...(source !== undefined && { source }),
    ...(policy_version !== undefined && { policyVersion: policy_version }),
    ...(task_id !== undefined && { taskId: task_id }),
    ...(training_run_id !== undefined && { trainingRunId: training_run_id }),
    ...(tool !== undefined && { toolName: tool }),
    ...(reward_min !== undefined && { rewardMin: reward_min }),
    ...(reward_max !== undefined && { rewardMax: reward_max }),
    ...(created_after !== undefined && { createdFrom: Date.parse(created_after) }),
    ...(created_before !== undefined && { createdBefore: Date.parse(created_before) }),
  };
}

/** The latest reward of each step that got one. */
function stepRewards(deps: AppDeps, trajectoryId: string): Map<string, number> {
  const out = new Map<string, number>();
  let cursor: string | null = null;
  do {
    const page = deps.stores.feedback.list(trajectoryId, cursor === null ? {} : { cursor });
    for (const { stepId, metricName, value } of page.items) {
      if (stepId !== null && metricName === 'reward') out.set(stepId, value as number);
    }
    cursor = page.nextCursor;
  } while (cursor !== null);
  return out;
}
