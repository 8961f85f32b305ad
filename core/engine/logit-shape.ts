/**
 * What a row's options make of its logits, as the dense inputs of the decode graph (sampling-
 * graph.ts): penalties by what the sequence holds, bias, and the masks of minimum tokens and of a
 * constraint. All of it is made anew for each run of the graph, so a row whose shape changes with
 * every token samples one token a run.
 */
import { MASKED_LOGIT } from '../model/sampling-graph.ts';
import type { SamplingParams } from '../records.ts';

export interface ShapedRow {
  sampling: SamplingParams;
  stopTokens: readonly number[];
  /** All tokens of the sequence, those that this request sampled last. */
  tokens: readonly number[];
  /** How many of them this request sampled. */
  sampled: number;
  /** A bit a token that may come next, 32 a word; null without a constraint. */
  allowed: Uint32Array | null;
}

/** For how many tokens the row's shape stays as it is; null when it has none. */
export function shapedSteps(sampling: SamplingParams, sampled: number): number | null {
  const { minTokens = 0, logitBias = {} } = sampling;
  if (sampling.constraint !== undefined || hasPenalty(sampling)) return 1;
  if (sampled < minTokens) return minTokens - sampled;
  return Object.keys(logitBias).length > 0 ? Infinity : null;
}

/** Writes a row's penalties and shifts (V), whatever was in them before. */
export function writeShape(row: ShapedRow, penalties: Float32Array, shifts: Float32Array): void {
  const { sampling, tokens, sampled, allowed } = row;
  const { presencePenalty = 0, frequencyPenalty = 0, repetitionPenalty = 1 } = sampling;
  penalties.fill(1);
  shifts.fill(0);
  if (repetitionPenalty !== 1) for (const token of tokens) penalties[token] = repetitionPenalty;
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    const seen = new Set<number>();
    for (const token of tokens.slice(tokens.length - sampled)) {
      add(shifts, token, -frequencyPenalty - (seen.has(token) ? 0 : presencePenalty));
      seen.add(token);
    }
  }
  for (const [token, bias] of Object.entries(sampling.logitBias ?? {})) {
    add(shifts, Number(token), bias);
  }
  if (allowed !== null) {
    for (let token = 0; token < shifts.length; token++) {
      if (!isAllowed(allowed, token)) shifts[token] = MASKED_LOGIT;
    }
  }
  if (sampled < (sampling.minTokens ?? 0)) {
    for (const token of row.stopTokens) shifts[token] = MASKED_LOGIT;
  }
}

function isAllowed(allowed: Uint32Array, token: number): boolean {
  return (((allowed[token >>> 5] ?? 0) >>> (token & 31)) & 1) === 1;
}

function hasPenalty(sampling: SamplingParams): boolean {
  const { presencePenalty = 0, frequencyPenalty = 0, repetitionPenalty = 1 } = sampling;
  return presencePenalty !== 0 || frequencyPenalty !== 0 || repetitionPenalty !== 1;
}

function add(values: Float32Array, at: number, by: number): void {
  values[at] = (values[at] as number) + by;
}
