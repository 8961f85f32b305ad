/**
 * Server-run agents. A run is a chain of steps, each durable as soon as it is made, so a run can
 * stop between any two of them and go on from there: while it waits for the results of its client's
 * functions (`requires_action`), and when the server ends. Its tokens are read from the log and
 * never encoded again, its policy version and seed stay, so it goes on as if nothing had been
 * between.
 *
 * A foreground run ends with the connection of the client that waits for it, and so with the
 * server; a background run, and any run that waits for results, outlives both. A tool call whose
 * result is lost is made again only if the tool has no effects. Runs that work, wait or ended
 * lately are in memory; others are read from the database.
 */
import { AppError, toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { AgentRunRecord, StepRecord, ToolCallRecord } from '../core/records.ts';
import type { AgentRunFilter } from '../db/agent-run-store.ts';
import type { PageRequest } from '../db/page.ts';
import { RunFeed } from './agent-run-feed.ts';
import type { Position } from './agent-run-feed.ts';
import { agentRunRequest } from './agent-run-request.ts';
import type { AgentRunBody, AgentRunRequest } from './agent-run-request.ts';
import { runView, summaryView } from './agent-run-view.ts';
import type { AgentRunSummary, AgentRunView } from './agent-run-view.ts';
import { AgentRunWork } from './agent-run-work.ts';
import type { AgentRunsDeps } from './agent-run-work.ts';
import { samplingParams } from './chat-request.ts';
import { KeyPlaces } from './key-places.ts';
import type { LiveRun } from './live-run.ts';
import type { OpenedPolicy } from './policy-service.ts';
import { clientResults } from './tool-outputs.ts';
import type { ToolOutput } from './tool-outputs.ts';
import { listView } from './views.ts';
import type { ListView } from './views.ts';

export type { AgentRunsDeps } from './agent-run-work.ts';
export type { LiveRun } from './live-run.ts';

/** What a run belongs to. */
export interface RunOrigin {
  tenant: string;
  keyId: string | null;
  /** The client's `x-session-id`. */
  sessionId: string | null;
  conversationId: string | null;
}

export class AgentRuns {
  private readonly deps: AgentRunsDeps;
  private readonly work: AgentRunWork;
  /** Runs that work, wait or ended lately, oldest first. */
  private readonly runs = new Map<string, LiveRun>();
  private readonly places = new KeyPlaces({
    what: 'agent runs',
    max: LIMITS.agentRunsActiveMax,
    keyMax: LIMITS.keyAgentRunsActiveMax,
  });
  private sweeper: NodeJS.Timeout | undefined;

  constructor(deps: AgentRunsDeps) {
    this.deps = deps;
    this.work = new AgentRunWork(deps);
  }

  /**
   * Takes up background runs that an earlier process left, and begins to end runs that wait too
   * long. Resolves when the foreground runs that it left have ended.
   */
  async start(): Promise<void> {
    const ends: Promise<void>[] = [];
    for (const record of this.deps.stores.agentRuns.unfinished()) {
      const run = this.remember(record);
      if (!run.request.background) {
        const message = 'the server stopped, and the client that waited for the run is gone';
        ends.push(this.settle(run, 'cancelled', new AppError('agent_run_interrupted', message)));
        continue;
      }
      run.done = this.work.takeUp(run);
      void run.done.then(this.places.take(record.keyId));
    }
    const period = this.deps.sweepMs ?? LIMITS.agentRunSweepMs;
    this.sweeper = setInterval(() => this.endExpired(), period).unref();
    await Promise.all(ends);
  }

  /** Lets go of background runs, which the next process goes on with. */
  stop(): void {
    clearInterval(this.sweeper);
    for (const run of this.runs.values()) if (run.request.background) run.suspend();
  }

  /**
   * Begins a run. Resolves once it is on record.
   * @throws AppError unknown_tool, invalid_request, context_length_exceeded, model_not_found,
   *   queue_full, rate_limit_exceeded: then nothing was recorded.
   */
  create(request: AgentRunRequest, origin: RunOrigin): Promise<LiveRun> {
    if (request.clientTools.length > 0) this.requireRoomToWait(origin.keyId);
    this.requireMemory(origin.keyId);
    return this.whileActive(origin.keyId, async () => {
      const key = origin.sessionId ?? this.deps.newId('trajectory');
      const opened = await this.deps.policies.open(request.model, { key });
      const run = this.newRun(opened, request, origin);
      this.work.begin(run, opened, null);
      // The prompt step comes before the loop's first wait: without one the run has not begun.
      if (run.made === 0) {
        await run.done;
        throw run.earlyError ?? new AppError('not_ready', 'the server is stopping');
      }
      await begun(run);
      this.keep(run);
      return run;
    });
  }

  /**
   * Goes on with a run that waits for its client. Resolves once the results are durable; `after` is
   * where its events go on. A run whose policy version is gone has failed then.
   * @throws AppError agent_run_not_found, agent_run_not_waiting, invalid_request, queue_full,
   *   rate_limit_exceeded, engine_unavailable: then it still waits.
   */
  submit(id: string, outputs: readonly ToolOutput[]): Promise<{ run: LiveRun; after: Position }> {
    const run = this.obtain(id);
    if (run?.record.status !== 'requires_action' || run.claimed) {
      const status = run?.claimed === true ? 'in_progress' : this.record(id).status;
      throw new AppError('agent_run_not_waiting', `the agent run ${id} is ${status}`);
    }
    const leaf = run.feed.steps.at(-1);
    const waitedSince = leaf === undefined ? 0 : leaf.startedAt + leaf.durationMs;
    const waitedMs = Math.max(0, this.deps.clock.now() - waitedSince);
    const goingOn = this.goOn(run, clientResults(run.record, outputs, waitedMs));
    run.taking = goingOn.then(
      () => undefined,
      () => undefined,
    );
    return goingOn;
  }

  private async goOn(
    run: LiveRun,
    results: readonly ToolCallRecord[],
  ): Promise<{ run: LiveRun; after: Position }> {
    run.claimed = true;
    const after = run.feed.waitingPosition;
    try {
      await this.whileActive(run.record.keyId, async () => {
        const opened = await this.work.openAgain(run);
        if (opened === null) return run;
        const calls = run.record.progress?.calls ?? [];
        this.work.proceed(run, opened, { steps: [...run.feed.steps], calls, results });
        await begun(run);
        return run;
      });
      return { run, after };
    } finally {
      run.claimed = false;
    }
  }

  /** Ends a run and resolves when it has ended; one that has is left as it is. */
  async cancel(id: string): Promise<void> {
    const run = this.obtain(id);
    if (run === null) return;
    await run.taking;
    if (run.record.endedAt !== null) return;
    run.cancelled = true;
    if (run.record.status === 'requires_action') {
      const error = new AppError('request_cancelled', 'the run was cancelled');
      await this.settle(run, 'cancelled', error);
      return;
    }
    run.abort();
    await run.done;
  }

  /** @throws AppError agent_run_not_found when there is none, or it is another tenant's. */
  requireSeen(id: string, tenant: string | undefined): void {
    const live = this.runs.get(id);
    const seen = live !== undefined && (tenant === undefined || live.record.tenant === tenant);
    if (seen && live.record.endedAt === null) return;
    // One that has ended is only there as long as it is on record.
    if (seen && this.deps.stores.agentRuns.find(id) === null) this.runs.delete(id);
    this.deps.stores.agentRuns.get(id, tenant);
  }

  /** The run in memory, when it still is there. */
  live(id: string): LiveRun | null {
    return this.runs.get(id) ?? null;
  }

  /** @throws AppError agent_run_not_found */
  view(id: string, options: { tokens: boolean }): AgentRunView {
    const live = this.runs.get(id);
    if (live !== undefined) return runView(live.record, live.feed.steps, options);
    const record = this.record(id);
    return runView(record, this.storedSteps(record), options);
  }

  list(filter: AgentRunFilter, page: PageRequest): ListView<AgentRunSummary> {
    return listView(this.deps.stores.agentRuns.list(filter, page), summaryView);
  }

  /** @throws AppError agent_run_not_found */
  feed(id: string): RunFeed {
    const run = this.obtain(id);
    if (run !== null) return run.feed;
    const record = this.record(id);
    return new RunFeed(() => record, this.storedSteps(record));
  }

  private record(id: string): AgentRunRecord {
    return this.runs.get(id)?.record ?? this.deps.stores.agentRuns.get(id);
  }

  private storedSteps({ leafStepId, trajectoryId }: AgentRunRecord): StepRecord[] {
    const { trajectories } = this.deps.stores;
    if (leafStepId !== null) return trajectories.path(leafStepId);
    // Runs of older versions know their trajectory only.
    const trajectory = trajectoryId === null ? null : trajectories.find(trajectoryId);
    return trajectory === null ? [] : trajectories.path(trajectory.leafStepId);
  }

  /** From memory, or one that waits from the database; null for one that has ended. */
  private obtain(id: string): LiveRun | null {
    const live = this.runs.get(id);
    if (live !== undefined) return live;
    const record = this.deps.stores.agentRuns.get(id);
    return record.status === 'requires_action' ? this.remember(record) : null;
  }

  private remember(record: AgentRunRecord): LiveRun {
    const request = agentRunRequest(record.request as AgentRunBody);
    const run = this.liveRun(record, request, this.storedSteps(record));
    this.keep(run);
    return run;
  }

  private liveRun(
    record: AgentRunRecord,
    request: AgentRunRequest,
    steps: readonly StepRecord[],
  ): LiveRun {
    const run: LiveRun = {
      record,
      request,
      feed: new RunFeed(() => run.record, steps),
      chars: JSON.stringify(record.request).length,
      made: steps.length,
      begun: Promise.resolve(),
      done: Promise.resolve(),
      taking: Promise.resolve(),
      claimed: false,
      cancelled: false,
      earlyError: null,
      abort: () => undefined,
      suspend: () => undefined,
    };
    return run;
  }

  private newRun(opened: OpenedPolicy, request: AgentRunRequest, origin: RunOrigin): LiveRun {
    const { newId, clock } = this.deps;
    const now = clock.now();
    const record: AgentRunRecord = {
      id: newId('agentRun'),
      tenant: origin.tenant,
      keyId: origin.keyId,
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
      conversationId: origin.conversationId,
      leafStepId: null,
      waitsUntil: null,
      progress: {
        sampling: samplingParams(request.sampling, opened.policy.generation),
        calls: [],
        legStartedAt: now,
        workedMs: 0,
        attempts: null,
      },
    };
    return this.liveRun(record, request, []);
  }

  private requireRoomToWait(keyId: string | null): void {
    const { agentRunsWaitingMax: max, keyAgentRunsWaitingMax: keyMax } = LIMITS;
    const waiting = this.deps.stores.agentRuns.countWaiting();
    if (waiting >= max) {
      throw new AppError('queue_full', `${waiting} agent runs wait for their clients; no more fit`);
    }
    const own = keyId === null ? 0 : this.deps.stores.agentRuns.countWaiting(keyId);
    if (own < keyMax) return;
    const message = `the key has ${own} agent runs that wait, as many as it may have of ${max}`;
    throw new AppError('rate_limit_exceeded', message);
  }

  private requireMemory(keyId: string | null): void {
    const { agentRunCharsMax: max, keyAgentRunCharsMax: keyMax } = LIMITS;
    const held = charsOf(this.unended());
    if (held >= max) {
      throw new AppError('queue_full', `the agent runs under way hold ${held} characters`);
    }
    const own = charsOf(this.unendedOf(keyId));
    if (keyId === null || own < keyMax) return;
    const message = `the agent runs of the key hold ${own} characters; it may have ${keyMax} of ${max}`;
    throw new AppError('rate_limit_exceeded', message);
  }

  private unended(): LiveRun[] {
    return [...this.runs.values()].filter(({ record }) => record.endedAt === null);
  }

  private unendedOf(keyId: string | null): LiveRun[] {
    return this.unended().filter(({ record }) => record.keyId === keyId);
  }

  /** Counts the work that `start` begins as active until it is done. */
  private async whileActive(keyId: string | null, start: () => Promise<LiveRun>): Promise<LiveRun> {
    const leave = this.places.enter(keyId);
    let run: LiveRun | undefined;
    try {
      run = await start();
      return run;
    } finally {
      if (run === undefined) leave();
      else void run.done.then(leave);
    }
  }

  /** Ends a run that does not work; nobody else may do so, or go on with it, meanwhile. */
  private settle(run: LiveRun, status: 'failed' | 'cancelled', error: AppError): Promise<void> {
    run.claimed = true;
    const ended = this.work.cut(run, status, error);
    run.done = run.taking = ended.catch((thrown: unknown) => {
      run.claimed = false;
      const { message } = toAppError(thrown);
      this.deps.logger.error({ runId: run.record.id, message }, 'the end of a run was not stored');
    });
    return ended;
  }

  private endExpired(): void {
    const { stores, clock, logger } = this.deps;
    try {
      for (const { id } of stores.agentRuns.expired(clock.now())) {
        const run = this.obtain(id);
        if (run?.record.status !== 'requires_action' || run.claimed) continue;
        const message = 'its client did not send the results of its calls in time';
        const ended = this.settle(run, 'failed', new AppError('agent_run_expired', message));
        // What went wrong is in the log, and the next look tries again.
        ended.catch(() => undefined);
      }
    } catch (thrown) {
      logger.error({ message: toAppError(thrown).message }, 'waiting runs could not be looked at');
    }
  }

  private keep(run: LiveRun): void {
    this.runs.set(run.record.id, run);
    const ended = [...this.runs.values()].filter(({ record }) => record.endedAt !== null);
    let held = charsOf(ended);
    for (const [i, { record, chars }] of ended.entries()) {
      if (ended.length - i <= LIMITS.agentRunsKeptMax && held <= LIMITS.endedCharsMax) return;
      held -= chars;
      this.runs.delete(record.id);
    }
  }
}

function charsOf(runs: readonly LiveRun[]): number {
  return runs.reduce((sum, { chars }) => sum + chars, 0);
}

async function begun(run: LiveRun): Promise<void> {
  try {
    await run.begun;
  } catch (error) {
    run.abort();
    throw error;
  }
}
