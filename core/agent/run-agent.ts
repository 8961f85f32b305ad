/**
 * The agent loop for live traffic: generate, run tools, append, until an end. /v1/agent/runs uses
 * it with server tools, chat completions with client tools only (the first call of one ends the
 * run). Several answers to one request are branches of the same context. It drives the same Episode
 * as training rollouts do. It writes nothing itself: steps go to the caller's log as they come, or
 * the caller writes the outcome.
 */
import { anySignal } from '../any-signal.ts';
import { must } from '../assert.ts';
import { AppError, toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { Deadline } from './deadline.ts';
import { Episode, policyTokens } from './episode.ts';
import type { ToolSpec } from '../ports.ts';
import type { SamplingParams, StepRecord } from '../records.ts';
import type { ToolCallRequest } from '../text/types.ts';
import type {
  AgentChoice,
  AgentOutcome,
  AgentRequest,
  Continuation,
  EpisodeContext,
} from './types.ts';

/**
 * Runs one request to its end and returns everything that happened. Owns and closes the sequence.
 *
 * Throws before any work: unknown_tool, invalid_request (a client tool named like a server tool),
 * context_length_exceeded, tool_call_uncertain (a resumed run may have made a call whose result is
 * lost). Throws when the engine failed before the first token, and when the log failed. A later
 * failure is an outcome with endReason `failed` and its `error`, so that the steps so far are still
 * logged.
 */
export async function runAgent(
  context: EpisodeContext,
  request: AgentRequest,
): Promise<AgentOutcome> {
  try {
    return await finish(begin(context, request), request);
  } finally {
    request.sequence.close();
  }
}

/**
 * Runs one request several times from the same context tokens, which the log has once and the
 * engine computes once. Owns and closes the sequence. Resolves when all have ended, with those that
 * have an outcome, in the order of `choices`. When one fails the others are stopped; `failure` is
 * what `runAgent` would have thrown for the one. Throws before any work as it does, and queue_full.
 */
export async function runChoices(
  context: EpisodeContext,
  request: AgentRequest,
  choices: readonly AgentChoice[],
): Promise<{ outcomes: AgentOutcome[]; failure: AppError | null }> {
  const episodes: Episode[] = [];
  try {
    const first = begin(context, request);
    const last = first.episode.steps.length - 1;
    episodes.push(first.episode);
    while (episodes.length < choices.length) episodes.push(first.episode.fork(last));
    const stop = new AbortController();
    const signal = anySignal([stop.signal, ...(request.signal ? [request.signal] : [])]);
    const runs = choices.map(async (choice, i) => {
      const episode = must(episodes[i], 'an episode for each choice');
      const own = { ...request, ...choice, sequence: episode.sequence, signal };
      try {
        const ended = await finish({ ...first, episode }, own);
        if (ended.error !== null) stop.abort();
        return ended;
      } catch (error) {
        stop.abort();
        throw error;
      }
    });
    const settled = await Promise.allSettled(runs);
    const failed = settled.find(({ status }) => status === 'rejected');
    return {
      outcomes: settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : [])),
      failure: failed?.status === 'rejected' ? toAppError(failed.reason) : null,
    };
  } finally {
    for (const episode of episodes) episode.close();
    request.sequence.close();
  }
}

async function finish(run: Run, request: AgentRequest): Promise<AgentOutcome> {
  const { limitMs, usedMs } = timeOf(request);
  const deadline = new Deadline(request.signal, Math.max(1, limitMs - usedMs));
  try {
    // A resumed path is in the log.
    if (request.resume === undefined) note(run, request, deadline, run.episode.newSteps);
    const error = await runToEnd(run, request, deadline);
    await run.logged;
    return outcome(run, request, error);
  } finally {
    deadline.close();
  }
}

function timeOf({ time }: AgentRequest): { limitMs: number; usedMs: number } {
  return time ?? { limitMs: LIMITS.agentRunTimeoutMs, usedMs: 0 };
}

/** An episode, and what of it was there before this run sampled. */
interface Run {
  context: EpisodeContext;
  episode: Episode;
  promptTokens: number;
  sampledBefore: number;
  /** Settles when every step so far is durable. */
  logged: Promise<unknown>;
  suspended: boolean;
}

function begin(context: EpisodeContext, request: AgentRequest): Run {
  const { limits, contextTokens, continuation, resume, sequence } = request;
  const run = { context, sampledBefore: 0, logged: Promise.resolve(), suspended: false };
  if (resume !== undefined) {
    const { steps, calls } = resume;
    const episode = Episode.restore({ context, sequence, steps, calls, limits });
    refuseUncertain(context, request, episode);
    return { ...run, episode, promptTokens: steps[0]?.tokens.length ?? 0 };
  }
  const offered = offeredSpecs(context, request);
  const refuseTooLong = (promptTokens: number): void => {
    if (contextTokens === undefined || promptTokens + limits.maxTokens <= contextTokens) return;
    throw new AppError(
      'context_length_exceeded',
      `the prompt has ${promptTokens} tokens; with ${limits.maxTokens} requested tokens it ` +
        `does not fit the context window of ${contextTokens}`,
      { param: 'messages' },
    );
  };
  if (continuation === undefined) {
    const promptTokens = context.protocol.renderPrompt(request.messages, offered);
    refuseTooLong(promptTokens.length);
    const episode = fitted(() => Episode.begin({ context, sequence, promptTokens, limits }));
    return { ...run, episode, promptTokens: promptTokens.length };
  }
  const promptTokens = continuationTokens(continuation);
  refuseTooLong(promptTokens);
  const sampledBefore = policyTokens(continuation.steps);
  const ownLimits = { ...limits, maxTokens: sampledBefore + limits.maxTokens };
  const episode = fitted(() =>
    Episode.resume({ context, sequence, continuation, limits: ownLimits }),
  );
  return { ...run, episode, promptTokens, sampledBefore };
}

/** What does not fit the window is told of the field that it came from. */
function fitted(work: () => Episode): Episode {
  try {
    return work();
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.code !== 'context_length_exceeded') throw thrown;
    throw new AppError(thrown.code, thrown.message, { param: 'messages', cause: thrown });
  }
}

/**
 * The calls that a stored path has no result of may have been under way. Without effects they are
 * simply made again.
 */
function refuseUncertain(context: EpisodeContext, request: AgentRequest, episode: Episode): void {
  const call = episode.pendingCalls.find(({ name }) => hasEffects(context, request, name));
  if (call === undefined) return;
  throw new AppError(
    'tool_call_uncertain',
    `the call ${call.name}(${call.arguments.slice(0, 200)}) may have been made before the server ` +
      'stopped; its result is lost, and it is not made twice',
  );
}

/**
 * Whether this run would call a server tool of this name that changes something outside. Nothing is
 * known of one that is not there, as its MCP server is not connected yet: it counts as if it did.
 */
function hasEffects({ tools }: EpisodeContext, { toolNames }: AgentRequest, name: string): boolean {
  if (!toolNames.includes(name)) return false;
  if (!tools.has(name)) return true;
  return tools.specs([name]).some(({ effects }) => effects !== 'none');
}

/** Tells of new steps, and has them made durable. */
function note(
  run: Run,
  request: AgentRequest,
  deadline: Deadline,
  steps: readonly StepRecord[],
): void {
  for (const step of steps) request.onStep?.(step);
  if (request.log === undefined || steps.length === 0) return;
  const written = request.log(steps);
  run.logged = Promise.all([run.logged, written]);
  // Awaited later; until then a failure only stops the work.
  run.logged.catch(deadline.fail);
}

/** Tokens that the policy is given when a path goes on: the stored ones and the new ones. */
export function continuationTokens({ steps, tokens }: Continuation): number {
  return steps.reduce((sum, step) => sum + step.tokens.length, tokens.length);
}

/** Specs of the tools that the prompt names: server tools first, then the client's. */
function offeredSpecs(context: EpisodeContext, request: AgentRequest): ToolSpec[] {
  for (const name of request.toolNames) {
    if (!context.tools.has(name)) {
      throw new AppError('unknown_tool', `no tool '${name}' on this server`, { param: 'tools' });
    }
  }
  const clientTools = request.clientTools ?? [];
  for (const { name } of clientTools) {
    if (!request.toolNames.includes(name)) continue;
    throw new AppError('invalid_request', `tool '${name}' is named twice: server and client`, {
      param: 'tools',
    });
  }
  return [...context.tools.specs(request.toolNames), ...clientTools];
}

/**
 * Alternates policy and tool steps; each round ends the episode or uses up tool calls, so it ends.
 * Returns the error of an episode that failed after it had begun to sample.
 */
async function runToEnd(
  run: Run,
  request: AgentRequest,
  deadline: Deadline,
): Promise<AppError | null> {
  const { episode } = run;
  let { form } = request;
  try {
    const results = request.resume?.results ?? [];
    if (results.length > 0) note(run, request, deadline, episode.takeResults(results));
    while (episode.endReason === null && !run.suspended) {
      if (episode.pendingCalls.length > 0) await toolTurn(run, request, deadline);
      else await policyTurn(run, request, deadline, samplingOf(run, request.sampling, form));
      form = request.laterForm;
    }
  } catch (thrown) {
    const error = toAppError(thrown);
    if (sampledTokens(run) === 0) throw error;
    episode.end('failed');
    return error;
  }
  if (deadline.failure !== null) throw deadline.failure.thrown;
  return run.suspended ? null : endError(run, request, deadline);
}

async function policyTurn(
  run: Run,
  request: AgentRequest,
  deadline: Deadline,
  sampling: SamplingParams,
): Promise<void> {
  const { episode } = run;
  const { suspend, stopTexts, likeliest, onTokens } = request;
  const isSuspended = (): boolean => suspend?.aborted === true;
  if (isSuspended()) {
    run.suspended = true;
    episode.end('cancelled');
    return;
  }
  const { signal } = deadline;
  const step = await episode.policyStep({
    sampling,
    signal: suspend === undefined ? signal : anySignal([signal, suspend]),
    ...(stopTexts && { stopTexts }),
    ...(likeliest !== undefined && { likeliest }),
    ...(onTokens && { onTokens }),
  });
  const cut = episode.endReason === 'cancelled' && !signal.aborted;
  if (cut && isSuspended()) run.suspended = true;
  else if (step !== null) note(run, request, deadline, [step]);
}

/**
 * A step that calls a client's tool ends the run. Calls of server tools beside it are run first
 * where the run will go on, else not at all.
 */
async function toolTurn(run: Run, request: AgentRequest, deadline: Deadline): Promise<void> {
  const { context, episode } = run;
  const elsewhere = new Set((request.clientTools ?? []).map((tool) => tool.name));
  const isElsewhere = ({ name }: ToolCallRequest): boolean => elsewhere.has(name);
  if (request.waits !== true && episode.pendingCalls.some(isElsewhere)) {
    episode.end('tool_calls');
    return;
  }
  if (episode.pendingCalls.some(({ name }) => hasEffects(context, request, name))) {
    await run.logged;
  }
  request.onCalls?.(episode.pendingCalls);
  const offered = new Set([...request.toolNames, ...elsewhere]);
  const { signal } = deadline;
  const steps = await episode.toolStep({ offered, elsewhere, signal });
  note(run, request, deadline, steps);
  if (episode.endReason === null && episode.pendingCalls.length > 0) episode.end('tool_calls');
}

/** The sampling of the next step, which must have the demanded form, if any is demanded. */
function samplingOf(
  { episode }: Run,
  sampling: SamplingParams,
  form: AgentRequest['form'],
): SamplingParams {
  if (form === undefined) return sampling;
  return { ...sampling, constraint: episode.constraintOf(form) };
}

/**
 * Turns ends that are no one's answer into errors: the clock ran out, or the prompt filled the
 * window.
 */
function endError(run: Run, request: AgentRequest, deadline: Deadline): AppError | null {
  const { episode } = run;
  if (episode.endReason === 'cancelled' && deadline.expired) {
    episode.endReason = 'failed';
    const seconds = timeOf(request).limitMs / 1000;
    return new AppError('request_timeout', `the agent run took longer than ${seconds} s`);
  }
  if (episode.endReason === 'context' && sampledTokens(run) === 0) {
    const { length } = episode.sequence;
    throw new AppError(
      'context_length_exceeded',
      `the prompt has ${length} tokens, which fills the context window of ${length}`,
      { param: 'messages' },
    );
  }
  return null;
}

function sampledTokens({ episode, sampledBefore }: Run): number {
  return episode.sampledTokens - sampledBefore;
}

function outcome(run: Run, request: AgentRequest, error: AppError | null): AgentOutcome {
  const { episode } = run;
  const { trajectoryId, tenant, source, conversationId, taskId } = request;
  const log = episode.toLog({
    ...(trajectoryId !== undefined && { id: trajectoryId }),
    tenant,
    source,
    conversationId,
    taskId,
    trainingRunId: null,
    groupId: null,
    branchedFromStepId: null,
    reward: null,
  });
  const [record] = log.trajectories;
  const clientNames = new Set((request.clientTools ?? []).map((tool) => tool.name));
  const waiting = record.endReason === 'tool_calls' ? episode.pendingCalls : [];
  return {
    trajectoryId: record.id,
    steps: episode.newSteps,
    answer: episode.answer,
    endReason: record.endReason,
    formatOk: record.formatOk,
    pendingCalls: waiting
      .filter((call) => clientNames.has(call.name))
      .map((call) => ({ id: call.id ?? '', name: call.name, arguments: call.arguments })),
    calls: waiting.length > 0 ? episode.calls : [],
    suspended: run.suspended,
    promptTokens: run.promptTokens,
    cachedTokens: episode.cachedTokens ?? 0,
    sampledTokens: sampledTokens(run),
    error,
    log,
  };
}
