/**
 * One chat completion, from a checked request on an opened sequence to durable rows: runs one
 * policy step a choice through the agent loop (client tools only), shows the text as it comes, and
 * ends only after the log has the rows. Streamed and plain calls both go through here; tokens are
 * captured below, in the engine, so both leave equal rows.
 */
import type { AgentChoice, AgentOutcome, Continuation } from '../core/agent/types.ts';
import { runChoices } from '../core/agent/run-agent.ts';
import { must } from '../core/assert.ts';
import { AppError } from '../core/errors.ts';
import type { TokenUsage } from '../core/key-records.ts';
import { mix } from '../core/prng.ts';
import type { SampledTokens, ToolSpec } from '../core/ports.ts';
import type { EndReason, TrajectoryRecord } from '../core/records.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { AnswerForm, ChatMessage, Protocol, Tokenizer } from '../core/text/types.ts';
import type { AppDeps } from './app.ts';
import { samplingParams, type SamplingFields } from './chat-request.ts';
import { ChatText, hiddenTokens, reasoningTokens } from './chat-text.ts';
import type { TextPiece } from './chat-text.ts';
import { keyOfAnswer } from './continuation.ts';
import type { Schemas } from './handlers.ts';
import type { OpenedPolicy } from './policy-service.ts';

export type FinishReason = Schemas['FinishReason'];
export type TokenLogprob = Schemas['TokenLogprob'];

export interface CompletionRequest {
  tenant: string;
  /** Whose tokens they are; null: nobody counts. */
  keyId: string | null;
  messages: readonly ChatMessage[];
  tools: readonly ToolSpec[];
  /** Null: the policy writes what it likes. */
  form: AnswerForm | null;
  sampling: SamplingFields;
  /** Null: as many as the policy's makers say, else as the window holds. */
  maxTokens: number | null;
  stops: readonly string[];
  /** At most one call a step: it ends behind the first. */
  oneCall: boolean;
  logprobs: boolean;
  topLogprobs: number;
  /** The client's `x-session-id`. */
  sessionId: string | null;
  metadata: Record<string, string> | null;
  /** The stored path that the messages go on from; null: they are rendered whole. */
  continuation: Continuation | null;
  conversationId: string | null;
  /** One a choice. */
  trajectoryIds: readonly [string, ...string[]];
  signal: AbortSignal;
}

/** Text as it becomes certain, with the tokens it came from. */
export interface CompletionPiece extends TextPiece {
  /** Empty unless asked for. */
  logprobs: TokenLogprob[];
}

export interface Completion {
  /** In the order of the request's trajectories. */
  choices: CompletedChoice[];
  usage: Schemas['Usage'];
}

export interface CompletedChoice {
  finishReason: FinishReason;
  toolCalls: Schemas['ToolCall'][];
}

/** Told of pieces of the choice with this index. */
export type OnPiece = (piece: CompletionPiece, choice: number) => void;

/** Below this, log-probabilities say only "very unlikely"; OpenAI's clients know the number. */
const LOGPROB_MIN = -9999;

/**
 * Resolves when the answer is whole and durable. Pieces of a choice come in order, the last before
 * it resolves. Owns the sequence. When one choice fails the others end as cancelled.
 * @throws AppError as runChoices; request_cancelled when the client left.
 */
export async function runCompletion(
  deps: AppDeps,
  opened: OpenedPolicy,
  request: CompletionRequest,
  onPiece: OnPiece,
): Promise<Completion> {
  const { tokenizer, protocol } = opened.policy;
  const shown = request.trajectoryIds.map(() => new ShownText(protocol, tokenizer, request));
  const { outcomes, failure } = await runSteps(deps, opened, request, shown, onPiece);
  const choiceOf = ({ trajectoryId }: AgentOutcome): number =>
    request.trajectoryIds.indexOf(trajectoryId);
  const ends = outcomes.map((outcome) => {
    const choice = choiceOf(outcome);
    const text = must(shown[choice], 'a text for each choice');
    const step = outcome.steps.findLast(({ kind }) => kind === 'policy');
    const last = text.end(step?.text ?? null, outcome.pendingCalls.length > 0);
    return { choice, outcome, last, trajectory: trajectoryOf(protocol, request, outcome, text) };
  });
  // Rows of a cancelled or failed answer are kept too; a step that choices share is written once.
  await Promise.all([
    deps.stores.stepLog.append({
      steps: ends.flatMap(({ outcome }) => outcome.log.steps ?? []),
      trajectories: ends.map(({ trajectory }) => trajectory),
    }),
    deps.usage.count(request.keyId, tokensOf(outcomes)),
  ]);
  const error = failure ?? outcomes.find((one) => one.error !== null)?.error ?? null;
  if (error !== null) throw error;
  if (outcomes.some(({ endReason }) => endReason === 'cancelled')) throw cancelled(deps);
  for (const { choice, last } of ends) onPiece(last, choice);
  return completionOf(outcomes, shown);
}

/** Its record, with the key by which a later request goes on from it. */
function trajectoryOf(
  protocol: Protocol,
  request: CompletionRequest,
  outcome: AgentOutcome,
  { content }: ShownText,
): TrajectoryRecord {
  const trajectory = must(outcome.log.trajectories?.[0], 'an outcome has a trajectory');
  const { endReason, pendingCalls: toolCalls } = outcome;
  const message: ChatMessage = { role: 'assistant', content, toolCalls };
  const key = keyOfAnswer(protocol, request, { message, endReason });
  const { tools, metadata } = request;
  const offer = { tools, metadata };
  return { ...trajectory, offer, ...(key !== undefined && { continuationKey: key }) };
}

function runSteps(
  deps: AppDeps,
  { policy, sequence }: OpenedPolicy,
  request: CompletionRequest,
  shown: readonly ShownText[],
  onPiece: OnPiece,
): Promise<{ outcomes: AgentOutcome[]; failure: AppError | null }> {
  const { tokenizer, protocol } = policy;
  const { tools, clock, newId } = deps;
  const { contextTokens } = sequence;
  const maxNewTokens = policy.generation?.maxNewTokens;
  const sampling = samplingParams(request.sampling, policy.generation);
  const callEnd = request.oneCall ? (protocol.opening?.callEnd ?? null) : null;
  const choices = shown.map((text, i): AgentChoice => ({
    // The first draws what it would draw alone.
    sampling: i === 0 ? sampling : { ...sampling, seed: mix(sampling.seed, i) },
    trajectoryId: must(request.trajectoryIds[i], 'an id for each choice'),
    onStep: (step) => {
      if (step.kind !== 'policy') text.begin(step.text);
    },
    onTokens: (piece) => onPiece(text.push(piece), i),
  }));
  return runChoices(
    { tokenizer, protocol, tools, clock, newId },
    {
      sequence,
      messages: request.messages,
      ...(request.continuation !== null && { continuation: request.continuation }),
      toolNames: [],
      clientTools: request.tools,
      // One step an answer: a call of a tool that was not offered ends it, as text.
      limits: { maxToolCalls: 0, maxTokens: request.maxTokens ?? maxNewTokens ?? contextTokens },
      ...(request.maxTokens !== null && { contextTokens }),
      sampling,
      stopTexts: callEnd === null ? request.stops : [...request.stops, callEnd],
      likeliest: request.topLogprobs,
      ...(request.form !== null && { form: request.form }),
      signal: request.signal,
      source: 'live',
      tenant: request.tenant,
      conversationId: request.conversationId,
      taskId: null,
    },
    choices,
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
  private reasoningOpen = false;

  constructor(protocol: Protocol, tokenizer: Tokenizer, request: ShownText['request']) {
    this.protocol = protocol;
    this.tokenizer = tokenizer;
    this.request = request;
    this.decoder = new StreamDecoder(tokenizer, { skip: hiddenTokens(protocol, tokenizer) });
  }

  /** `context`: the text that the policy goes on from; the last one before it writes counts. */
  begin(context: string): void {
    this.reasoningOpen = /<think>\s*$/.test(context);
    const { reasoningOpen } = this;
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

  /** Of the step's tokens, those of its thoughts. */
  reasoningTokens({ steps }: Pick<AgentOutcome, 'steps'>): number {
    const step = steps.findLast(({ kind }) => kind === 'policy');
    if (step === undefined) return 0;
    return reasoningTokens(step.tokens, this.tokenizer, this.reasoningOpen);
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

/** The prompt counts once, whatever goes on from it. */
/** Choices share their prompt. */
function tokensOf(outcomes: readonly AgentOutcome[]): TokenUsage {
  const completionTokens = outcomes.reduce((sum, { sampledTokens }) => sum + sampledTokens, 0);
  return { promptTokens: outcomes[0]?.promptTokens ?? 0, completionTokens };
}

function completionOf(outcomes: readonly AgentOutcome[], shown: readonly ShownText[]): Completion {
  const sum = (of: (outcome: AgentOutcome, choice: number) => number): number =>
    outcomes.map(of).reduce((total, count) => total + count, 0);
  const reasoning = sum((outcome, i) => must(shown[i], 'a text').reasoningTokens(outcome));
  const promptTokens = outcomes[0]?.promptTokens ?? 0;
  return {
    choices: outcomes.map(({ endReason, pendingCalls }) => ({
      finishReason: finishReason(endReason, pendingCalls.length),
      toolCalls: toolCallsOf(pendingCalls),
    })),
    usage: {
      ...usageOf(
        promptTokens,
        sum(({ sampledTokens }) => sampledTokens),
      ),
      prompt_tokens_details: {
        cached_tokens: Math.min(...outcomes.map(({ cachedTokens }) => cachedTokens)),
      },
      completion_tokens_details: { reasoning_tokens: reasoning },
    },
  };
}

function tokenLogprobs(piece: SampledTokens, tokenizer: Tokenizer): TokenLogprob[] {
  const entry = (token: number, logprob: number) => ({
    token: tokenizer.decode([token]),
    // Rounding can lift a sure token a hair above 0.
    logprob: Math.max(LOGPROB_MIN, Math.min(0, logprob)),
    bytes: Array.from(tokenizer.tokenBytes(token)),
  });
  return Array.from(piece.tokens, (token, i) => {
    return {
      ...entry(token, piece.logprobs[i] as number),
      top_logprobs: likeliestAt(piece, i).map(([likely, ln]) => entry(likely, ln)),
    };
  });
}

/** Tokens with their log-probabilities, the likeliest first. */
function likeliestAt({ likeliest }: SampledTokens, place: number): [number, number][] {
  if (likeliest === undefined) return [];
  const { count, tokens, logprobs } = likeliest;
  return Array.from({ length: count }, (_, k) => {
    const at = place * count + k;
    return [tokens[at] as number, logprobs[at] as number];
  });
}
