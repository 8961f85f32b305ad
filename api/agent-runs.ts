/**
 * Server-run agents: starts a run on one policy version, records its steps and events as they come,
 * and writes everything to the log before anyone is told that it ended. Runs that are active or
 * ended lately are in memory with their events; older ones are read from the database.
 *
 * A foreground run is cancelled when its client leaves, a background run is not.
 */
import type { AgentOutcome } from '../core/agent/types.ts';
import { runAgent } from '../core/agent/run-agent.ts';
import type { Clock } from '../core/clock.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { ErrorCode } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type { SampledTokens, ToolRunner, ToolSpec } from '../core/ports.ts';
import type { AgentRunRecord, AgentRunStatus, StepRecord } from '../core/records.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { ChatMessage } from '../core/text/types.ts';
import type { Stores } from '../db/stores.ts';
import { toolCallsOf, usageOf } from './chat-completion.ts';
import { samplingParams, type SamplingFields } from './chat-request.ts';
import { EventLog } from './event-log.ts';
import type { Schemas } from './handlers.ts';
import type { Lifecycle } from './lifecycle.ts';
import { publicMessage } from './problem.ts';
import { pinnedName } from './policy-service.ts';
import type { OpenedPolicy, PolicyService } from './policy-service.ts';
import { stepView, time, timeOrNull } from './views.ts';

export type AgentRunView = Schemas['AgentRun'];
export type AgentRunEvent = Schemas['AgentRunEvent'];

export interface AgentRunRequest {
  model: string;
  messages: readonly ChatMessage[];
  toolNames: readonly string[];
  clientTools: readonly ToolSpec[];
  maxToolCalls: number;
  maxTokens: number | null;
  sampling: SamplingFields;
  /** The client's `x-session-id`. */
  sessionId: string | null;
  conversationId: string | null;
  metadata: Record<string, string>;
  /** The body as it was validated, for the record. */
  body: Record<string, unknown>;
}

export interface AgentRunsDeps {
  stores: Stores;
  policies: PolicyService;
  engine: Pick<PolicyEngine, 'contextTokens'>;
  tools: ToolRunner;
  clock: Clock;
  newId: NewId;
  lifecycle: Lifecycle;
  logger: Logger;
}

/** A run in memory. */
export interface LiveRun {
  record: AgentRunRecord;
  steps: StepRecord[];
  pendingCalls: AgentOutcome['pendingCalls'];
  readonly metadata: Record<string, string>;
  readonly events: EventLog<AgentRunEvent>;
  /** Resolves when the run has ended and its rows are durable; never rejects. */
  done: Promise<void>;
  /** Why the run failed before its first token; such a failure can still become an HTTP status. */
  earlyError: AppError | null;
  cancel(): void;
}

type Ending = Pick<AgentRunRecord, 'answer' | 'usage' | 'error'> & { status: AgentRunStatus };

export class AgentRuns {
  private readonly deps: AgentRunsDeps;
  /** Active and lately ended runs, oldest first. */
  private readonly runs = new Map<string, LiveRun>();
  private active = 0;

  constructor(deps: AgentRunsDeps) {
    this.deps = deps;
  }

  /**
   * Starts a run. Resolves once it has begun and is on record.
   * @throws AppError unknown_tool, invalid_request, context_length_exceeded, model_not_found,
   *   queue_full: then nothing was recorded.
   */
  async start(request: AgentRunRequest): Promise<LiveRun> {
    if (this.active >= LIMITS.agentRunsActiveMax) {
      throw new AppError('queue_full', `${this.active} agent runs are active; no more fit`);
    }
    this.active++;
    let run: LiveRun | undefined;
    try {
      const key = request.sessionId ?? this.deps.newId('trajectory');
      const opened = await this.deps.policies.open(request.model, { key });
      run = this.begin(opened, request);
      await this.started(run);
      return run;
    } catch (error) {
      run?.cancel();
      throw error;
    } finally {
      if (run === undefined) this.active--;
      else void run.done.then(() => this.active--);
    }
  }

  /** The run in memory, when it still is there. */
  live(id: string): LiveRun | null {
    return this.runs.get(id) ?? null;
  }

  /** @throws AppError agent_run_not_found */
  view(id: string, options: { tokens: boolean }): AgentRunView {
    const live = this.runs.get(id);
    if (live !== undefined) return runView(live, options);
    const record = this.deps.stores.agentRuns.get(id);
    const steps = this.storedSteps(record);
    return runView({ record, steps, ...storedExtras(record) }, options);
  }

  private storedSteps(record: AgentRunRecord): StepRecord[] {
    if (record.trajectoryId === null) return [];
    const { trajectories } = this.deps.stores;
    return trajectories.find(record.trajectoryId) === null
      ? []
      : trajectories.get(record.trajectoryId).steps;
  }

  /** Runs the loop up to its first wait; throws what is wrong with the request. */
  private begin(opened: OpenedPolicy, request: AgentRunRequest): LiveRun {
    const run = this.newRun(opened, request);
    const activity = this.deps.lifecycle.begin();
    run.cancel = activity.abort;
    const outcome = this.execute(run, opened, request, activity.signal);
    run.done = outcome
      .then((result) => this.finish(run, result))
      .catch((thrown: unknown) => this.fail(run, thrown))
      .finally(() => activity.release());
    return run;
  }

  private newRun(opened: OpenedPolicy, request: AgentRunRequest): LiveRun {
    const { newId, clock } = this.deps;
    const now = clock.now();
    return {
      record: {
        id: newId('agentRun'),
        status: 'in_progress',
        model: request.model,
        policyVersion: opened.policy.version,
        request: request.body,
        trajectoryId: newId('trajectory'),
        answer: null,
        usage: null,
        error: null,
        createdAt: now,
        startedAt: now,
        endedAt: null,
      },
      steps: [],
      pendingCalls: [],
      metadata: request.metadata,
      events: new EventLog<AgentRunEvent>(),
      done: Promise.resolve(),
      earlyError: null,
      cancel: () => undefined,
    };
  }

  private execute(
    run: LiveRun,
    { policy, sequence }: OpenedPolicy,
    request: AgentRunRequest,
    signal: AbortSignal,
  ): Promise<AgentOutcome> {
    const { tokenizer, protocol } = policy;
    const { tools, clock, newId } = this.deps;
    const { contextTokens } = this.deps.engine;
    const decoder = new StreamDecoder(tokenizer);
    const { trajectoryId } = run.record;
    const ownId: NewId = (kind) =>
      kind === 'trajectory' && trajectoryId !== null ? trajectoryId : newId(kind);
    return runAgent(
      { tokenizer, protocol, tools, clock, newId: ownId },
      {
        sequence,
        messages: request.messages,
        toolNames: request.toolNames,
        clientTools: request.clientTools,
        limits: {
          maxToolCalls: request.maxToolCalls,
          maxTokens: request.maxTokens ?? contextTokens,
        },
        ...(request.maxTokens !== null && { contextTokens }),
        sampling: samplingParams(request.sampling, policy.generation),
        signal,
        source: 'live',
        conversationId: request.conversationId,
        taskId: null,
        onTokens: (piece: SampledTokens) => {
          const text = decoder.push(piece.tokens);
          if (text !== '') run.events.append({ type: 'step.delta', text });
        },
        onStep: (step) => this.addStep(run, step),
      },
    );
  }

  private addStep(run: LiveRun, step: StepRecord): void {
    // The prompt step comes before the loop's first wait: the run has begun.
    if (run.steps.length === 0) {
      run.events.append({ type: 'run.created', run: runView(run, { tokens: false }) });
    }
    run.steps.push(step);
    run.events.append({ type: 'step.completed', step: stepView(step) });
  }

  /** Puts a run that has begun on record; throws when it failed before it began. */
  private async started(run: LiveRun): Promise<void> {
    if (run.steps.length === 0) {
      await run.done;
      throw run.earlyError ?? new AppError('internal', 'internal: a run without steps ended well');
    }
    this.keep(run);
    await this.deps.stores.agentRuns.create({ ...run.record, ...IN_PROGRESS });
  }

  /** The rows become durable before the end is told. */
  private async finish(run: LiveRun, outcome: AgentOutcome): Promise<void> {
    await this.deps.stores.stepLog.append(outcome.log);
    run.steps = outcome.steps;
    run.pendingCalls = outcome.pendingCalls;
    await this.end(run, this.endingOf(outcome));
  }

  private endingOf(outcome: AgentOutcome): Ending {
    const { answer, endReason, error } = outcome;
    const usage = {
      promptTokens: outcome.promptTokens,
      completionTokens: outcome.sampledTokens,
    };
    if (error !== null) return { status: 'failed', answer, usage, error: plainError(error) };
    if (endReason === 'cancelled') {
      return { status: 'cancelled', answer, usage, error: plainError(this.cancelReason()) };
    }
    const status = endReason === 'tool_calls' ? 'requires_action' : 'completed';
    return { status, answer, usage, error: null };
  }

  private cancelReason(): AppError {
    return this.deps.lifecycle.aborted
      ? new AppError('not_ready', 'the server stopped before the run ended')
      : new AppError('request_cancelled', 'the run was cancelled');
  }

  /** The engine failed before the first token, or the log could not be written. */
  private async fail(run: LiveRun, thrown: unknown): Promise<void> {
    const error = toAppError(thrown);
    run.earlyError = error;
    if (run.steps.length === 0) return;
    if (error.code === 'internal' || error.code === 'storage_failed') {
      this.deps.logger.error({ runId: run.record.id, stack: error.stack }, error.message);
    }
    run.record.trajectoryId = null;
    try {
      await this.end(run, {
        status: 'failed',
        answer: null,
        usage: null,
        error: plainError(error),
      });
    } catch (failure) {
      this.deps.logger.error({ runId: run.record.id, failure }, 'the end of a run was not stored');
    }
  }

  private async end(run: LiveRun, ending: Ending): Promise<void> {
    run.record = { ...run.record, ...ending, endedAt: this.deps.clock.now() };
    const { id, status, answer, usage, error, endedAt, trajectoryId } = run.record;
    try {
      // The calls that wait for the client have no column of their own.
      const request =
        run.pendingCalls.length > 0
          ? { ...run.record.request, pending_calls: run.pendingCalls }
          : run.record.request;
      const change = { status, answer, usage, error, endedAt, trajectoryId, request };
      await this.deps.stores.agentRuns.update(id, change);
    } finally {
      const failed = status === 'failed' || status === 'cancelled';
      const type = failed ? 'run.failed' : 'run.completed';
      run.events.append({ type, run: runView(run, { tokens: false }) });
      run.events.close();
    }
  }

  private keep(run: LiveRun): void {
    this.runs.set(run.record.id, run);
    const max = LIMITS.agentRunsKeptMax + LIMITS.agentRunsActiveMax;
    for (const [id, old] of this.runs) {
      if (this.runs.size <= max) break;
      if (old.record.endedAt !== null) this.runs.delete(id);
    }
  }
}

/** How a run stands when it is first written, whatever has become of it in the meantime. */
const IN_PROGRESS = {
  status: 'in_progress',
  answer: null,
  usage: null,
  error: null,
  endedAt: null,
} as const;

function runView(
  run: Pick<LiveRun, 'record' | 'steps' | 'pendingCalls' | 'metadata'>,
  options: { tokens: boolean },
): AgentRunView {
  const { record, steps, pendingCalls, metadata } = run;
  const { usage, error } = record;
  const version = record.policyVersion ?? 0;
  const ended = record.endedAt !== null;
  return {
    id: record.id,
    object: 'agent.run',
    status: record.status,
    model: pinnedName(version),
    policy_version: version,
    trajectory_id: record.trajectoryId,
    steps: steps.map((step) => stepView(step, options)),
    answer: record.answer,
    required_action:
      ended && pendingCalls.length > 0 ? { tool_calls: toolCallsOf(pendingCalls) } : null,
    usage: usage === null ? null : usageOf(usage.promptTokens, usage.completionTokens),
    error: error === null ? null : { code: error.code as ErrorCode, message: error.message },
    metadata,
    created_at: time(record.createdAt),
    ended_at: timeOrNull(record.endedAt),
  };
}

function storedExtras(record: AgentRunRecord): Pick<LiveRun, 'pendingCalls' | 'metadata'> {
  const { metadata, pending_calls } = record.request as {
    metadata?: Record<string, string>;
    pending_calls?: AgentOutcome['pendingCalls'];
  };
  return { metadata: metadata ?? {}, pendingCalls: pending_calls ?? [] };
}

function plainError(error: AppError): { code: string; message: string } {
  return { code: error.code, message: publicMessage(error, 'the log has it under the run id') };
}
