/** The filters of trajectory lists and exports, from the query to the store's. */
import type { TrajectoryFilter } from '../db/trajectory-filter.ts';
import type { Input } from './handlers.ts';

type Query = Omit<Input<'exportTrajectories'>['query'], 'limit' | 'cursor'>;

export function filterOf(query: Query): TrajectoryFilter {
  const { created_after, created_before } = query;
  return defined({
    source: query.source,
    status: query.status,
    endReason: query.end_reason,
    policyVersion: query.policy_version,
    taskId: query.task_id,
    conversationId: query.conversation_id,
    trainingRunId: query.training_run_id,
    groupId: query.group_id,
    toolName: query.tool,
    rewardMin: query.reward_min,
    rewardMax: query.reward_max,
    scored: query.scored,
    entropyJumpMin: query.min_entropy_jump,
    createdFrom: created_after === undefined ? undefined : Date.parse(created_after),
    createdBefore: created_before === undefined ? undefined : Date.parse(created_before),
  });
}

type Given = { [Name in keyof TrajectoryFilter]: TrajectoryFilter[Name] | undefined };

function defined(filter: Given): TrajectoryFilter {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined));
}
