/**
 * Chat requests that go on from a logged answer. Clients send the whole conversation each time,
 * without the policy's thoughts, so rendering it again would give the policy another past than the
 * one it wrote. When the history up to its last assistant message is one that the log knows, the
 * stored tokens are used instead and only what is new is rendered; the version that wrote them
 * goes on. Anything else is rendered whole, as a new segment: histories that were edited,
 * compacted, cut or never logged, a version named that is another one, a version that was rolled
 * back; and, still on the version that wrote the answer, other tools or a path that no longer fits.
 */
import { must } from '../core/assert.ts';
import { continuationTokens } from '../core/agent/run-agent.ts';
import type { Continuation } from '../core/agent/types.ts';
import type { Clock } from '../core/clock.ts';
import { toAppError } from '../core/errors.ts';
import type { ToolSpec } from '../core/ports.ts';
import type { EndReason, StepRecord, ToolCallRecord, TrajectoryRecord } from '../core/records.ts';
import { splitAnswers } from '../core/text/continuation.ts';
import type { ChatMessage, Protocol, ToolCallRequest } from '../core/text/types.ts';
import type { AppDeps } from './app.ts';
import { continuationKey } from './continuation-key.ts';
import { allowsVersion, pinnedName } from './policy-service.ts';
import type { OpenedPolicy } from './policy-service.ts';

/** The part of a chat request that decides. */
export interface History {
  /** Whose answers it may go on from. */
  tenant: string;
  messages: readonly ChatMessage[];
  tools: readonly ToolSpec[];
  sessionId: string | null;
  /** Tokens asked for; null: as many as fit. */
  maxTokens: number | null;
  /** The trajectory to be. */
  trajectoryId: string;
}

export interface OpenedConversation {
  opened: OpenedPolicy;
  /** Null: render the history whole. */
  continuation: Continuation | null;
}

type Deps = Pick<AppDeps, 'stores' | 'policies' | 'clock'>;

/** Ends after which a client may go on. What was cut, cancelled or failed is no one's past. */
const CONTINUED: ReadonlySet<EndReason> = new Set(['tool_calls', 'answer', 'stop']);

/**
 * The key of an answer, to be logged with its trajectory; undefined when no request may go on from
 * it. `answer` is the assistant message as the client gets it.
 */
export function keyOfAnswer(
  protocol: Protocol,
  history: Omit<History, 'tenant' | 'maxTokens' | 'trajectoryId'>,
  answer: { message: ChatMessage; endReason: EndReason },
): string | undefined {
  if (!CONTINUED.has(answer.endReason)) return undefined;
  const scope = { sessionId: history.sessionId, tools: promptTools(protocol, history.tools) };
  return continuationKey(scope, [...history.messages, answer.message]);
}

/**
 * Opens a sequence for a chat request: on the version of the logged answer that its history ends
 * with, else on the one that `model` means.
 * @throws AppError as PolicyService.open; unknown_tool, invalid_request when the protocol refuses
 *   the tools or the messages.
 */
export async function openConversation(
  deps: Deps,
  model: string,
  history: History,
): Promise<OpenedConversation> {
  const found = findAnswer(deps, history);
  const version = found?.trajectory.policyVersion ?? null;
  if (found !== null && version !== null && goesOn(deps, model, version)) {
    const opened = await openLogged(deps, version);
    if (opened !== null) {
      try {
        return { opened, continuation: continuationOf(deps, opened, history, found) };
      } catch (error) {
        opened.sequence.close();
        throw error;
      }
    }
  }
  // Without a session every history that is rendered whole is drawn anew.
  const key = history.sessionId ?? history.trajectoryId;
  return { opened: await deps.policies.open(model, { key }), continuation: null };
}

/** A version that was taken back is left by its conversations too, unless they name it. */
function goesOn({ stores }: Deps, model: string, version: number): boolean {
  if (!allowsVersion(model, version)) return false;
  return model === pinnedName(version) || stores.policies.find(version)?.status !== 'rolled_back';
}

interface FoundAnswer {
  trajectory: TrajectoryRecord;
  key: string;
  /** The history up to the answer, and what follows. */
  past: readonly ChatMessage[];
  rest: readonly ChatMessage[];
}

/**
 * Only the newest assistant message counts: one behind a logged answer was written by no policy.
 */
function findAnswer(deps: Deps, history: History): FoundAnswer | null {
  const { tenant, messages, tools, sessionId } = history;
  const last = messages.findLastIndex(({ role }) => role === 'assistant');
  if (last === -1 || last === messages.length - 1) return null;
  const past = messages.slice(0, last + 1);
  // Whether the tools are part of the key depends on the policy, which is not known yet.
  for (const shown of tools.length > 0 ? [tools, []] : [tools]) {
    const key = continuationKey({ sessionId, tools: shown }, past);
    const trajectory = deps.stores.trajectories.newestByContinuationKey(key, tenant);
    if (trajectory === null) continue;
    deps.stores.recentUse.note(trajectory.id);
    return { trajectory, key, past, rest: messages.slice(last + 1) };
  }
  return null;
}

/** Null when the version can't be loaded any more. */
async function openLogged({ policies }: Deps, version: number): Promise<OpenedPolicy | null> {
  try {
    return await policies.open(pinnedName(version));
  } catch (thrown) {
    const error = toAppError(thrown);
    if (error.code === 'model_not_found') return null;
    throw error;
  }
}

function continuationOf(
  deps: Deps,
  { policy, sequence }: OpenedPolicy,
  { tools, sessionId, maxTokens }: History,
  { trajectory, key, past, rest }: FoundAnswer,
): Continuation | null {
  const { protocol } = policy;
  const shown = promptTools(protocol, tools);
  if (continuationKey({ sessionId, tools: shown }, past) !== key) return null;
  const steps = deps.stores.trajectories.path(trajectory.leafStepId);
  const leaf = must(steps.at(-1), 'a trajectory has its leaf step');
  const calls = past.at(-1)?.toolCalls ?? [];
  const tokens = protocol.renderContinuation({ text: leaf.text, calls }, rest);
  if (tokens === null) return null;
  const continuation: Continuation = {
    steps,
    answered: answeredCalls(deps.clock, leaf, calls, rest),
    furtherMessages: rest.some(({ role }) => role !== 'tool'),
    tokens,
  };
  // The same history without the thoughts may still fit.
  const needed = continuationTokens(continuation) + (maxTokens ?? 1);
  return needed <= sequence.contextTokens ? continuation : null;
}

/** The leaf's calls with their results, in the order of the calls. */
function answeredCalls(
  clock: Clock,
  leaf: StepRecord,
  calls: readonly ToolCallRequest[],
  rest: readonly ChatMessage[],
): ToolCallRecord[] {
  // The request was checked: each call has exactly one result.
  return splitAnswers({ calls }, rest).answers.map((answer, i) => {
    const call = must(calls[i], 'a result answers a call');
    return {
      id: must(call.id, 'a call of a client has an id'),
      name: call.name,
      arguments: call.arguments,
      result: answer.content ?? '',
      error: null,
      durationMs: Math.max(0, clock.now() - leaf.startedAt - leaf.durationMs),
      // What a client's function does is not known: it counts as the more careful of the two.
      effects: 'writes',
      served: 'client',
    };
  });
}

/** The tools if the policy's prompt shows them, else none. @throws AppError unknown_tool */
function promptTools(protocol: Protocol, tools: readonly ToolSpec[]): readonly ToolSpec[] {
  if (tools.length === 0) return tools;
  const probe: ChatMessage[] = [{ role: 'user', content: '' }];
  try {
    const [plain, shown] = [protocol.renderPrompt(probe, []), protocol.renderPrompt(probe, tools)];
    const equal = plain.length === shown.length && plain.every((token, i) => token === shown[i]);
    return equal ? [] : tools;
  } catch (thrown) {
    // A template may refuse the probe where it takes the conversation: then the tools count.
    if (toAppError(thrown).code === 'invalid_request') return tools;
    throw thrown;
  }
}
