/**
 * The agent loop for live traffic: generate, run tools, append, until an end. /v1/agent/runs uses
 * it with server tools, chat completions with client tools only (the first call of one ends the
 * run). It drives the same Episode as training rollouts do. It writes nothing: the caller awaits
 * the log.
 */
import { AppError, toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { Deadline } from './deadline.ts';
import { Episode, policyTokens } from './episode.ts';
import type { ToolSpec } from '../ports.ts';
import type { SamplingParams } from '../records.ts';
import type { AgentOutcome, AgentRequest, Continuation, EpisodeContext } from './types.ts';

/**
 * Runs one request to its end and returns everything that happened. Owns and closes the sequence.
 *
 * Throws before any work: unknown_tool, invalid_request (a client tool named like a server tool),
 * context_length_exceeded. Throws when the engine failed before the first token. A later failure is
 * an outcome with endReason `failed` and its `error`, so that the steps so far are still logged.
 */
export async function runAgent(
  context: EpisodeContext,
  request: AgentRequest,
): Promise<AgentOutcome> {
  const deadline = new Deadline(request.signal, LIMITS.agentRunTimeoutMs);
  try {
    const run = begin(context, request);
    for (const step of run.episode.newSteps) request.onStep?.(step);
    const error = await runToEnd(run, request, deadline);
    return outcome(run, request, error);
  } finally {
    deadline.close();
    request.sequence.close();
  }
}

/** An episode, and what of it was there before this run sampled. */
interface Run {
  episode: Episode;
  promptTokens: number;
  sampledBefore: number;
}

function begin(context: EpisodeContext, request: AgentRequest): Run {
  const { limits, contextTokens, continuation, sequence } = request;
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
    const episode = Episode.begin({ context, sequence, promptTokens, limits });
    return { episode, promptTokens: promptTokens.length, sampledBefore: 0 };
  }
  const promptTokens = continuationTokens(continuation);
  refuseTooLong(promptTokens);
  const sampledBefore = policyTokens(continuation.steps);
  const ownLimits = { ...limits, maxTokens: sampledBefore + limits.maxTokens };
  const episode = Episode.resume({ context, sequence, continuation, limits: ownLimits });
  return { episode, promptTokens, sampledBefore };
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
  const clientNames = new Set((request.clientTools ?? []).map((tool) => tool.name));
  const offered = new Set([...request.toolNames, ...clientNames]);
  const { signal } = deadline;
  const { episode } = run;
  let sampling = firstSampling(run, request);
  try {
    while (episode.endReason === null) {
      const step = await episode.policyStep({
        sampling,
        signal,
        ...(request.stopTexts && { stopTexts: request.stopTexts }),
        ...(request.onTokens && { onTokens: request.onTokens }),
      });
      sampling = request.sampling;
      if (step !== null) request.onStep?.(step);
      if (episode.endReason !== null) break;
      // A step that calls a client's tool ends the run; calls of server tools beside it are not
      // run.
      if (episode.pendingCalls.some((call) => clientNames.has(call.name))) {
        episode.end('tool_calls');
        break;
      }
      for (const toolStep of await episode.toolStep({ offered, signal })) {
        request.onStep?.(toolStep);
      }
    }
  } catch (thrown) {
    const error = toAppError(thrown);
    if (sampledTokens(run) === 0) throw error;
    episode.end('failed');
    return error;
  }
  return endError(run, deadline);
}

/** The sampling of the step that must have the demanded form, if any is demanded. */
function firstSampling({ episode }: Run, { sampling, form }: AgentRequest): SamplingParams {
  if (form === undefined) return sampling;
  return { ...sampling, constraint: episode.constraintOf(form) };
}

/**
 * Turns ends that are no one's answer into errors: the clock ran out, or the prompt filled the
 * window.
 */
function endError(run: Run, deadline: Deadline): AppError | null {
  const { episode } = run;
  if (episode.endReason === 'cancelled' && deadline.expired) {
    episode.endReason = 'failed';
    const seconds = LIMITS.agentRunTimeoutMs / 1000;
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
  const { source, conversationId, taskId } = request;
  const log = episode.toLog({
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
    promptTokens: run.promptTokens,
    sampledTokens: sampledTokens(run),
    error,
    log,
  };
}
