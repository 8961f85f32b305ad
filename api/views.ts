/**
 * Records as the JSON of the contract: snake_case, RFC 3339 times, token arrays as plain numbers.
 * Knows nothing of where records come from.
 */
import type {
  EvalScore,
  Feedback,
  GateReport,
  LiveComparison,
  LiveFigures,
  PolicyDecision,
  PolicyRecord,
  StepRecord,
  Task,
  TrainingMetrics,
  TrainingRunRecord,
  TrajectoryRecord,
} from '../core/records.ts';
import type { Page } from '../db/page.ts';
import type { Schemas } from './handlers.ts';

export function time(ms: number): string {
  return new Date(ms).toISOString();
}

export function timeOrNull(ms: number | null): string | null {
  return ms === null ? null : time(ms);
}

export interface ListView<T> {
  object: 'list';
  data: T[];
  has_more: boolean;
  next_cursor: string | null;
}

export function listView<R, T>(page: Page<R>, view: (record: R) => T): ListView<T> {
  return {
    object: 'list',
    data: page.items.map(view),
    has_more: page.nextCursor !== null,
    next_cursor: page.nextCursor,
  };
}

export interface StepViewOptions {
  tokens?: boolean;
  /** The latest reward posted for the step. */
  reward?: number;
}

export function stepView(step: StepRecord, options: StepViewOptions = {}): Schemas['Step'] {
  return {
    id: step.id,
    parent_id: step.parentId,
    index: step.index,
    kind: step.kind,
    policy_version: step.policyVersion,
    text: step.text,
    token_count: step.tokens.length,
    entropy: entropyView(step),
    ...(step.toolCall !== null && { tool_call: toolCallView(step.toolCall) }),
    ...(options.reward !== undefined && { reward: options.reward }),
    created_at: time(step.startedAt),
    duration_ms: step.durationMs,
    ...(options.tokens === true && {
      tokens: Array.from(step.tokens),
      logprobs: numbersOrNulls(step.logprobs, step.tokens.length),
      entropies: numbersOrNulls(step.entropies, step.tokens.length),
    }),
  };
}

function entropyView(step: StepRecord): Schemas['Step']['entropy'] {
  const { entropies } = step;
  if (entropies === null || entropies.length === 0) return null;
  const mean = entropies.reduce((sum, value) => sum + value, 0) / entropies.length;
  return { mean, first_k: step.stepEntropy, delta: step.deltaEntropy };
}

function toolCallView(call: NonNullable<StepRecord['toolCall']>): Schemas['StepToolCall'] {
  return {
    id: call.id,
    name: call.name,
    arguments: call.arguments,
    result: call.result,
    error: call.error,
    duration_ms: call.durationMs,
    effects: call.effects,
    served: call.served,
  };
}

/** One entry a token; null where nothing was sampled (JSON has no NaN or infinity either). */
function numbersOrNulls(values: Float32Array | null, length: number): (number | null)[] {
  if (values === null) return new Array<null>(length).fill(null);
  return Array.from(values, (value) => (Number.isFinite(value) ? value : null));
}

export function trajectoryView(record: TrajectoryRecord): Schemas['TrajectorySummary'] {
  return {
    id: record.id,
    object: 'trajectory',
    source: record.source,
    policy_version: record.policyVersion,
    status: record.status,
    end_reason: record.endReason,
    answer: record.answer,
    format_ok: record.formatOk,
    reward: record.reward,
    task_id: record.taskId,
    training_run_id: record.trainingRunId,
    group_id: record.groupId,
    branched_from_step_id: record.branchedFromStepId,
    conversation_id: record.conversationId,
    leaf_step_id: record.leafStepId,
    tool_calls: record.toolCalls,
    sampled_tokens: record.sampledTokens,
    created_at: time(record.createdAt),
  };
}

export function feedbackView(feedback: Feedback): Schemas['Feedback'] {
  return {
    // Without the tenant (routes/feedback.ts).
    id: feedback.id.slice(feedback.id.lastIndexOf('/') + 1),
    object: 'feedback',
    trajectory_id: feedback.trajectoryId,
    step_id: feedback.stepId,
    metric_name: feedback.metricName,
    value: feedback.value,
    tags: feedback.tags,
    late: feedback.late === true,
    created_at: time(feedback.createdAt),
  };
}

export function taskView(task: Task): Schemas['Task'] {
  const { id, family, split, question, truths, verifier, tools, metadata } = task;
  return { id, object: 'task', family, split, question, truths, verifier, tools, metadata };
}

export function policyView(policy: PolicyRecord): Schemas['Policy'] {
  return {
    version: policy.version,
    object: 'policy',
    parent: policy.parentVersion,
    kind: policy.kind,
    status: policy.status,
    source_run: policy.sourceRunId,
    sha256: policy.sha256,
    eval: policy.evaluation === null ? null : gateView(policy.evaluation),
    created_at: time(policy.createdAt),
    removed_at: timeOrNull(policy.removedAt),
  };
}

export function decisionView(decision: PolicyDecision): Schemas['PolicyDecision'] {
  const { gate, live, canary } = decision.figures;
  return {
    id: decision.id,
    object: 'policy.decision',
    kind: decision.kind,
    version: decision.version,
    other_version: decision.otherVersion,
    cause: decision.cause,
    reason: decision.reason,
    figures: {
      ...(gate !== undefined && { gate: gateView(gate) }),
      ...(live !== undefined && { live: liveView(live) }),
      ...(canary !== undefined && { canary }),
    },
    training_run_id: decision.trainingRunId,
    created_at: time(decision.createdAt),
  };
}

function liveView(live: LiveComparison): Schemas['LiveComparison'] {
  const side = ({ rewardMean, ...figures }: LiveFigures): Schemas['LiveFigures'] => ({
    ...figures,
    reward_mean: rewardMean,
  });
  return {
    base: side(live.base),
    candidate: side(live.candidate),
    reward: live.reward,
    error_rate: live.errorRate,
    tolerance: live.tolerance,
  };
}

export function gateView(gate: GateReport): Schemas['Gate'] {
  const { passed, reason, tasks, difference, tolerance } = gate;
  const base = scoresView(gate.base);
  return {
    passed,
    reason,
    tasks,
    base,
    candidate: scoresView(gate.candidate),
    difference,
    tolerance,
  };
}

function scoresView(scores: Record<string, EvalScore>): Schemas['EvalScores'] {
  return Object.fromEntries(
    Object.entries(scores).map(([family, score]) => [
      family,
      {
        tasks: score.tasks,
        accuracy: score.accuracy,
        format_errors: score.formatErrors,
        tool_calls_per_task: score.toolCallsPerTask,
      },
    ]),
  );
}

export function trainingRunView(
  run: TrainingRunRecord,
  metrics?: readonly TrainingMetrics[],
): Schemas['TrainingRun'] {
  return {
    id: run.id,
    object: 'training.run',
    status: run.status,
    trigger: run.trigger,
    algorithm: run.algorithm,
    settings: run.settings,
    base_version: run.baseVersion,
    candidate_version: run.candidateVersion,
    progress: { step: run.step, steps: run.steps },
    counts: {
      rollouts: run.counts.rollouts,
      branches: run.counts.branches,
      tool_calls_executed: run.counts.toolCallsExecuted,
      tool_calls_saved: run.counts.toolCallsSaved,
      tokens_sampled: run.counts.tokensSampled,
    },
    gate: run.gate === null ? null : gateView(run.gate),
    error: run.error,
    created_at: time(run.createdAt),
    started_at: timeOrNull(run.startedAt),
    ended_at: timeOrNull(run.endedAt),
    ...(metrics !== undefined && {
      metrics: metrics.map(({ step, values, createdAt }) => ({
        step,
        values,
        created_at: time(createdAt),
      })),
    }),
  };
}
