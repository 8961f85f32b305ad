/** Reading the log: pages of trajectories, one with its steps, the tree that it is a path of. */
import type { ClientOffer, StepRecord } from '../../core/records.ts';
import type { AppDeps } from '../app.ts';
import { tenantSeen } from '../auth.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { filterOf } from '../trajectory-query.ts';
import { listView, stepView, trajectoryView } from '../views.ts';

export function trajectoryRoutes({
  stores,
}: AppDeps): Pick<Handlers, 'listTrajectories' | 'getTrajectory' | 'getTrajectoryTree'> {
  const { trajectories, feedback } = stores;
  return {
    listTrajectories: async ({ query, principal }) => {
      const tenant = tenantSeen(principal);
      const filter = { ...filterOf(query), ...(tenant !== undefined && { tenant }) };
      const page = await trajectories.listInTurns(filter, query);
      return json<Schemas['TrajectoryList']>(listView(page, trajectoryView));
    },
    getTrajectory: ({ path, query, principal }) => {
      const { trajectory, steps } = trajectories.get(path.trajectory_id, tenantSeen(principal));
      const rewards = feedback.stepRewards(trajectory.id);
      const tokens = query.include === 'tokens';
      return json<Schemas['Trajectory']>({
        ...trajectoryView(trajectory),
        ...offerView(trajectories.offerOf(trajectory.id)),
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
        branches: branchesOf(tree.steps),
        trajectories: tree.trajectories.map(trajectoryView),
      });
    },
  };
}

/** Steps with more than one child, in the order of the steps. */
function branchesOf(steps: readonly StepRecord[]): Schemas['TreeBranch'][] {
  const children = new Map<string, StepRecord[]>();
  for (const step of steps) {
    if (step.parentId === null) continue;
    const siblings = children.get(step.parentId);
    if (siblings === undefined) children.set(step.parentId, [step]);
    else siblings.push(step);
  }
  return [...children]
    .filter(([, siblings]) => siblings.length > 1)
    .map(([id, siblings]) => ({
      step_id: id,
      children: siblings.map((child) => ({ step_id: child.id, delta: child.deltaEntropy })),
    }));
}

function offerView({
  tools,
  metadata,
}: ClientOffer): Pick<Schemas['Trajectory'], 'client_tools' | 'metadata'> {
  return { client_tools: [...tools], metadata };
}
