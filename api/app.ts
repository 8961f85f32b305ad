/**
 * The HTTP application, apart from listening: every operation of the contract gets its route, its
 * request check and its error answer here, so that a handler sees only valid input and may throw.
 * Tests call `app.request()`; main.ts puts a socket in front.
 */
import { Hono } from 'hono';
import type { Context } from 'hono';
import type { Clock } from '../core/clock.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import type { Logger } from '../core/log.ts';
import type { ToolRunner } from '../core/ports.ts';
import type { Stores } from '../db/stores.ts';
import type { AgentRuns } from './agent-runs.ts';
import { OPEN_PRINCIPAL } from './auth.ts';
import type { Contract, Operation } from './contract/contract.ts';
import { logFailure } from './failure-log.ts';
import type { FeedbackMetrics } from './feedback-metrics.ts';
import type { Handler, Handlers } from './handlers.ts';
import { checkHost } from './host-check.ts';
import type { Activity, Lifecycle } from './lifecycle.ts';
import type { PolicyService } from './policy-service.ts';
import { problemResponse } from './problem.ts';
import { readInput } from './request.ts';
import { agentRoutes } from './routes/agent.ts';
import { chatRoutes } from './routes/chat.ts';
import { docsRoutes } from './routes/docs.ts';
import { feedbackRoutes } from './routes/feedback.ts';
import { healthRoutes } from './routes/health.ts';
import { exportRoutes } from './routes/export.ts';
import { mcpRoutes } from './routes/mcp.ts';
import { policyRoutes } from './routes/policies.ts';
import { replayRoutes } from './routes/replay.ts';
import { responseRoutes } from './routes/responses.ts';
import { taskRoutes } from './routes/tasks.ts';
import { trainingRoutes } from './routes/training.ts';
import { trajectoryRoutes } from './routes/trajectories.ts';
import type { TrainingManager } from './training-manager.ts';

/** Everything that handlers need, made by main.ts (or by a test). */
export interface AppDeps {
  contract: Contract;
  stores: Stores;
  engine: PolicyEngine;
  policies: PolicyService;
  agentRuns: AgentRuns;
  training: TrainingManager;
  tools: ToolRunner;
  /** What feedback may say. */
  metrics: FeedbackMetrics;
  lifecycle: Lifecycle;
  /** LIMITS.idempotencyWaitMs when left out. */
  idempotencyWaitMs?: number;
  /** Throws when the database cannot be written now. */
  checkStorage: () => void;
  clock: Clock;
  newId: NewId;
  logger: Logger;
}

/** Operations that answer even while the server stops. */
const ALWAYS_SERVED = new Set(['getHealth', 'getOpenapi', 'getDocs', 'getDocsFile']);

type App = Hono<{ Variables: { requestId: string; activity: Activity } }>;
type AppContext = Context<{ Variables: { requestId: string; activity: Activity } }>;

export function createApp(deps: AppDeps): App {
  const app: App = new Hono();
  app.use('*', async (c, next) => {
    const startedAt = performance.now();
    c.set('requestId', deps.newId('request'));
    const activity = deps.lifecycle.begin(c.req.raw.signal);
    c.set('activity', activity);
    try {
      await next();
    } finally {
      // A stream goes on after this; it holds the activity itself.
      activity.release();
    }
    c.header('x-request-id', c.get('requestId'));
    const durationMs = Math.round(performance.now() - startedAt);
    c.header('openai-processing-ms', String(durationMs));
    const { method, path } = c.req;
    const facts = { requestId: c.get('requestId'), method, path, status: c.res.status, durationMs };
    deps.logger.info(facts, 'request');
  });
  const handlers = createHandlers(deps);
  for (const [path, operations] of operationsByPath(deps.contract)) {
    for (const operation of operations) {
      app.on(operation.method, path, (c) => serve(deps, operation, handlers, c));
    }
    const methods = operations.map(({ method }) => method).join(', ');
    app.all(path, (c) => {
      const error = new AppError(
        'method_not_allowed',
        `${c.req.method} ${c.req.path}: only ${methods}`,
      );
      return withHeader(problem(deps, c, error), 'allow', methods);
    });
  }
  app.notFound((c) => problem(deps, c, new AppError('route_not_found', `no path ${c.req.path}`)));
  app.onError((error, c) => problem(deps, c, error));
  return app;
}

function createHandlers(deps: AppDeps): Handlers {
  const forTools = { ...agentRoutes(deps), ...trajectoryRoutes(deps), ...feedbackRoutes(deps) };
  return {
    ...chatRoutes(deps),
    ...responseRoutes(deps),
    ...forTools,
    ...mcpRoutes(deps, forTools),
    ...exportRoutes(deps),
    ...replayRoutes(deps),
    ...taskRoutes(deps),
    ...trainingRoutes(deps),
    ...policyRoutes(deps),
    ...healthRoutes(deps),
    ...docsRoutes(),
  };
}

async function serve(
  deps: AppDeps,
  operation: Operation,
  handlers: Handlers,
  c: AppContext,
): Promise<Response> {
  try {
    checkHost(c.req.raw);
    if (!ALWAYS_SERVED.has(operation.id)) deps.lifecycle.admit();
    const input = await readInput(deps.contract, operation, c.req.raw, {
      requestId: c.get('requestId'),
      principal: OPEN_PRINCIPAL,
      activity: c.get('activity'),
      pathParameters: c.req.param(),
    });
    // The input was checked against this very operation, which the types cannot follow.
    return await (handlers[operation.id] as Handler<never>)(input as never);
  } catch (thrown) {
    // Here and not in onError: hono passes only Error objects on to that.
    return problem(deps, c, thrown);
  }
}

function problem(deps: AppDeps, c: AppContext, thrown: unknown): Response {
  const error = toAppError(thrown);
  const requestId = c.get('requestId');
  logFailure(deps.logger, requestId, error, thrown);
  return problemResponse(error, requestId);
}

function withHeader(response: Response, name: string, value: string): Response {
  response.headers.set(name, value);
  return response;
}

/**
 * By hono's path. Those without parameters come first, else `/x/:id` would take the methods that
 * `/x/y` does not offer.
 */
function operationsByPath(contract: Contract): [string, Operation[]][] {
  const out = new Map<string, Operation[]>();
  for (const operation of contract.operations) {
    const path = operation.path.replaceAll(/\{(\w+)\}/g, ':$1');
    out.set(path, [...(out.get(path) ?? []), operation]);
  }
  const parameters = (path: string): number => path.split(':').length;
  return [...out].sort(([a], [b]) => parameters(a) - parameters(b));
}
