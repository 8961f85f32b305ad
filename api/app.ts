/**
 * The HTTP application, apart from listening: every operation of the contract gets its route, its
 * request check and its error answer here, so that a handler sees only valid input and may throw.
 * Tests call `app.request()`; main.ts puts a socket in front.
 */
import { Hono } from 'hono';
import type { Context } from 'hono';
import { must } from '../core/assert.ts';
import type { Clock } from '../core/clock.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import type { AuditRecord } from '../core/key-records.ts';
import type { Logger } from '../core/log.ts';
import type { ToolCatalogue } from '../core/ports.ts';
import type { Stores } from '../db/stores.ts';
import { enter, enterStream, guarded, identify } from './access.ts';
import type { Entry } from './access.ts';
import type { AgentRuns } from './agent-runs.ts';
import { auditedRequest, AuditTrail, isAudited } from './audit.ts';
import type { AuditedInput } from './audit.ts';
import type { Collections } from './collections.ts';
import type { Contract, Operation, OperationId } from './contract/contract.ts';
import { logFailure } from './failure-log.ts';
import type { FeedbackMetrics } from './feedback-metrics.ts';
import type { Handler, Handlers, Input } from './handlers.ts';
import type { KeyRing } from './key-ring.ts';
import type { KeyUsage } from './key-usage.ts';
import type { Activity, Lifecycle } from './lifecycle.ts';
import type { PolicyService } from './policy-service.ts';
import { problemResponse } from './problem.ts';
import { RepeatedCalls } from './repeated-calls.ts';
import { readInput } from './request.ts';
import { agentRoutes } from './routes/agent.ts';
import { chatRoutes } from './routes/chat.ts';
import { collectionRoutes } from './routes/collections.ts';
import { docsRoutes } from './routes/docs.ts';
import { feedbackRoutes } from './routes/feedback.ts';
import { healthRoutes } from './routes/health.ts';
import { exportRoutes } from './routes/export.ts';
import { keyRoutes } from './routes/keys.ts';
import { mcpRoutes } from './routes/mcp.ts';
import { policyRoutes } from './routes/policies.ts';
import { replayRoutes } from './routes/replay.ts';
import { responseRoutes } from './routes/responses.ts';
import { taskRoutes } from './routes/tasks.ts';
import { toolRoutes } from './routes/tools.ts';
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
  tools: ToolCatalogue;
  collections: Collections;
  /** What feedback may say. */
  metrics: FeedbackMetrics;
  lifecycle: Lifecycle;
  /** LIMITS.idempotencyWaitMs when left out. */
  idempotencyWaitMs?: number;
  keys: KeyRing;
  usage: KeyUsage;
  /** Throws when the database cannot be written now. */
  checkStorage: () => void;
  clock: Clock;
  newId: NewId;
  logger: Logger;
}

/** Operations that answer even while the server stops. */
const ALWAYS_SERVED = new Set(['getHealth', 'getOpenapi', 'getDocs', 'getDocsFile']);

interface Variables {
  requestId: string;
  activity: Activity;
  /** Once it is known who asks. */
  entry?: Entry;
}

type App = Hono<{ Variables: Variables }>;
type AppContext = Context<{ Variables: Variables }>;

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
    const key = c.get('entry')?.key ?? null;
    const limits = key === null ? {} : deps.usage.headers(key);
    for (const [name, value] of Object.entries(limits)) c.header(name, value);
    const durationMs = Math.round(performance.now() - startedAt);
    c.header('openai-processing-ms', String(durationMs));
    const { method, path } = c.req;
    const facts = { requestId: c.get('requestId'), method, path, status: c.res.status, durationMs };
    deps.logger.info(facts, 'request');
  });
  const served = { handlers: createHandlers(deps), calls: new RepeatedCalls(deps) };
  for (const [path, operations] of operationsByPath(deps.contract)) {
    for (const operation of operations) {
      app.on(operation.method, path, (c) => serve(deps, operation, served, c));
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
    ...exportRoutes(deps),
    ...replayRoutes(deps),
    ...mcpRoutes(deps, guarded(deps, forTools)),
    ...taskRoutes(deps),
    ...toolRoutes(deps),
    ...collectionRoutes(deps),
    ...trainingRoutes(deps),
    ...policyRoutes(deps),
    ...keyRoutes(deps),
    ...healthRoutes(deps),
    ...docsRoutes(),
  };
}

interface Served {
  handlers: Handlers;
  calls: RepeatedCalls;
}

async function serve(
  deps: AppDeps,
  operation: Operation,
  served: Served,
  c: AppContext,
): Promise<Response> {
  const activity = c.get('activity');
  let trail: AuditTrail | null = null;
  try {
    const entry = identify(deps, operation, c.req.raw);
    c.set('entry', entry);
    enter(deps, operation, entry, activity);
    if (!ALWAYS_SERVED.has(operation.id)) deps.lifecycle.admit();
    const { principal } = entry;
    const input = await readInput(deps.contract, operation, c.req.raw, {
      requestId: c.get('requestId'),
      principal,
      activity,
      pathParameters: c.req.param(),
    });
    if (isAudited(operation, input)) {
      trail = new AuditTrail((status) => auditRow(deps, operation, c, { input, status }));
    }
    input.trail = trail;
    enterStream(deps, operation, input);
    const response = await answer(served, operation, input);
    // hono answers HEAD as GET and drops the body, whose stream would stay open.
    if (c.req.method === 'HEAD') await response.body?.cancel();
    if (trail?.taken === false) await deps.stores.audit.add(trail.take(response.status));
    return response;
  } catch (thrown) {
    // Here and not in onError: hono passes only Error objects on to that.
    const response = problem(deps, c, thrown);
    if (trail === null) return response;
    // What a handler took was not stored, as it failed.
    return deps.stores.audit.add(trail.take(response.status)).then(
      () => response,
      () => response,
    );
  }
}

/** A call with an Idempotency-Key, where the operation has such, is answered once. */
async function answer(
  { handlers, calls }: Served,
  { id }: Operation,
  input: Input<OperationId>,
): Promise<Response> {
  // The input was checked against this very operation, which the types cannot follow.
  const answered = async (): Promise<Response> => (handlers[id] as Handler<never>)(input as never);
  const header = input.header as Record<string, string | undefined>;
  const key = header['Idempotency-Key'];
  if (key === undefined) return answered();
  const { body, principal, activity } = input;
  const asked = [id, header['x-session-id'] ?? null, body];
  const goesOn = (body as { background?: boolean }).background === true;
  const { signal } = activity;
  return calls.once({ tenant: principal.tenant, key, asked, goesOn, signal }, answered);
}

/** Who did what; it is stored before it is answered. */
function auditRow(
  { newId, clock }: AppDeps,
  operation: Operation,
  c: AppContext,
  { input, status }: { input: AuditedInput; status: number },
): AuditRecord {
  const { principal } = must(c.get('entry'), 'who is audited is known');
  return {
    id: newId('audit'),
    keyId: principal.keyId,
    tenant: principal.tenant,
    operation: operation.id,
    method: operation.method,
    path: c.req.path,
    status,
    request: auditedRequest(input),
    requestId: c.get('requestId'),
    createdAt: clock.now(),
  };
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
