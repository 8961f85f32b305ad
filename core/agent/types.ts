/** The conversation loop as its callers see it. */
import type {
  EndReason,
  SamplingParams,
  StepRecord,
  ToolCallRecord,
  TrajectorySource,
} from '../records.ts';
import type { LogBatch, SampledTokens, Sequence, ToolRunner } from '../ports.ts';
import type {
  AnswerForm,
  ChatMessage,
  Protocol,
  Tokenizer,
  ToolCallRequest,
} from '../text/types.ts';
import type { ToolSpec } from '../ports.ts';
import type { AppError } from '../errors.ts';
import type { Clock } from '../clock.ts';
import type { NewId } from '../ids.ts';

export interface EpisodeLimits {
  maxToolCalls: number;
  /** Sampled tokens over all steps. */
  maxTokens: number;
}

/** What every episode shares: how text, tools, time and ids are made. */
export interface EpisodeContext {
  tokenizer: Tokenizer;
  protocol: Protocol;
  tools: ToolRunner;
  clock: Clock;
  newId: NewId;
  /** Vocabulary size for entropy normalisation is the tokenizer's. */
}

/** A stored path and what came after it, in the form in which an episode goes on from there. */
export interface Continuation {
  /** From the root to the leaf, all of the sequence's policy version. */
  steps: readonly StepRecord[];
  /** The calls of the leaf with the client's results, in the order of the calls. */
  answered: readonly ToolCallRecord[];
  /** Whether messages follow those results. */
  furtherMessages: boolean;
  /** All that is new, rendered: results and messages, up to where the policy goes on. */
  tokens: readonly number[];
}

/** A run that stopped between two steps, with nothing lost: it waited, or its server ended. */
export interface Resumption {
  /** Its whole path, all of the sequence's policy version. */
  steps: readonly StepRecord[];
  /** The calls of the last policy step where a client was told their ids. */
  calls: readonly ToolCallRequest[];
  /** Results of the calls that waited for a client; empty when none did. */
  results: readonly ToolCallRecord[];
}

export interface AgentRequest {
  sequence: Sequence;
  /** The conversation, rendered whole. Not read when `continuation` is given. */
  messages: readonly ChatMessage[];
  /** Go on from stored tokens instead. */
  continuation?: Continuation;
  /** Go on with a run as if it had not stopped; limits and figures are of the whole run. */
  resume?: Resumption;
  /** Server tools by name. */
  toolNames: readonly string[];
  /** Client-run functions: a call of one ends the run with `tool_calls`. */
  clientTools?: readonly ToolSpec[];
  /**
   * The run will go on with the client's results: server calls of the same step are run before it
   * ends with `tool_calls`, and a limit that leaves no use for the results ends it instead.
   */
  waits?: boolean;
  /** Of this run: what a continued path had before does not count for `maxTokens`. */
  limits: EpisodeLimits;
  /**
   * The window, given when the caller asked for a number of tokens: a prompt that leaves less than
   * `limits.maxTokens` is refused before work starts. Without it a run may end with `context`.
   */
  contextTokens?: number;
  sampling: SamplingParams;
  /** Texts that end a policy step. */
  stopTexts?: readonly string[];
  /** How many of the likeliest tokens `onTokens` is told at every place; 0 when left out. */
  likeliest?: number;
  /** The form of the first policy step of this run; the others are free. */
  form?: AnswerForm;
  /** The form of those others. */
  laterForm?: AnswerForm;
  signal?: AbortSignal;
  /**
   * Aborted: the run stops before its next policy step, or in the middle of one, which is then
   * forgotten; tools are not disturbed. The outcome is `suspended`.
   */
  suspend?: AbortSignal;
  /** How long the run may work, and has worked already; LIMITS.agentRunTimeoutMs when absent. */
  time?: { limitMs: number; usedMs: number };
  /** Which entry of the log this becomes. */
  trajectoryId?: string;
  source: TrajectorySource;
  tenant: string;
  conversationId: string | null;
  taskId: string | null;
  /** Called as tokens of the current policy step arrive. */
  onTokens?: (piece: SampledTokens) => void;
  /** Called before calls are run here, with all calls of the step that have no result yet. */
  onCalls?: (calls: readonly ToolCallRequest[]) => void;
  /** Called once a step is whole (a tool step: with its result). */
  onStep?: (step: StepRecord) => void;
  /**
   * Makes steps durable as they come; those of one call belong together. The run waits for it
   * before it calls a tool with effects and at its end, and fails when it fails.
   */
  log?: (steps: readonly StepRecord[]) => Promise<void>;
}

/** What the runs of one request differ in. */
export type AgentChoice = Pick<AgentRequest, 'sampling' | 'trajectoryId' | 'onTokens' | 'onStep'>;

export interface AgentOutcome {
  trajectoryId: string;
  /** Those of this run; a continued path lies before them. */
  steps: StepRecord[];
  answer: string | null;
  endReason: EndReason;
  formatOk: boolean;
  /** Calls of client tools that wait for the client. */
  pendingCalls: { id: string; name: string; arguments: string }[];
  /** All calls of a step that ended with `tool_calls`. */
  calls: readonly ToolCallRequest[];
  /** The run stopped on demand between two steps and can be resumed; nothing else is of meaning. */
  suspended: boolean;
  /** What the policy was given before this run sampled: the prompt, or the continued path. */
  promptTokens: number;
  /** Those of them whose keys and values were cached when it began to sample. */
  cachedTokens: number;
  /** Of this run. */
  sampledTokens: number;
  /** Why the end reason is `failed` (the engine went away in mid-run); else null. */
  error: AppError | null;
  /** Everything to write; the caller awaits `StepLog.append` before its answer ends. */
  log: LogBatch;
}
