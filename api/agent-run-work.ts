/**
 * The work on agent runs: a leg of one lasts from its begin, from its client's results or from the
 * start of the server to where it waits again or ends. Each step is written with the run's row as
 * it comes; what a stop of the server cuts in a background run is not written, so that the next
 * process does it again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { must } from '../core/assert.ts';
import type { AgentOutcome, Resumption } from '../core/agent/types.ts';
import { runAgent } from '../core/agent/run-agent.ts';
import type { Clock } from '../core/clock.ts';
import { AppError, RETRYABLE, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type { ToolCatalogue } from '../core/ports.ts';
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';
import type { AnswerForm } from '../core/text/types.ts';
import type { Stores } from '../db/stores.ts';
import { firstForm } from './agent-run-request.ts';
import type { KeyUsage } from './key-usage.ts';
import type { Lifecycle } from './lifecycle.ts';
import { cutTrajectory, plainError, usageOfSteps, usageSince, workedUntil } from './live-run.ts';
import type { Ending, LiveRun } from './live-run.ts';
import { pinnedName } from './policy-service.ts';
import type { OpenedPolicy, PolicyService } from './policy-service.ts';

export interface AgentRunsDeps {
  stores: Stores;
  policies: PolicyService;
  tools: ToolCatalogue;
  clock: Clock;
  newId: NewId;
  lifecycle: Lifecycle;
  usage: Pick<KeyUsage, 'count'>;
  logger: Logger;
  /** How long a run waits for its client, and how often that is looked at. */
  waitMs?: number;
  sweepMs?: number;
  /** Pause before a run is tried again. */
  retryMs?: number;
}

export class AgentRunWork {
  private readonly deps: AgentRunsDeps;

  constructor(deps: AgentRunsDeps) {
    this.deps = deps;
  }

  /** Begins a leg: runs the loop up to its first wait. `run.done` is its end. */
  begin(run: LiveRun, opened: OpenedPolicy, resume: Resumption | null): void {
    const activity = this.deps.lifecycle.begin();
    const suspend = new AbortController();
    run.abort = activity.abort;
    run.suspend = () => suspend.abort();
    run.begun = Promise.resolve();
    run.earlyError = null;
    run.feed.begin(opened.policy.tokenizer);
    if (run.cancelled) activity.abort();
    const signals = { signal: activity.signal, suspend: suspend.signal };
    run.done = this.execute(run, opened, resume, signals)
      .then((outcome) => this.finish(run, outcome))
      .catch((thrown: unknown) => this.fail(run, thrown))
      .finally(() => {
        run.abort = run.suspend = () => undefined;
        activity.release();
      });
  }

  /** Goes on with a run that stopped between two steps. */
  proceed(run: LiveRun, opened: OpenedPolicy, resume: Resumption): void {
    const progress = must(run.record.progress, 'a run that goes on knows how far it is');
    run.record = {
      ...run.record,
      status: 'in_progress',
      waitsUntil: null,
      progress: { ...progress, calls: [], legStartedAt: this.deps.clock.now() },
    };
    run.feed.changed();
    this.begin(run, opened, resume);
  }

  /**
   * A sequence on the version that the run is pinned to; null when that is gone, and then the run
   * has failed. @throws AppError queue_full, engine_unavailable
   */
  async openAgain(run: LiveRun): Promise<OpenedPolicy | null> {
    const version = run.record.policyVersion ?? 0;
    try {
      return await this.deps.policies.open(pinnedName(version));
    } catch (thrown) {
      if (toAppError(thrown).code !== 'model_not_found') throw thrown;
      const message = `policy version ${version}, on which the run began, is no longer there`;
      await this.cut(run, 'failed', new AppError('model_not_found', message));
      return null;
    }
  }

  /**
   * Takes up a background run that an earlier process left, or whose engine failed; resolves when
   * it waits or has ended.
   */
  async takeUp(run: LiveRun, pauseMs = 0): Promise<void> {
    const activity = this.deps.lifecycle.begin();
    const gone = new AbortController();
    run.abort = run.suspend = () => gone.abort();
    try {
      const opened = await this.openForAttempt(run, gone.signal, pauseMs);
      if (opened === null) return;
      const steps = [...run.feed.steps];
      this.proceed(run, opened, { steps, calls: [], results: [] });
    } catch (thrown) {
      await this.fail(run, thrown);
      return;
    } finally {
      activity.release();
    }
    await run.done;
  }

  /** Ends a run that stands between two steps. @throws AppError storage_failed */
  async cut(run: LiveRun, status: 'failed' | 'cancelled', error: AppError): Promise<void> {
    const { steps } = run.feed;
    const ending = { status, answer: null, usage: usageOfSteps(steps), error: plainError(error) };
    await this.write(run, ending, cutTrajectory(run.record, steps));
  }

  /** Null: it has ended, or the server stops. */
  private async openForAttempt(
    run: LiveRun,
    gone: AbortSignal,
    pauseMs: number,
  ): Promise<OpenedPolicy | null> {
    if (!(await this.attempt(run))) return null;
    const pause = (ms: number): Promise<void> =>
      sleep(ms, undefined, { signal: gone }).catch(() => undefined);
    if (pauseMs > 0) await pause(pauseMs);
    // MCP servers connect beside the start; a tool that stays away is unknown to the run.
    const isThere = (name: string): boolean => this.deps.tools.has(name);
    for (let waits = 0; waits < LIMITS.agentRunToolWaitsMax && !gone.aborted; waits++) {
      if (run.request.toolNames.every(isThere)) break;
      await pause(this.retryMs);
    }
    for (let tries = 1; !gone.aborted; tries++) {
      try {
        const opened = await this.openAgain(run);
        if (opened === null || !gone.aborted) return opened;
        opened.sequence.close();
      } catch (thrown) {
        const { code } = toAppError(thrown);
        if (!RETRYABLE.has(code) || tries >= LIMITS.agentRunAttemptsMax) throw thrown;
        await pause(this.retryMs);
      }
    }
    if (run.cancelled) await this.cut(run, 'cancelled', this.cancelReason());
    else run.feed.leave();
    return null;
  }

  /** Counts the attempt before it is made; false: there were too many, and the run has failed. */
  private async attempt(run: LiveRun): Promise<boolean> {
    const { progress, leafStepId } = run.record;
    const before = progress?.attempts;
    const count = before?.leafStepId === leafStepId ? before.count + 1 : 1;
    if (progress === null || leafStepId === null || count > LIMITS.agentRunAttemptsMax) {
      const message = `the server stopped ${count} times in the same step of the run`;
      await this.cut(run, 'failed', new AppError('agent_run_interrupted', message));
      return false;
    }
    const workedMs = workedUntil(run.record, run.feed.steps.at(-1));
    const attempts = { leafStepId, count };
    run.record = { ...run.record, status: 'queued', progress: { ...progress, workedMs, attempts } };
    const { id, status } = run.record;
    await this.deps.stores.agentRuns.update(id, { status, progress: run.record.progress });
    return true;
  }

  private async execute(
    run: LiveRun,
    { policy, sequence }: OpenedPolicy,
    resume: Resumption | null,
    signals: { signal: AbortSignal; suspend: AbortSignal },
  ): Promise<AgentOutcome> {
    const { tokenizer, protocol } = policy;
    const { clock, newId } = this.deps;
    const { contextTokens } = sequence;
    const { request, record } = run;
    const progress = must(record.progress, 'a run that works knows how far it is');
    const form = this.formOf(run, { policy, sequence }, resume);
    const ownId: NewId = (kind) =>
      kind === 'trajectory' && record.trajectoryId !== null ? record.trajectoryId : newId(kind);
    const tools = this.deps.tools.callsOf(record.keyId);
    let first = true;
    return runAgent(
      { tokenizer, protocol, tools, clock, newId: ownId },
      {
        sequence,
        messages: request.messages,
        toolNames: request.toolNames,
        clientTools: request.clientTools,
        waits: true,
        ...(resume !== null && { resume }),
        limits: {
          maxToolCalls: request.maxToolCalls,
          maxTokens: request.maxTokens ?? contextTokens,
        },
        ...(request.maxTokens !== null && { contextTokens }),
        sampling: progress.sampling,
        ...(form !== null && { form }),
        signal: signals.signal,
        ...(request.background && { suspend: signals.suspend }),
        time: { limitMs: request.timeoutMs, usedMs: progress.workedMs },
        source: 'live',
        tenant: record.tenant,
        conversationId: record.conversationId,
        taskId: null,
        onTokens: ({ tokens }) => run.feed.sampled(run.made, tokens),
        log: (steps) => {
          const written = this.log(run, steps);
          if (first) run.begun = written;
          first = false;
          return written;
        },
      },
    );
  }

  /** What is demanded of the first step, where that has not been made. */
  private formOf(
    { request }: LiveRun,
    { policy, sequence }: OpenedPolicy,
    resume: Resumption | null,
  ): AnswerForm | null {
    if (resume?.steps.some(({ kind }) => kind === 'policy') === true) return null;
    try {
      return firstForm(request, this.deps.tools, policy.protocol);
    } catch (thrown) {
      sequence.close();
      throw thrown;
    }
  }

  /** The steps and how far the run is, in one commit; then whoever follows the run is told. */
  private async log(run: LiveRun, steps: readonly StepRecord[]): Promise<void> {
    if (this.isLeft(run)) return;
    const isNew = run.made === 0;
    run.made += steps.length;
    run.record = { ...run.record, leafStepId: must(steps.at(-1), 'a step to log').id };
    const { id, leafStepId, status, waitsUntil, progress } = run.record;
    const { stepLog, agentRuns } = this.deps.stores;
    await Promise.all([
      stepLog.append({ steps: [...steps] }),
      isNew
        ? agentRuns.create(run.record)
        : agentRuns.update(id, { leafStepId, status, waitsUntil, progress }),
    ]);
    run.feed.add(steps);
  }

  /** The server stops and the next process goes on with the run. */
  private isLeft(run: LiveRun): boolean {
    return this.deps.lifecycle.aborted && run.request.background && !run.cancelled;
  }

  private get retryMs(): number {
    return this.deps.retryMs ?? LIMITS.agentRunRetryMs;
  }

  /** A background run outlives the engine too: its steps are durable, all of them. */
  private triesAgain(run: LiveRun, error: AppError | null): boolean {
    const { progress, leafStepId } = run.record;
    const attempts = progress?.attempts;
    const count = attempts?.leafStepId === leafStepId ? attempts.count : 0;
    return (
      (error?.code === 'engine_unavailable' || error?.code === 'queue_full') &&
      run.request.background &&
      !run.cancelled &&
      !this.deps.lifecycle.stopping &&
      count < LIMITS.agentRunAttemptsMax
    );
  }

  private async finish(run: LiveRun, outcome: AgentOutcome): Promise<void> {
    if (outcome.suspended || this.isLeft(run)) {
      run.feed.leave();
      return;
    }
    if (this.triesAgain(run, outcome.error)) return this.takeUp(run, this.retryMs);
    const [trajectory] = outcome.log.trajectories ?? [];
    const calls = outcome.calls.map(({ id, name, arguments: args }) => ({
      id: must(id, 'calls of a step have ids'),
      name,
      arguments: args,
    }));
    await this.write(run, this.endingOf(outcome), trajectory ?? null, calls);
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

  /** The loop threw: the engine failed before the first token, or the log could not be written. */
  private async fail(run: LiveRun, thrown: unknown): Promise<void> {
    const error = toAppError(thrown);
    run.earlyError = error;
    if (run.made === 0) return;
    if (this.isLeft(run)) {
      run.feed.leave();
      return;
    }
    if (this.triesAgain(run, error)) return this.takeUp(run, this.retryMs);
    const { logger, clock } = this.deps;
    const { id } = run.record;
    if (error.code === 'internal' || error.code === 'storage_failed') {
      logger.error({ runId: id, stack: error.stack }, error.message);
    }
    const { steps } = run.feed;
    const begun = steps.some(({ kind }) => kind === 'policy');
    const usage = begun ? usageOfSteps(steps) : null;
    const ending = { status: 'failed' as const, answer: null, usage, error: plainError(error) };
    try {
      await this.write(run, ending, begun ? cutTrajectory(run.record, steps) : null);
    } catch (failure) {
      logger.error({ runId: id, failure }, 'the end of a run was not stored');
      run.record = { ...run.record, ...ending, trajectoryId: null, endedAt: clock.now() };
      run.feed.changed();
    }
  }

  /** The end of a leg becomes durable before anyone is told. */
  private async write(
    run: LiveRun,
    ending: Ending,
    trajectory: TrajectoryRecord | null,
    calls: NonNullable<LiveRun['record']['progress']>['calls'] = [],
  ): Promise<void> {
    const now = this.deps.clock.now();
    const waits = ending.status === 'requires_action';
    const { id, keyId, progress } = run.record;
    const change = {
      ...ending,
      trajectoryId: trajectory?.id ?? null,
      endedAt: waits ? null : now,
      waitsUntil: waits ? now + (this.deps.waitMs ?? LIMITS.agentRunWaitMs) : null,
      progress: progress && {
        ...progress,
        calls,
        workedMs: progress.workedMs + (waits ? now - progress.legStartedAt : 0),
      },
    };
    const { stepLog, agentRuns } = this.deps.stores;
    await Promise.all([
      stepLog.append({ trajectories: trajectory === null ? [] : [trajectory] }),
      agentRuns.update(id, change),
      this.deps.usage.count(keyId, usageSince(run.record.usage, ending.usage)),
    ]);
    run.record = { ...run.record, ...change };
    run.feed.changed();
  }
}
