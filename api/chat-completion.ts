/**
 * One chat completion, from a checked request to durable rows: opens a sequence on one policy
 * version, runs one policy step through the agent loop (client tools only), shows the text as it
 * comes, and ends only after the log has the rows. Streamed and plain calls both go through here;
 * tokens are captured below, in the engine, so both leave equal rows.
 */
import type { AgentOutcome } from '../core/agent/types.ts';
import { runAgent } from '../core/agent/run-agent.ts';
import { AppError } from '../core/errors.ts';
import type { SampledTokens, ToolSpec } from '../core/ports.ts';
import type { EndReason, SamplingParams } from '../core/records.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { ChatMessage, Tokenizer } from '../core/text/types.ts';
import type { AppDeps } from './app.ts';
import { ChatText, hiddenTokens } from './chat-text.ts';
import type { TextPiece } from './chat-text.ts';
import type { Schemas } from './handlers.ts';
import type { OpenedPolicy } from './policy-service.ts';
import { withStopTexts } from './stop-texts.ts';

export type FinishReason = Schemas['FinishReason'];
export type TokenLogprob = Schemas['TokenLogprob'];

export interface CompletionRequest {
  messages: readonly ChatMessage[];
  tools: readonly ToolSpec[];
  sampling: SamplingParams;
  /** Null: as many as the window holds. */
  maxTokens: number | null;
  stops: readonly string[];
  logprobs: boolean;
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
  const { policy, sequence } = opened;
  const { tokenizer, protocol } = policy;
  const decoder = new StreamDecoder(tokenizer, { skip: hiddenTokens(protocol, tokenizer) });
  let text: ChatText | null = null;
  const outcome = await runAgent(
    { tokenizer, protocol, tools: deps.tools, clock: deps.clock, newId: withId(deps, request) },
    {
      sequence: withStopTexts(sequence, tokenizer, request.stops),
      messages: request.messages,
      toolNames: [],
      clientTools: request.tools,
      // One step an answer: a call of a tool that was not offered ends it, as text.
      limits: { maxToolCalls: 0, maxTokens: request.maxTokens ?? deps.engine.contextTokens },
      ...(request.maxTokens !== null && { contextTokens: deps.engine.contextTokens }),
      sampling: request.sampling,
      signal: request.signal,
      source: 'live',
      conversationId: request.conversationId,
      taskId: null,
      onStep: (step) => {
        if (step.kind !== 'prompt') return;
        const reasoningOpen = /<think>\s*$/.test(step.text);
        text = new ChatText(protocol, { stops: request.stops, reasoningOpen });
      },
      onTokens: (piece) => {
        const shown = text?.push(decoder.push(piece.tokens)) ?? { reasoning: '', content: '' };
        onPiece({ ...shown, logprobs: request.logprobs ? tokenLogprobs(piece, tokenizer) : [] });
      },
    },
  );
  // Rows of a cancelled or failed answer are kept too.
  await deps.stores.stepLog.append(outcome.log);
  if (outcome.error !== null) throw outcome.error;
  if (outcome.endReason === 'cancelled') throw cancelled(deps);
  const step = outcome.steps.findLast(({ kind }) => kind === 'policy');
  const parsed = step === undefined ? null : protocol.parseStep(step.text);
  const whole = text as ChatText | null;
  const tail = whole?.push(decoder.flush());
  const rest = whole?.finish(parsed, outcome.pendingCalls.length > 0);
  if (tail !== undefined && rest !== undefined) {
    const reasoning = tail.reasoning + rest.reasoning;
    onPiece({ reasoning, content: tail.content + rest.content, logprobs: [] });
  }
  return completionOf(outcome);
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
