/**
 * Steps and their tool calls between records and rows: the SQL of the hot path, prepared once a
 * connection. A step row is written once and never changed, so writing it again does nothing.
 */
import type BetterSqlite3 from 'better-sqlite3';
import type { SamplingParams, StepKind, StepRecord, ToolCallRecord } from '../core/records.ts';
import type { Database } from './open.ts';
import { floatsFromBlob, toBlob, tokensFromBlob } from './token-blob.ts';

/** Columns of one step, then of its tool call (nulls when it has none), for SELECT. */
export const STEP_COLUMNS = `
  s.id, s.parent_id, s.position, s.kind, s.policy_version, s.tokens, s.logprobs,
  s.behaviour_logprobs, s.entropies, s.sampling, s.step_entropy, s.delta_entropy, s.text,
  s.started_at, s.duration_ms, c.id, c.name, c.arguments, c.result, c.error, c.duration_ms,
  c.effects, c.served`;

/** Those columns, read with raw(): by name a row takes half as long again. */
export type StepRow = [
  id: string,
  parentId: string | null,
  index: number,
  kind: StepKind,
  policyVersion: number,
  tokens: Buffer,
  logprobs: Buffer | null,
  behaviourLogprobs: Buffer | null,
  entropies: Buffer | null,
  sampling: string | null,
  stepEntropy: number | null,
  deltaEntropy: number | null,
  text: string,
  startedAt: number,
  durationMs: number,
  ...call: CallRow,
];

type CallRow = [
  id: string | null,
  name: string,
  arguments: string,
  result: string | null,
  error: string | null,
  durationMs: number,
  effects: ToolCallRecord['effects'],
  served: ToolCallRecord['served'],
];

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
  const [id, parentId, index, kind, policyVersion, tokens, logprobs, behaviourLogprobs] = row;
  const [, , , , , , , , entropies, sampling, stepEntropy, deltaEntropy, text] = row;
  const [, , , , , , , , , , , , , startedAt, durationMs, ...call] = row;
  return {
    id,
    parentId,
    index,
    kind,
    policyVersion,
    tokens: tokensFromBlob(tokens),
    logprobs: logprobs && floatsFromBlob(logprobs),
    behaviourLogprobs: behaviourLogprobs && floatsFromBlob(behaviourLogprobs),
    entropies: entropies && floatsFromBlob(entropies),
    sampling: sampling === null ? null : (JSON.parse(sampling) as SamplingParams),
    stepEntropy,
    deltaEntropy,
    text,
    toolCall: callFromRow(call),
    startedAt,
    durationMs,
  };
}

function callFromRow(row: CallRow): ToolCallRecord | null {
  const [id, name, given, result, error, durationMs, effects, served] = row;
  if (id === null) return null;
  return { id, name, arguments: given, result, error, durationMs, effects, served };
}
