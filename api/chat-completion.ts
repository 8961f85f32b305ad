/**
 * One chat completion, from a checked request on an opened sequence to durable rows: runs one
 * policy step through the agent loop (client tools only), shows the text as it comes, and ends only
 * after the log has the rows. Streamed and plain calls both go through here; tokens are captured
 * below, in the engine, so both leave equal rows.
 */
import type { AgentOutcome, Continuation } from '../core/agent/types.ts';
import { runAgent } from '../core/agent/run-agent.ts';
import { must } from '../core/assert.ts';
import { AppError } from '../core/errors.ts';
import type { SampledTokens, ToolSpec } from '../core/ports.ts';
import type { EndReason } from '../core/records.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { AnswerForm, ChatMessage, Protocol, Tokenizer } from '../core/text/types.ts';
import type { AppDeps } from './app.ts';
import { samplingParams, type SamplingFields } from './chat-request.ts';
import { ChatText, hiddenTokens } from './chat-text.ts';
import type { TextPiece } from './chat-text.ts';
import { keyOfAnswer } from './continuation.ts';
import type { Schemas } from './handlers.ts';
import type { OpenedPolicy } from './policy-service.ts';

export type FinishReason = Schemas['FinishReason'];
export type TokenLogprob = Schemas['TokenLogprob'];

export interface CompletionRequest {
  tenant: string;
  messages: readonly ChatMessage[];
  tools: readonly ToolSpec[];
  /** Null: the policy writes what it likes. */
  form: AnswerForm | null;
  sampling: SamplingFields;
  /** Null: as many as the policy's makers say, else as the window holds. */
  maxTokens: number | null;
  stops: readonly string[];
  logprobs: boolean;
  /** The client's `x-session-id`. */
  sessionId: string | null;
  /** The stored path that the messages go on from; null: they are rendered whole. */
  continuation: Continuation | null;
  conversationId: string | null;
  trajectoryId: string;
  signal: AbortSignal;
}

/** Text as it becomes certain, with the tokens it came from. */
export interface CompletionPiece extends TextPiece {
  /** Empty unless asked for. */
  logprobs: TokenLogprob[];
}

export interface Completion {
  finishReason: FinishReason;
  toolCalls: Schemas['ToolCall'][];
  usage: Schemas['Usage'];
}

/** Below this, log-probabilities say only "very unlikely"; OpenAI's clients know the number. */
const LOGPROB_MIN = -9999;

/**
 * Resolves when the answer is whole and durable. Pieces come in order, the last before it resolves.
 * Owns the sequence. @throws AppError as runAgent; request_cancelled when the client left.
 */
export async function runCompletion(
  deps: AppDeps,
  opened: OpenedPolicy,
  request: CompletionRequest,
  onPiece: (piece: CompletionPiece) => void,
): Promise<Completion> {
  const { tokenizer, protocol } = opened.policy;
  const shown = new ShownText(protocol, tokenizer, request);
  const outcome = await runStep(deps, opened, request, shown, onPiece);
  const step = outcome.steps.findLast(({ kind }) => kind === 'policy');
  const last = shown.end(step?.text ?? null, outcome.pendingCalls.length > 0);
  const [trajectory] = outcome.log.trajectories ?? [];
  const message: ChatMessage = {
    role: 'assistant',
    content: shown.content,
    toolCalls: outcome.pendingCalls,
  };
  const key = keyOfAnswer(protocol, request, { message, endReason: outcome.endReason });
  if (trajectory !== undefined && key !== undefined) trajectory.continuationKey = key;
  // Rows of a cancelled or failed answer are kept too.
  await deps.stores.stepLog.append(outcome.log);
  if (outcome.error !== null) throw outcome.error;
  if (outcome.endReason === 'cancelled') throw cancelled(deps);
  onPiece(last);
  return completionOf(outcome);
}

function runStep(
  deps: AppDeps,
  { policy, sequence }: OpenedPolicy,
  request: CompletionRequest,
  shown: ShownText,
  onPiece: (piece: CompletionPiece) => void,
): Promise<AgentOutcome> {
  const { tokenizer, protocol } = policy;
  const { contextTokens } = deps.engine;
  const maxNewTokens = policy.generation?.maxNewTokens;
  return runAgent(
    { tokenizer, protocol, tools: deps.tools, clock: deps.clock, newId: withId(deps, request) },
    {
      sequence,
      messages: request.messages,
      ...(request.continuation !== null && { continuation: request.continuation }),
      toolNames: [],
      clientTools: request.tools,
      // One step an answer: a call of a tool that was not offered ends it, as text.
      limits: { maxToolCalls: 0, maxTokens: request.maxTokens ?? maxNewTokens ?? contextTokens },
      ...(request.maxTokens !== null && { contextTokens }),
      sampling: samplingParams(request.sampling, policy.generation),
      stopTexts: request.stops,
      ...(request.form !== null && { form: request.form }),
      signal: request.signal,
      source: 'live',
      tenant: request.tenant,
      conversationId: request.conversationId,
      taskId: null,
      onStep: (step) => {
        if (step.kind !== 'policy') shown.begin(step.text);
      },
      onTokens: (piece) => onPiece(shown.push(piece)),
    },
  );
}

/** One answer's text on its way from sampled tokens to what its client sees. */
export class ShownText {
  /** All content so far. */
  content = '';
  private readonly protocol: Protocol;
  private readonly tokenizer: Tokenizer;
  private readonly request: Pick<CompletionRequest, 'stops' | 'logprobs'>;
  private readonly decoder: StreamDecoder;
  private text: ChatText | null = null;

  constructor(protocol: Protocol, tokenizer: Tokenizer, request: ShownText['request']) {
    this.protocol = protocol;
    this.tokenizer = tokenizer;
    this.request = request;
    this.decoder = new StreamDecoder(tokenizer, { skip: hiddenTokens(protocol, tokenizer) });
  }

  /** `context`: the text that the policy goes on from; the last one before it writes counts. */
  begin(context: string): void {
    const reasoningOpen = /<think>\s*$/.test(context);
    this.text = new ChatText(this.protocol, { stops: this.request.stops, reasoningOpen });
  }

  push(piece: SampledTokens): CompletionPiece {
    const shown = this.begun().push(this.decoder.push(piece.tokens));
    this.content += shown.content;
    return {
      ...shown,
      logprobs: this.request.logprobs ? tokenLogprobs(piece, this.tokenizer) : [],
    };
  }

  /** What is certain only now that the step is whole; `step`: its text, null when there is none. */
  end(step: string | null, callsTaken: boolean): CompletionPiece {
    const parsed = step === null ? null : this.protocol.parseStep(step);
    const tail = this.begun().push(this.decoder.flush());
    const rest = this.begun().finish(parsed, callsTaken);
    const content = tail.content + rest.content;
    this.content += content;
    return { reasoning: tail.reasoning + rest.reasoning, content, logprobs: [] };
  }

  private begun(): ChatText {
    return must(this.text, 'a context step comes before the policy writes');
  }
}

/**
 * The one place that decides finish_reason. A call cut by a limit is `length`; a whole one counts.
 */
export function finishReason(endReason: EndReason, pendingCalls: number): FinishReason {
  if (pendingCalls > 0) return 'tool_calls';
  return endReason === 'max_tokens' || endReason === 'context' ? 'length' : 'stop';
}

export function usageOf(promptTokens: number, sampledTokens: number): Schemas['Usage'] {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: sampledTokens,
    total_tokens: promptTokens + sampledTokens,
  };
}

export function toolCallsOf(calls: AgentOutcome['pendingCalls']): Schemas['ToolCall'][] {
  return calls.map((call) => ({
    id: call.id,
    type: 'function',
    function: { name: call.name, arguments: call.arguments },
  }));
}

/** A request that was aborted: by its client, or by a server that stops. */
export function cancelled(deps: Pick<AppDeps, 'lifecycle'>): AppError {
  return deps.lifecycle.aborted
    ? new AppError('not_ready', 'the server stopped before the answer was whole')
    : new AppError('request_cancelled', 'the client went away');
}

function completionOf(outcome: AgentOutcome): Completion {
  return {
    finishReason: finishReason(outcome.endReason, outcome.pendingCalls.length),
    toolCalls: toolCallsOf(outcome.pendingCalls),
    usage: usageOf(outcome.promptTokens, outcome.sampledTokens),
  };
}

/** The trajectory's id must be in the headers of a stream, so it is made before the trajectory. */
function withId(deps: AppDeps, { trajectoryId }: CompletionRequest): AppDeps['newId'] {
  return (kind) => (kind === 'trajectory' ? trajectoryId : deps.newId(kind));
}

function tokenLogprobs(piece: SampledTokens, tokenizer: Tokenizer): TokenLogprob[] {
  return Array.from(piece.tokens, (token, i) => {
    const logprob = piece.logprobs[i] as number;
    return {
      token: tokenizer.decode([token]),
      // Rounding can lift a sure token a hair above 0.
      logprob: Math.max(LOGPROB_MIN, Math.min(0, logprob)),
      bytes: Array.from(tokenizer.tokenBytes(token)),
      top_logprobs: [],
    };
  });
}
