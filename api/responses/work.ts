/**
 * The work on one response, from an opened sequence to durable rows: the agent loop with the tools
 * of this server and the client's functions, its output written as it comes, and the end told only
 * after the log and the stored response have it.
 */
import { must } from '../../core/assert.ts';
import { runAgent } from '../../core/agent/run-agent.ts';
import type { AgentOutcome, AgentRequest, Continuation } from '../../core/agent/types.ts';
import { AppError, toAppError } from '../../core/errors.ts';
import type { NewId } from '../../core/ids.ts';
import type { LogBatch } from '../../core/ports.ts';
import type {
  ResponseItem,
  ResponseRecord,
  SamplingParams,
  StepRecord,
} from '../../core/records.ts';
import type { ChatMessage } from '../../core/text/types.ts';
import type { AppDeps } from '../app.ts';
import { ShownText } from '../chat-completion.ts';
import { keyOfAnswer } from '../continuation.ts';
import { cutTrajectory, plainError } from '../live-run.ts';
import type { OpenedPolicy } from '../policy-service.ts';
import { messagesOf } from './items.ts';
import type { Item } from './items.ts';
import type { DemandedForms, OfferedTools } from './request.ts';
import { responseView } from './view.ts';
import type { ResponseWriter } from './writer.ts';

export type WorkDeps = Pick<
  AppDeps,
  'stores' | 'tools' | 'lifecycle' | 'usage' | 'clock' | 'newId' | 'logger'
>;

/** What the policy is asked. */
export interface Asked {
  /** Whose tokens they are; null: nobody counts. */
  keyId: string | null;
  /** Instructions, what the response goes on from, and its own items. */
  messages: readonly ChatMessage[];
  /** The stored path that the messages go on from; null: they are rendered whole. */
  continuation: Continuation | null;
  tools: OfferedTools;
  forms: DemandedForms;
  sampling: SamplingParams;
  /** Null: as many as the policy's makers say, else as the window holds. */
  maxTokens: number | null;
  maxToolCalls: number;
  logprobs: boolean;
  topLogprobs: number;
  /** At most one call a step: it ends behind the first. */
  oneCall: boolean;
  metadata: Record<string, string> | null;
  trajectoryId: string;
}

/** A response in memory. */
export interface LiveResponse {
  record: ResponseRecord;
  /** What its request brought. */
  readonly input: readonly Item[];
  readonly stored: boolean;
  readonly background: boolean;
  /** The trajectory to be. */
  readonly trajectoryId: string;
  readonly writer: ResponseWriter;
  /** Resolves when the first piece of output is there, or the end. */
  begun: Promise<void>;
  /** Resolves when it has ended and its rows are durable; never rejects. */
  done: Promise<void>;
  /** Why there is no output at all, or none that lasts. */
  failure: AppError | null;
  abort: () => void;
}

export async function workOn(
  deps: WorkDeps,
  live: LiveResponse,
  opened: OpenedPolicy,
  asked: Asked,
  { signal, onBegun }: { signal: AbortSignal; onBegun: () => void },
): Promise<void> {
  const steps = new StepWriter(live.writer, opened, asked, onBegun);
  live.writer.begin(responseView(live.record, []));
  try {
    const outcome = await runAgent(...agentCall(deps, opened, asked, steps, { live, signal }));
    steps.end(outcome);
    await finish(deps, live, opened, asked, outcome, steps);
  } catch (thrown) {
    await fail(deps, live, thrown);
  }
}

function agentCall(
  { tools, clock, newId, stores }: WorkDeps,
  { policy, sequence }: OpenedPolicy,
  asked: Asked,
  steps: StepWriter,
  { live, signal }: { live: LiveResponse; signal: AbortSignal },
): Parameters<typeof runAgent> {
  const { tokenizer, protocol } = policy;
  const { continuation, maxTokens, forms } = asked;
  const { names, functions } = asked.tools;
  const callEnd = asked.oneCall ? (protocol.opening?.callEnd ?? null) : null;
  const ownId: NewId = (kind) => (kind === 'trajectory' ? asked.trajectoryId : newId(kind));
  const before = continuation === null ? 0 : toolSteps(continuation);
  const request: AgentRequest = {
    sequence,
    messages: asked.messages,
    ...(continuation !== null && { continuation }),
    toolNames: names,
    clientTools: functions,
    // Without tools of this server a step is an answer: a call of one not offered ends it, as text.
    ...(names.length > 0 && { waits: true }),
    limits: {
      maxToolCalls: names.length > 0 ? before + asked.maxToolCalls : 0,
      maxTokens: maxTokens ?? policy.generation?.maxNewTokens ?? sequence.contextTokens,
    },
    ...(maxTokens !== null && { contextTokens: sequence.contextTokens }),
    sampling: asked.sampling,
    likeliest: asked.topLogprobs,
    ...(callEnd !== null && { stopTexts: [callEnd] }),
    ...(forms.first !== null && { form: forms.first }),
    ...(forms.later !== null && { laterForm: forms.later }),
    signal,
    source: 'live',
    tenant: live.record.tenant,
    conversationId: live.record.conversationId,
    taskId: null,
    onTokens: (piece) => steps.sampled(piece),
    onCalls: (calls) => steps.called(calls),
    onStep: (step) => steps.made(step),
    // A call may have effects: what led to it is durable before.
    ...(names.length > 0 && { log: (made) => logSteps(stores, live, made) }),
  };
  const context = { tokenizer, protocol, tools: tools.callsOf(asked.keyId), clock, newId: ownId };
  return [context, request];
}

/** The steps, and whose they are, so that the log has them after a crash too. */
async function logSteps(
  { stepLog, responses }: WorkDeps['stores'],
  live: LiveResponse,
  made: readonly StepRecord[],
): Promise<void> {
  const leaf = made.at(-1);
  if (leaf === undefined) return;
  const { id, leafStepId: before } = live.record;
  live.record = { ...live.record, trajectoryId: live.trajectoryId, leafStepId: leaf.id };
  await Promise.all([
    stepLog.append({ steps: [...made] }),
    before !== null
      ? responses.advance(id, leaf.id)
      : saveResponse(responses, live.record, { input: live.input, output: [] }, !live.stored),
  ]);
}

function toolSteps({ steps, answered }: Continuation): number {
  return steps.filter(({ kind }) => kind === 'tool').length + answered.length;
}

/** Follows the loop and writes what of it the client sees. */
class StepWriter {
  reasoningTokens = 0;
  private readonly writer: ResponseWriter;
  private readonly opened: OpenedPolicy;
  private readonly asked: Asked;
  private readonly onBegun: () => void;
  private shown: ShownText | null = null;
  /** The text of the step that is whole but not told to its end. */
  private text: string | null = null;

  constructor(writer: ResponseWriter, opened: OpenedPolicy, asked: Asked, onBegun: () => void) {
    this.writer = writer;
    this.opened = opened;
    this.asked = asked;
    this.onBegun = onBegun;
  }

  made(step: StepRecord): void {
    const { toolCall } = step;
    if (step.kind === 'policy') {
      this.text = step.text;
      this.reasoningTokens += this.shown?.reasoningTokens({ steps: [step] }) ?? 0;
      return;
    }
    if (toolCall !== null && toolCall.served !== 'client') {
      const { result, error } = toolCall;
      this.writer.endServerCall(toolCall.id, { result: result ?? '', failed: error !== null });
    }
    const { protocol, tokenizer } = this.opened.policy;
    const { logprobs } = this.asked;
    this.shown = new ShownText(protocol, tokenizer, { stops: [], logprobs });
    this.shown.begin(step.text);
    this.writer.beginStep();
  }

  sampled(piece: Parameters<ShownText['push']>[0]): void {
    this.writer.add(must(this.shown, 'a context step comes before the policy writes').push(piece));
    this.onBegun();
  }

  called(calls: readonly { id?: string; name: string; arguments: string }[]): void {
    const { names, functions } = this.asked.tools;
    if (names.length === 0) return;
    this.endStep('completed', true);
    const elsewhere = new Set(functions.map(({ name }) => name));
    const here = calls.filter(({ name }) => !elsewhere.has(name));
    this.writer.beginServerCalls(
      here.map((call) => ({ ...call, id: must(call.id, 'calls that run have ids') })),
    );
  }

  end(outcome: AgentOutcome): void {
    const whole = statusOf(outcome, this.asked).status === 'completed';
    this.endStep(whole ? 'completed' : 'incomplete', outcome.pendingCalls.length > 0);
    this.writer.endAll();
    this.writer.functionCalls(outcome.pendingCalls);
  }

  private endStep(status: 'completed' | 'incomplete', callsTaken: boolean): void {
    const { shown } = this;
    if (shown === null) return;
    this.shown = null;
    this.writer.add(shown.end(this.text, callsTaken));
    this.text = null;
    this.writer.endStep(status, callsTaken);
  }
}

type Ending = Pick<ResponseRecord, 'status' | 'incompleteReason'>;

function statusOf({ endReason, error }: AgentOutcome, { tools }: Asked): Ending {
  if (error !== null) return { status: 'failed', incompleteReason: null };
  if (endReason === 'cancelled') return { status: 'cancelled', incompleteReason: null };
  if (endReason === 'max_tokens' || endReason === 'context') {
    return { status: 'incomplete', incompleteReason: 'max_output_tokens' };
  }
  if (endReason === 'max_tool_calls' && tools.names.length > 0) {
    return { status: 'incomplete', incompleteReason: 'max_tool_calls' };
  }
  return { status: 'completed', incompleteReason: null };
}

async function finish(
  deps: WorkDeps,
  live: LiveResponse,
  { policy }: OpenedPolicy,
  asked: Asked,
  outcome: AgentOutcome,
  { reasoningTokens }: StepWriter,
): Promise<void> {
  const [trajectory] = outcome.log.trajectories ?? [];
  const { output } = live.writer;
  const ending = statusOf(outcome, asked);
  // The server's stop is a failure that its client did not ask for.
  const cut = ending.status === 'cancelled' && deps.lifecycle.aborted;
  const error = cut ? stopped() : outcome.error;
  const { leafStepId } = live.record;
  const results = outcome.steps.filter(({ toolCall }) => isServed(toolCall));
  const inputTokens = results.reduce(
    (sum, { tokens }) => sum + tokens.length,
    outcome.promptTokens,
  );
  live.record = {
    ...live.record,
    ...ending,
    ...(error !== null && { status: 'failed', error: plainError(error) }),
    trajectoryId: trajectory?.id ?? null,
    leafStepId: null,
    usage: {
      inputTokens,
      cachedTokens: outcome.cachedTokens,
      outputTokens: outcome.sampledTokens,
      reasoningTokens,
    },
    completedAt: deps.clock.now(),
  };
  if (trajectory !== undefined) {
    trajectory.offer = { tools: asked.tools.functions, metadata: asked.metadata };
    const said = messagesOf([...output], { callsOpen: true });
    const message = said.at(-1);
    const history = [...asked.messages, ...said.slice(0, -1)];
    const goesOn = message?.role === 'assistant' && outcome.steps.at(-1)?.kind === 'policy';
    const { sessionId } = live.record;
    const key = goesOn
      ? keyOfAnswer(
          policy.protocol,
          { messages: history, tools: asked.tools.specs, sessionId },
          { message, endReason: outcome.endReason },
        )
      : undefined;
    if (key !== undefined) trajectory.continuationKey = key;
  }
  const steps = asked.tools.names.length > 0 ? {} : { steps: outcome.log.steps ?? [] };
  const usage = { promptTokens: inputTokens, completionTokens: outcome.sampledTokens };
  await Promise.all([
    write(deps, live, leafStepId, { ...steps, trajectories: outcome.log.trajectories ?? [] }),
    deps.usage.count(asked.keyId, usage),
  ]);
  live.failure = error ?? (ending.status === 'cancelled' ? cancelled() : null);
  live.writer.end(responseView(live.record, output), error);
}

/** The loop threw, so there is no output, or the rows could not be written. */
async function fail(deps: WorkDeps, live: LiveResponse, thrown: unknown): Promise<void> {
  const error = toAppError(thrown);
  const { logger, clock } = deps;
  const { id } = live.record;
  if (error.code === 'internal' || error.code === 'storage_failed') {
    logger.error({ responseId: id, stack: error.stack }, error.message);
  }
  live.failure = error;
  live.writer.endAll();
  const { leafStepId } = live.record;
  live.record = {
    ...live.record,
    ...{ status: 'failed', error: plainError(error), leafStepId: null, completedAt: clock.now() },
  };
  try {
    // Of one that its client waits for nothing may be recorded so far, and it gets the error.
    if (live.background || leafStepId !== null) {
      await write(deps, live, leafStepId, cutBatch(deps.stores, { ...live.record, leafStepId }));
    }
  } catch (failure) {
    logger.error({ responseId: id, failure }, 'the end of a response was not stored');
  }
  live.writer.end(responseView(live.record, live.writer.output), error);
}

/** `leafStepId`: of its row while it was at work; one that is not stored had a hidden row then. */
async function write(
  { stores, clock }: WorkDeps,
  live: LiveResponse,
  leafStepId: string | null,
  batch: LogBatch,
): Promise<void> {
  const { record, input, writer, stored } = live;
  await Promise.all([
    stores.stepLog.append(batch),
    stored
      ? saveResponse(stores.responses, record, { input, output: writer.output })
      : leafStepId !== null && stores.responses.remove(record.id, clock.now()),
  ]);
}

/** The trajectory of what is durable of a response that was cut off; nothing when nothing is. */
export function cutBatch(
  { trajectories }: WorkDeps['stores'],
  record: ResponseRecord,
): Pick<LogBatch, 'trajectories'> {
  const { leafStepId } = record;
  const steps = leafStepId === null ? [] : trajectories.path(leafStepId);
  const cut = cutTrajectory(record, steps);
  return cut === null ? {} : { trajectories: [cut] };
}

export function saveResponse(
  responses: WorkDeps['stores']['responses'],
  record: ResponseRecord,
  { input, output }: { input: readonly Item[]; output: readonly Item[] },
  hidden = false,
): Promise<void> {
  const items = (list: readonly Item[]): ResponseItem[] => list.map((item) => ({ ...item }));
  return responses.save(record, { input: items(input), output: items(output) }, hidden);
}

function isServed(toolCall: StepRecord['toolCall']): boolean {
  return toolCall !== null && toolCall.served !== 'client';
}

function stopped(): AppError {
  return new AppError('not_ready', 'the server stopped before the response was whole');
}

function cancelled(): AppError {
  return new AppError('request_cancelled', 'the response was cancelled');
}
