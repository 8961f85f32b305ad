/**
 * A logged trajectory as one line of JSON and back, without loss: the form in which `ramify export`
 * writes and `ramify import` reads. Names and times are those of the contract; besides what
 * `GET /v1/trajectories/{id}?include=tokens` shows, a line has how each step was sampled, the
 * log-probabilities under that, and the feedback.
 *
 * Tokens and figures, most of a line, are written by line-writer.ts. Knows nothing of files and
 * databases.
 */
import { AppError } from '../core/errors.ts';
import { parseBoundedJson } from '../core/bounded-json.ts';
import { DEFAULT_TENANT } from '../core/records.ts';
import type {
  ClientOffer,
  Feedback,
  SamplingParams,
  StepRecord,
  ToolCallRecord,
  TrajectoryRecord,
} from '../core/records.ts';
import { checkTrajectoryLine } from './contract/trajectory-line.ts';
import type {
  Figure,
  LineFeedback,
  LineStep,
  LineToolCall,
  TrajectoryLine,
} from './contract/trajectory-line.ts';
import { LineWriter } from './line-writer.ts';
import { time } from './views.ts';

export interface LoggedTrajectory {
  trajectory: TrajectoryRecord;
  /** From the root to the leaf. */
  steps: readonly StepRecord[];
  /** Oldest first. */
  feedback: readonly Feedback[];
}

/** The form of the lines; a change that old readers would misread gets another number. */
const FORMAT = 1;

/** One line, without its end. */
export function trajectoryLine({ trajectory, steps, feedback }: LoggedTrajectory): string {
  const writer = new LineWriter(LINE_BYTES);
  writeTrajectoryLine(writer, { trajectory, feedback }, steps, writeStep);
  return writer.take().toString();
}

/** Enough for most lines. */
const LINE_BYTES = 16 * 1024;

/** The same, with steps in any form that `write` knows how to write. */
export function writeTrajectoryLine<Step>(
  writer: LineWriter,
  { trajectory, feedback }: Pick<LoggedTrajectory, 'trajectory' | 'feedback'>,
  steps: Iterable<Step>,
  write: (writer: LineWriter, step: Step) => void,
): void {
  const line: Omit<TrajectoryLine, 'steps'> = {
    object: 'trajectory',
    format: FORMAT,
    id: trajectory.id,
    source: trajectory.source,
    policy_version: trajectory.policyVersion,
    status: trajectory.status,
    end_reason: trajectory.endReason,
    answer: trajectory.answer,
    format_ok: trajectory.formatOk,
    reward: trajectory.reward,
    task_id: trajectory.taskId,
    training_run_id: trajectory.trainingRunId,
    group_id: trajectory.groupId,
    branched_from_step_id: trajectory.branchedFromStepId,
    tenant: trajectory.tenant,
    conversation_id: trajectory.conversationId,
    leaf_step_id: trajectory.leafStepId,
    tool_calls: trajectory.toolCalls,
    sampled_tokens: trajectory.sampledTokens,
    created_at: time(trajectory.createdAt),
    ...offerLine(trajectory.offer),
    feedback: feedback.map(feedbackLine),
  };
  writer.open(line);
  writer.text(',"steps":[');
  let first = true;
  for (const step of steps) {
    if (!first) writer.text(',');
    first = false;
    write(writer, step);
  }
  writer.text(']}');
}

/** One step of a line. */
export function writeStep(writer: LineWriter, step: StepRecord): void {
  writer.open(stepFacts(step));
  writer.text(',"tokens":');
  writer.integers(step.tokens);
  writeFigures(writer, 'logprobs', step.logprobs);
  writeFigures(writer, 'behaviour_logprobs', step.behaviourLogprobs);
  writeFigures(writer, 'entropies', step.entropies);
  writer.text('}');
}

function writeFigures(writer: LineWriter, name: string, values: Float32Array | null): void {
  writer.text(`,"${name}":`);
  if (values === null) writer.text('null');
  else writer.figures(values);
}

/**
 * @throws AppError invalid_json, or invalid_request that names the field: of a wrong form, figures
 * that are not one a token, steps that are not one path to the leaf.
 */
export function readTrajectoryLine(text: string): LoggedTrajectory {
  let value: unknown;
  try {
    value = parseBoundedJson(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : '';
    throw new AppError('invalid_json', `not valid JSON: ${why}`, { cause });
  }
  const line = checkTrajectoryLine(value);
  checkPath(line);
  return {
    trajectory: trajectoryRecord(line),
    steps: line.steps.map(stepRecord),
    feedback: line.feedback.map((given) => feedbackRecord(given, line.id)),
  };
}

type LongFields = 'tokens' | 'logprobs' | 'behaviour_logprobs' | 'entropies';

function stepFacts(step: StepRecord): Omit<LineStep, LongFields> {
  return {
    id: step.id,
    parent_id: step.parentId,
    index: step.index,
    kind: step.kind,
    policy_version: step.policyVersion,
    text: step.text,
    tool_call: step.toolCall === null ? null : callLine(step.toolCall),
    sampling: step.sampling === null ? null : samplingLine(step.sampling),
    step_entropy: step.stepEntropy,
    delta_entropy: step.deltaEntropy,
    created_at: time(step.startedAt),
    duration_ms: step.durationMs,
  };
}

function stepRecord(line: LineStep): StepRecord {
  return {
    id: line.id,
    parentId: line.parent_id,
    index: line.index,
    kind: line.kind,
    policyVersion: line.policy_version,
    tokens: Uint32Array.from(line.tokens),
    logprobs: floats(line.logprobs),
    behaviourLogprobs: floats(line.behaviour_logprobs),
    entropies: floats(line.entropies),
    sampling: line.sampling === null ? null : samplingRecord(line.sampling),
    stepEntropy: line.step_entropy,
    deltaEntropy: line.delta_entropy,
    text: line.text,
    toolCall: line.tool_call === null ? null : callRecord(line.tool_call),
    startedAt: Date.parse(line.created_at),
    durationMs: line.duration_ms,
  };
}

function callLine(call: ToolCallRecord): LineToolCall {
  const { id, name, result, error, durationMs, effects, served } = call;
  return {
    id,
    name,
    arguments: call.arguments,
    result,
    error,
    duration_ms: durationMs,
    effects,
    served,
  };
}

function callRecord(call: LineToolCall): ToolCallRecord {
  const { id, name, result, error, duration_ms: durationMs, effects, served } = call;
  return { id, name, arguments: call.arguments, result, error, durationMs, effects, served };
}

/** `topP` is `top_p`; what is absent stays absent. */
function samplingLine(sampling: SamplingParams): Record<string, unknown> {
  return renamed(sampling, LINE_NAMES);
}

function samplingRecord(line: Record<string, unknown>): SamplingParams {
  return renamed(line, RECORD_NAMES) as unknown as SamplingParams;
}

const SNAKE: Readonly<Record<keyof SamplingParams, string>> = {
  temperature: 'temperature',
  topP: 'top_p',
  topK: 'top_k',
  seed: 'seed',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  logitBias: 'logit_bias',
  minTokens: 'min_tokens',
  constraint: 'constraint',
};
const LINE_NAMES = new Map<string, string>(Object.entries(SNAKE));
const RECORD_NAMES = new Map([...LINE_NAMES].map(([name, line]) => [line, name]));

/** In the same order. */
function renamed(object: object, names: ReadonlyMap<string, string>): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(object)) out[names.get(name) ?? name] = value;
  return out;
}

function floats(values: readonly Figure[] | null): Float32Array | null {
  return values === null ? null : Float32Array.from(values, Number);
}

function feedbackLine({ id, stepId, metricName, value, tags, createdAt }: Feedback): LineFeedback {
  return { id, step_id: stepId, metric_name: metricName, value, tags, created_at: time(createdAt) };
}

function feedbackRecord(line: LineFeedback, trajectoryId: string): Feedback {
  return {
    id: line.id,
    trajectoryId,
    stepId: line.step_id,
    metricName: line.metric_name,
    value: line.value,
    tags: line.tags,
    createdAt: Date.parse(line.created_at),
  };
}

function offerLine(offer?: ClientOffer): Pick<TrajectoryLine, 'client_tools' | 'metadata'> {
  if (offer === undefined) return {};
  const { tools, metadata } = offer;
  return {
    ...(tools.length > 0 && { client_tools: [...tools] }),
    ...(metadata !== null && { metadata }),
  };
}

function trajectoryRecord(line: TrajectoryLine): TrajectoryRecord {
  const { client_tools: tools = [], metadata = null } = line;
  return {
    ...((tools.length > 0 || metadata !== null) && { offer: { tools, metadata } }),
    id: line.id,
    source: line.source,
    tenant: line.tenant ?? DEFAULT_TENANT,
    conversationId: line.conversation_id,
    leafStepId: line.leaf_step_id,
    policyVersion: line.policy_version,
    taskId: line.task_id,
    trainingRunId: line.training_run_id,
    groupId: line.group_id,
    branchedFromStepId: line.branched_from_step_id,
    status: line.status,
    endReason: line.end_reason,
    answer: line.answer,
    formatOk: line.format_ok,
    reward: line.reward,
    toolCalls: line.tool_calls,
    sampledTokens: line.sampled_tokens,
    createdAt: Date.parse(line.created_at),
  };
}

/** What a schema cannot say: lengths that belong together, and references within the line. */
function checkPath({
  steps,
  leaf_step_id: leaf,
  branched_from_step_id: branch,
  feedback,
}: TrajectoryLine): void {
  steps.forEach((step, i) => {
    const at = `steps[${i}]`;
    const parent = steps[i - 1]?.id ?? null;
    if (step.index !== i) throw wrong(`${at}.index`, `is ${step.index}, not ${i}`);
    if (step.parent_id !== parent) {
      throw wrong(`${at}.parent_id`, `is ${step.parent_id}; the step before is ${parent}`);
    }
    for (const name of ['logprobs', 'behaviour_logprobs', 'entropies'] as const) {
      const count = step[name]?.length ?? step.tokens.length;
      if (count === step.tokens.length) continue;
      throw wrong(`${at}.${name}`, `has ${count} figures for ${step.tokens.length} tokens`);
    }
  });
  const ids = new Set(steps.map(({ id }) => id));
  if (steps.at(-1)?.id !== leaf) throw wrong('leaf_step_id', `${leaf} is not the last step`);
  if (branch !== null && !ids.has(branch)) {
    throw wrong('branched_from_step_id', `${branch} is none of the steps`);
  }
  feedback.forEach(({ step_id: step }, i) => {
    if (step !== null && !ids.has(step)) {
      throw wrong(`feedback[${i}].step_id`, `${step} is none of the steps`);
    }
  });
}

function wrong(param: string, why: string): AppError {
  return new AppError('invalid_request', `${param} ${why}`, { param });
}
