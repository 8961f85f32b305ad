/** Server-run agents: start, read, follow, cancel. */
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { logFailure } from '../failure-log.ts';
import type { AppDeps } from '../app.ts';
import type { AgentRunRequest, LiveRun } from '../agent-runs.ts';
import { cancelled } from '../chat-completion.ts';
import { chatMessages, clientTools } from '../chat-request.ts';
import { conversationOf } from '../conversation.ts';
import { followResponse } from '../follow.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';

type Body = Input<'createAgentRun'>['body'];

export function agentRoutes(
  deps: AppDeps,
): Pick<Handlers, 'createAgentRun' | 'getAgentRun' | 'streamAgentRunEvents' | 'cancelAgentRun'> {
  const view = (id: string, tokens = false): Response =>
    json<Schemas['AgentRun']>(deps.agentRuns.view(id, { tokens }));
  return {
    createAgentRun: (input) => createAgentRun(deps, input),
    getAgentRun: ({ path, query }) => view(path.run_id, query.include === 'tokens'),
    streamAgentRunEvents: ({ path, header, requestId, activity }) => {
      const afterId = header['Last-Event-ID'] ?? 0;
      const live = deps.agentRuns.live(path.run_id);
      if (live !== null) return followResponse(deps, { requestId, activity, afterId }, live.events);
      // The events are gone, the end is known: it is told as the next event.
      const run = deps.agentRuns.view(path.run_id, { tokens: false });
      const failed = run.status === 'failed' || run.status === 'cancelled';
      const event = { type: failed ? ('run.failed' as const) : ('run.completed' as const), run };
      return followResponse(deps, { requestId, activity, afterId }, [{ id: afterId + 1, event }]);
    },
    cancelAgentRun: async ({ path }) => {
      const live = deps.agentRuns.live(path.run_id);
      live?.cancel();
      await live?.done;
      return view(path.run_id);
    },
  };
}

async function createAgentRun(deps: AppDeps, input: Input<'createAgentRun'>): Promise<Response> {
  const { body, requestId, activity } = input;
  const { signal } = activity;
  const request = runRequest(deps, body);
  const sessionId = input.header['x-session-id'];
  request.sessionId = sessionId ?? null;
  request.conversationId = await conversationOf(deps, sessionId);
  const run = await deps.agentRuns.start(request);
  const headers = headersOf(run);
  const foreground = body.background !== true;
  if (foreground) {
    if (signal.aborted) run.cancel();
    signal.addEventListener('abort', () => run.cancel(), { once: true });
  }
  if (body.stream === true) {
    const onLeave = foreground ? (): void => run.cancel() : undefined;
    return followResponse(deps, { requestId, activity, afterId: 0, headers, onLeave }, run.events);
  }
  const { id } = run.record;
  if (!foreground) {
    const started = deps.agentRuns.view(id, { tokens: false });
    return json<Schemas['AgentRun']>(started, { status: 202, headers });
  }
  await run.done;
  if (run.earlyError !== null) {
    logFailure(deps.logger, requestId, run.earlyError, run.earlyError);
    throw run.earlyError;
  }
  if (signal.aborted) throw cancelled(deps);
  return json<Schemas['AgentRun']>(deps.agentRuns.view(id, { tokens: false }), { headers });
}

function headersOf({ record }: LiveRun): Record<string, string> {
  return {
    'x-ramify-policy': String(record.policyVersion),
    ...(record.trajectoryId !== null && { 'x-ramify-trajectory': record.trajectoryId }),
  };
}

function runRequest(deps: AppDeps, body: Body): AgentRunRequest {
  const tools = body.tools ?? [];
  const toolNames = tools.filter((tool) => typeof tool === 'string');
  const functions = tools.filter((tool) => typeof tool !== 'string');
  const unknown = toolNames.find((name) => !deps.tools.has(name));
  if (unknown !== undefined) {
    throw new AppError('unknown_tool', `no tool '${unknown}' on this server`, { param: 'tools' });
  }
  if (new Set(toolNames).size < toolNames.length) {
    throw new AppError('invalid_request', 'tools: a server tool is named twice', {
      param: 'tools',
    });
  }
  return {
    model: body.model ?? 'ramify',
    messages: chatMessages(messagesOf(body)),
    toolNames,
    clientTools: clientTools(functions),
    maxToolCalls: body.max_tool_calls ?? LIMITS.toolCallsDefault,
    maxTokens: body.max_tokens ?? null,
    sampling: body,
    sessionId: null,
    conversationId: null,
    metadata: body.metadata ?? {},
    body: { ...body },
  };
}

function messagesOf({ messages, input }: Body): readonly Schemas['Message'][] {
  if (messages !== undefined && input === undefined) return messages;
  if (messages === undefined && input !== undefined) return [{ role: 'user', content: input }];
  throw new AppError('invalid_request', 'give exactly one of messages and input', {
    param: 'messages',
  });
}
