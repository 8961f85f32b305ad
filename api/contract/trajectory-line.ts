/**
 * The line of a trajectory file as a JSON Schema, and its types: what `ramify export` writes and
 * `ramify import` accepts. Strict: a field that is not known here would be lost without a word.
 * What crosses fields (lengths, the path of steps) is checked in api/trajectory-lines.ts.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import { AppError } from '../../core/errors.ts';
import type {
  ClientTool,
  EndReason,
  StepKind,
  ToolCallRecord,
  TrajectoryRecord,
  TrajectorySource,
} from '../../core/records.ts';
import { mistakeOf } from './mistake.ts';

/** A 32-bit float; what JSON has no number for stands as a text. */
export type Figure = number | string;

export interface LineToolCall {
  id: string;
  name: string;
  arguments: string;
  result: string | null;
  error: string | null;
  duration_ms: number;
  effects: ToolCallRecord['effects'];
  served: ToolCallRecord['served'];
}

export interface LineStep {
  id: string;
  parent_id: string | null;
  index: number;
  kind: StepKind;
  policy_version: number;
  text: string;
  tool_call: LineToolCall | null;
  /** SamplingParams of core/records.ts in snake_case. */
  sampling: Record<string, unknown> | null;
  step_entropy: number | null;
  delta_entropy: number | null;
  created_at: string;
  duration_ms: number;
  tokens: number[];
  logprobs: Figure[] | null;
  behaviour_logprobs: Figure[] | null;
  entropies: Figure[] | null;
}

export interface LineFeedback {
  id: string;
  step_id: string | null;
  metric_name: string;
  value: number | boolean | string;
  tags: Record<string, string>;
  created_at: string;
}

export interface TrajectoryLine {
  object: 'trajectory';
  format: number;
  id: string;
  source: TrajectorySource;
  policy_version: number;
  status: TrajectoryRecord['status'];
  end_reason: EndReason;
  answer: string | null;
  format_ok: boolean;
  reward: number | null;
  task_id: string | null;
  training_run_id: string | null;
  group_id: string | null;
  branched_from_step_id: string | null;
  /** Lines of before there were tenants have none. */
  tenant?: string;
  /** Of a chat completion; absent where it had none. */
  client_tools?: ClientTool[];
  metadata?: Record<string, string>;
  conversation_id: string | null;
  leaf_step_id: string;
  tool_calls: number;
  sampled_tokens: number;
  created_at: string;
  steps: LineStep[];
  feedback: LineFeedback[];
}

const text = { type: 'string' };
const textOrNull = { type: ['string', 'null'] };
const id = { type: 'string', minLength: 1, maxLength: 200 };
const idOrNull = { type: ['string', 'null'], minLength: 1, maxLength: 200 };
const count = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER };
const version = { type: 'integer', minimum: 1, maximum: 999_999_999 };
const numberOrNull = { type: ['number', 'null'] };
const duration = { type: 'number', minimum: 0 };
/** As Date.toISOString writes it: other forms of RFC 3339 would not come back as they were. */
const when = { type: 'string', pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z$' };
const figures = {
  type: ['array', 'null'],
  items: { type: ['number', 'string'], pattern: '^(-0|NaN|-?Infinity)$' },
};
const oneOf = (...values: readonly string[]) => ({ enum: values });

/** All fields are required, and no others may be there. */
const object = (properties: Record<string, unknown>) => ({
  type: 'object',
  required: Object.keys(properties),
  additionalProperties: false,
  properties,
});

const orNull = (schema: object) => ({ ...schema, type: ['object', 'null'] });

const toolCall = object({
  id,
  name: text,
  arguments: text,
  result: textOrNull,
  error: textOrNull,
  duration_ms: duration,
  effects: oneOf('none', 'writes'),
  served: oneOf('live', 'recorded', 'client'),
});

const sampling = {
  type: ['object', 'null'],
  required: ['temperature', 'top_p', 'top_k', 'seed'],
  additionalProperties: false,
  properties: {
    temperature: { type: 'number', minimum: 0 },
    top_p: { type: 'number' },
    top_k: count,
    seed: { type: 'number' },
    min_p: { type: 'number' },
    repetition_penalty: { type: 'number' },
    presence_penalty: { type: 'number' },
    frequency_penalty: { type: 'number' },
    logit_bias: { type: 'object', additionalProperties: { type: 'number' } },
    min_tokens: count,
    constraint: { type: 'array', items: { type: 'object' } },
  },
};

const step = object({
  id,
  parent_id: idOrNull,
  index: count,
  kind: oneOf('prompt', 'policy', 'tool'),
  policy_version: version,
  text,
  tool_call: orNull(toolCall),
  sampling,
  step_entropy: numberOrNull,
  delta_entropy: numberOrNull,
  created_at: when,
  duration_ms: duration,
  tokens: { type: 'array', items: { type: 'integer', minimum: 0, maximum: 0xffffffff } },
  logprobs: figures,
  behaviour_logprobs: figures,
  entropies: figures,
});

const feedback = object({
  id,
  step_id: idOrNull,
  metric_name: { type: 'string', minLength: 1 },
  value: { type: ['number', 'boolean', 'string'] },
  tags: { type: 'object', additionalProperties: text },
  created_at: when,
});

const fields = {
  object: { const: 'trajectory' },
  format: { const: 1 },
  id,
  source: oneOf('live', 'rollout', 'replay', 'eval'),
  policy_version: version,
  status: oneOf('completed', 'cancelled', 'failed'),
  end_reason: oneOf(
    ...['answer', 'stop', 'tool_calls', 'max_tool_calls'],
    ...['max_tokens', 'context', 'cancelled', 'failed'],
  ),
  answer: textOrNull,
  format_ok: { type: 'boolean' },
  reward: numberOrNull,
  task_id: idOrNull,
  training_run_id: idOrNull,
  group_id: idOrNull,
  branched_from_step_id: idOrNull,
  conversation_id: idOrNull,
  leaf_step_id: id,
  tool_calls: count,
  sampled_tokens: count,
  created_at: when,
  steps: { type: 'array', minItems: 1, items: step },
  feedback: { type: 'array', items: feedback },
};

const whole = object(fields);
const optional = {
  tenant: id,
  client_tools: {
    type: 'array',
    minItems: 1,
    items: object({ name: text, description: text, parameters: { type: 'object' } }),
  },
  metadata: { type: 'object', additionalProperties: text },
};
const trajectory = { ...whole, properties: { ...fields, ...optional } };

let validate: ValidateFunction | null = null;

/** @throws AppError invalid_request that names the field and what it holds. */
export function checkTrajectoryLine(value: unknown): TrajectoryLine {
  validate ??= new Ajv2020({ verbose: true, strictTypes: false }).compile(trajectory);
  if (validate(value)) return value as TrajectoryLine;
  const { message, param } = mistakeOf(validate.errors ?? [], 'the line');
  throw new AppError('invalid_request', message, param === null ? {} : { param });
}
