/** Server-run agents: start, list, read, follow, go on with a client's results, cancel. */
import { logFailure } from '../failure-log.ts';
import type { AppDeps } from '../app.ts';
import { positionOf } from '../agent-run-feed.ts';
import type { Position } from '../agent-run-feed.ts';
import { agentRunRequest, checkServerTools } from '../agent-run-request.ts';
import type { LiveRun } from '../agent-runs.ts';
import { tenantSeen } from '../auth.ts';
import type { Principal } from '../auth.ts';
import { cancelled } from '../chat-completion.ts';
import { conversationOf } from '../conversation.ts';
import { followResponse } from '../follow.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';

type AgentOperation =
  | 'createAgentRun'
  | 'listAgentRuns'
  | 'getAgentRun'
  | 'streamAgentRunEvents'
  | 'submitToolOutputs'
  | 'cancelAgentRun';

export function agentRoutes(deps: AppDeps): Pick<Handlers, AgentOperation> {
  const view = (id: string, tokens = false): Response =>
    json<Schemas['AgentRun']>(deps.agentRuns.view(id, { tokens }));
  const seen = (id: string, principal: Principal): string => {
    deps.agentRuns.requireSeen(id, tenantSeen(principal));
    return id;
  };
  return {
    createAgentRun: (input) => createAgentRun(deps, input),
    listAgentRuns: ({ query, principal }) => {
      const { status, ...page } = query;
      const tenant = tenantSeen(principal);
      const filter = { ...(status && { status }), ...(tenant !== undefined && { tenant }) };
      return json<Schemas['AgentRunList']>(deps.agentRuns.list(filter, page));
    },
    getAgentRun: ({ path, query, principal }) =>
      view(seen(path.run_id, principal), query.include === 'tokens'),
    streamAgentRunEvents: ({ path, query, header, requestId, principal, activity }) => {
      const id = header['Last-Event-ID'] ?? query.after;
      const after = id === undefined ? null : positionOf(id);
      const feed = deps.agentRuns.feed(seen(path.run_id, principal));
      return followResponse(deps, { requestId, activity }, (signal) =>
        feed.follow(after, signal, { endsAtWait: false }),
      );
    },
    submitToolOutputs: async (input) => {
      const { path, body, principal } = input;
      const id = seen(path.run_id, principal);
      const { run, after } = await deps.agentRuns.submit(id, body.tool_outputs);
      return answer(deps, input, run, { streamed: body.stream === true, after });
    },
    cancelAgentRun: async ({ path, principal }) => {
      const id = seen(path.run_id, principal);
      await deps.agentRuns.cancel(id);
      return view(id);
    },
  };
}

async function createAgentRun(deps: AppDeps, input: Input<'createAgentRun'>): Promise<Response> {
  const { body } = input;
  const request = agentRunRequest(body);
  checkServerTools(deps.tools, request.toolNames);
  const sessionId = input.header['x-session-id'] ?? null;
  const { tenant, keyId } = input.principal;
  const conversationId = await conversationOf(deps, { tenant, sessionId });
  const run = await deps.agentRuns.create(request, { tenant, keyId, sessionId, conversationId });
  return answer(deps, input, run, { streamed: body.stream === true, after: null });
}

/** Answers who began a leg of a run: with its events, at once, or at its end. */
async function answer(
  deps: AppDeps,
  { requestId, activity }: Pick<Input<'createAgentRun'>, 'requestId' | 'activity'>,
  run: LiveRun,
  { streamed, after }: { streamed: boolean; after: Position | null },
): Promise<Response> {
  const { signal } = activity;
  const headers = headersOf(run);
  const { background } = run.request;
  const { id } = run.record;
  // Only the work that this client waits for: a later leg has another one.
  const { abort } = run;
  if (!background) {
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
  }
  // Of a foreground run the request itself is under way.
  if (background) void run.done.then(deps.usage.hold(run.record.keyId));
  if (streamed) {
    const onLeave = background ? undefined : abort;
    return followResponse(deps, { requestId, activity, headers, onLeave }, (gone) =>
      run.feed.follow(after, gone, { endsAtWait: true }),
    );
  }
  if (background) {
    const begun = deps.agentRuns.view(id, { tokens: false });
    return json<Schemas['AgentRun']>(begun, { status: 202, headers });
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
