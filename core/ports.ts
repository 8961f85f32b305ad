/**
 * What core needs from outside and does not build itself. db/ implements the stores, api/main.ts
 * and api/trainer-process.ts pass them in; core never sees SQL or HTTP.
 */
import type { SamplingParams, StepRecord, TrajectoryRecord } from './records.ts';

/** Writes of one moment: all of them become durable together. */
export interface LogBatch {
  steps?: StepRecord[];
  trajectories?: TrajectoryRecord[];
}

export interface StepLog {
  /** Resolves when the rows are durable on disk (group commit); rejects with `storage_failed`. */
  append(batch: LogBatch): Promise<void>;
}

/** Full-text search over a knowledge base. */
export interface SearchIndex {
  /**
   * The best `limit` documents for free text; never throws on odd queries, at worst finds nothing.
   */
  search(query: string, limit: number): SearchHit[];
}

/** One that is searched elsewhere, because it may take long. */
export interface SlowSearchIndex {
  search(query: string, limit: number, signal: AbortSignal): Promise<SearchHit[]>;
}

export interface SearchHit {
  id: string;
  title: string;
  text: string;
  score: number;
}

/** Tokens sampled since the last report, aligned by index. */
export interface SampledTokens {
  tokens: Uint32Array;
  /** ln p at temperature 1 over the full vocabulary. */
  logprobs: Float32Array;
  /** ln p under the distribution that was really sampled: all of SamplingParams applied. */
  behaviourLogprobs: Float32Array;
  /** Entropy at temperature 1 over the full vocabulary, in nats. */
  entropies: Float32Array;
  /**
   * -sum p ln p over the likeliest tokens alone, p not renormalised; only of an engine that was
   * made to measure it.
   */
  candidateEntropies?: Float32Array;
  /** Only where the request asked for them. */
  likeliest?: LikeliestTokens;
}

/** The `count` likeliest tokens at every place, the likeliest first, one place after the other. */
export interface LikeliestTokens {
  count: number;
  tokens: Uint32Array;
  /** As `logprobs`: at temperature 1, nothing applied. */
  logprobs: Float32Array;
}

export interface SampleRequest {
  /** Upper bound on sampled tokens, the stop token included. */
  maxTokens: number;
  sampling: SamplingParams;
  /** Sampling ends after one of these; it is part of the result. */
  stopTokens: readonly number[];
  /**
   * Sampling ends with the token that completes one of these texts; it is part of the result,
   * and the result may hold a little more text than up to the stop text.
   */
  stopTexts?: readonly string[];
  /** How many of the likeliest tokens to tell at every place; 0 when left out. */
  likeliest?: number;
  signal?: AbortSignal;
  /** Milliseconds from now after which it is refused with request_timeout, waiting or running. */
  deadlineMs?: number;
  /** Called as tokens arrive, in order; the result repeats them all. */
  onTokens?: (piece: SampledTokens) => void;
}

export interface SampleResult extends SampledTokens {
  /** stop: a stop token or text came; length: maxTokens; context: the window is full. */
  finish: 'stop' | 'length' | 'context' | 'cancelled';
  /** Tokens before the first sampled one whose keys and values were cached. */
  cachedTokens?: number;
}

/**
 * One KV sequence of one policy version. Calls on one sequence must not overlap. Positions count
 * tokens; nothing is ever re-encoded.
 */
export interface Sequence {
  readonly policyVersion: number;
  /** The window of its version: tokens that it can hold. */
  readonly contextTokens: number;
  /** Tokens held: appended and sampled. */
  readonly length: number;
  /**
   * Adds context tokens; they are prefilled before the next sample. Throws context_length_exceeded.
   */
  append(tokens: Uint32Array | readonly number[]): void;
  /** Samples until a stop token or a limit. An abort resolves with finish `cancelled`. */
  sample(request: SampleRequest): Promise<SampleResult>;
  /** Drops tokens from the end. */
  truncate(length: number): void;
  /** A copy that shares the first `length` tokens and their KV; costs no prefill. */
  fork(length: number): Sequence;
  /** Frees the KV memory. Safe to call twice. */
  close(): void;
}

export type Priority = 'live' | 'rollout' | 'evaluation';

export interface OpenOptions {
  policyVersion: number;
  priority?: Priority;
}

/**
 * The engine as its users see it: in this process (trainer) or behind a worker process (server).
 */
export interface Sampler {
  /** Throws model_not_found when the version is not loaded, queue_full when no slot is left. */
  open(options: OpenOptions): Sequence;
}

/** A tool that the agent may call. */
export interface Tool {
  readonly name: string;
  readonly description: string;
  /** JSON Schema (2020-12) of the arguments object. */
  readonly parameters: Record<string, unknown>;
  /** The single string argument that the tag protocol fills with the tag's body. */
  readonly primaryArgument: string;
  /** `writes`: changes something outside; never called in training. */
  readonly effects: 'none' | 'writes';
  readonly timeoutMs: number;
  /** Calls of it that run at once; it shares a bound with other tools when left out. */
  readonly concurrencyMax?: number;
  /**
   * Times that a call is made again when it failed with a `retryAfterS`; none when left out. A tool
   * with effects is never called again.
   */
  readonly retriesMax?: number;
  /** Resolves with the text that the policy will read; throws AppError tool_failed. */
  run(args: Record<string, unknown>, signal: AbortSignal): Promise<string>;
}

export interface ToolSpec {
  name: string;
  description: string;
  parameters: Record<string, unknown>;
  primaryArgument?: string;
  /** Stated for every server tool; rollouts refuse a tool that does not say `none`. */
  effects?: 'none' | 'writes';
}

export interface ToolOutcome {
  /** What the policy reads: the result, or a short error text. */
  result: string;
  error: string | null;
  durationMs: number;
  effects: 'none' | 'writes';
  served: 'live' | 'recorded';
}

/** Runs server tools by name; every failure comes back as an outcome, never as a throw. */
export interface ToolRunner {
  specs(names: readonly string[]): ToolSpec[];
  has(name: string): boolean;
  call(name: string, argumentsJson: string, signal?: AbortSignal): Promise<ToolOutcome>;
}

export interface ToolCatalogue extends ToolRunner {
  /** All tools, in the order in which they were added. */
  list(): ToolSpec[];
  /**
   * The tools for one caller (an id of a key; null: nobody's): its calls take turns with those of
   * others where they wait.
   */
  callsOf(caller: string | null): ToolRunner;
}
