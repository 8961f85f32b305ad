/**
 * Steps and their tool calls between records and rows: the SQL of the hot path, prepared once a
 * connection. A step row is written once and never changed, so writing it again does nothing.
 */
import type BetterSqlite3 from 'better-sqlite3';
import type { SamplingParams, StepKind, StepRecord, ToolCallRecord } from '../core/records.ts';
import type { Database } from './open.ts';
import { floatsFromBlob, toBlob, tokensFromBlob } from './token-blob.ts';

/** Columns of one step with its tool call (null columns when it has none), for SELECT. */
export const STEP_COLUMNS = `
  s.id, s.parent_id, s.position, s.kind, s.policy_version, s.tokens, s.logprobs,
  s.behaviour_logprobs, s.entropies, s.sampling, s.step_entropy, s.delta_entropy, s.text,
  s.started_at, s.duration_ms, c.id AS call_id, c.name AS call_name, c.arguments AS call_arguments,
  c.result AS call_result, c.error AS call_error, c.duration_ms AS call_duration_ms,
  c.effects AS call_effects, c.served AS call_served`;

export interface StepRow {
  id: string;
  parent_id: string | null;
  position: number;
  kind: StepKind;
  policy_version: number;
  tokens: Buffer;
  logprobs: Buffer | null;
  behaviour_logprobs: Buffer | null;
  entropies: Buffer | null;
  sampling: string | null;
  step_entropy: number | null;
  delta_entropy: number | null;
  text: string;
  started_at: number;
  duration_ms: number;
  call_id: string | null;
  call_name: string;
  call_arguments: string;
  call_result: string | null;
  call_error: string | null;
  call_duration_ms: number;
  call_effects: ToolCallRecord['effects'];
  call_served: ToolCallRecord['served'];
}

const INSERT_STEP = `
  INSERT INTO steps (id, parent_id, position, kind, policy_version, tokens, logprobs,
    behaviour_logprobs, entropies, sampling, step_entropy, delta_entropy, text, started_at,
    duration_ms)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (id) DO NOTHING`;

// A client's answer may come after its call was logged; an answer that is there stays.
const INSERT_CALL = `
  INSERT INTO tool_calls (step_id, id, name, arguments, result, error, duration_ms, effects, served)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (step_id) DO UPDATE SET result = excluded.result, error = excluded.error,
    duration_ms = excluded.duration_ms, served = excluded.served
  WHERE tool_calls.result IS NULL`;

/** A step as bound parameters: a snapshot, so the record and its arrays may change afterwards. */
export interface PreparedStep {
  step: unknown[];
  call: unknown[] | null;
}

export function prepareStep(record: StepRecord): PreparedStep {
  const call = record.toolCall;
  return {
    step: [
      record.id,
      record.parentId,
      record.index,
      record.kind,
      record.policyVersion,
      toBlob(record.tokens),
      record.logprobs && toBlob(record.logprobs),
      record.behaviourLogprobs && toBlob(record.behaviourLogprobs),
      record.entropies && toBlob(record.entropies),
      record.sampling && JSON.stringify(record.sampling),
      record.stepEntropy,
      record.deltaEntropy,
      record.text,
      record.startedAt,
      record.durationMs,
    ],
    call: call && [
      record.id,
      call.id,
      call.name,
      call.arguments,
      call.result,
      call.error,
      call.durationMs,
      call.effects,
      call.served,
    ],
  };
}

export class StepWriter {
  private readonly insertStep: BetterSqlite3.Statement;
  private readonly insertCall: BetterSqlite3.Statement;

  constructor(db: Database) {
    this.insertStep = db.sqlite.prepare(INSERT_STEP);
    this.insertCall = db.sqlite.prepare(INSERT_CALL);
  }

  /** The parent must be stored already. */
  write({ step, call }: PreparedStep): void {
    this.insertStep.run(step);
    if (call !== null) this.insertCall.run(call);
  }
}

export function stepFromRow(row: StepRow): StepRecord {
  return {
    id: row.id,
    parentId: row.parent_id,
    index: row.position,
    kind: row.kind,
    policyVersion: row.policy_version,
    tokens: tokensFromBlob(row.tokens),
    logprobs: row.logprobs && floatsFromBlob(row.logprobs),
    behaviourLogprobs: row.behaviour_logprobs && floatsFromBlob(row.behaviour_logprobs),
    entropies: row.entropies && floatsFromBlob(row.entropies),
    sampling: row.sampling === null ? null : (JSON.parse(row.sampling) as SamplingParams),
    stepEntropy: row.step_entropy,
    deltaEntropy: row.delta_entropy,
    text: row.text,
    toolCall: row.call_id === null ? null : callFromRow(row, row.call_id),
    startedAt: row.started_at,
    durationMs: row.duration_ms,
  };
}

function callFromRow(row: StepRow, id: string): ToolCallRecord {
  return {
    id,
    name: row.call_name,
    arguments: row.call_arguments,
    result: row.call_result,
    error: row.call_error,
    durationMs: row.call_duration_ms,
    effects: row.call_effects,
    served: row.call_served,
  };
}
