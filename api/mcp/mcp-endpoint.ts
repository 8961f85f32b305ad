/**
 * POST /mcp: ramify as an MCP server over streamable HTTP. It keeps no sessions: each request gets
 * a protocol object of its own, so there is nothing to bound, to expire or to lose in a restart,
 * and nothing that the server would have to tell unasked. The session id that a client is given is
 * only a name under which it can cancel its own requests while they run.
 *
 * A request is answered by an event stream, which stays alive by comments; when its client goes
 * away the work stops, because nobody could get the answer any more.
 */
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js';
import {
  CallToolRequestSchema,
  ErrorCode,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  McpError,
  ReadResourceRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';
import type { CallToolResult, ServerNotification } from '@modelcontextprotocol/sdk/types.js';
import { anySignal } from '../../core/any-signal.ts';
import { must } from '../../core/assert.ts';
import { AppError, toAppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { AppDeps } from '../app.ts';
import { logFailure } from '../failure-log.ts';
import type { Input } from '../handlers.ts';
import { publicMessage } from '../problem.ts';
import { listedTools, runTool } from './ramify-tools.ts';
import type { Caller, ToolHandlers } from './ramify-tools.ts';

type Deps = Pick<AppDeps, 'contract' | 'lifecycle' | 'newId' | 'logger' | 'clock'>;

/** What the SDK passes to handlers, as far as it is used. */
interface Extra {
  signal: AbortSignal;
  sendNotification: (notification: ServerNotification) => Promise<void>;
}

const TRAJECTORY_URI = 'ramify://trajectories/';
const RESOURCE_NOT_FOUND = -32_002;

const INSTRUCTIONS =
  'ramify runs an agent whose policy learns from its own traffic. ask_agent answers a question; ' +
  'send_feedback with the trajectory_id of the answer says how good it was.';

export class McpEndpoint {
  private readonly deps: Deps;
  private readonly handlers: ToolHandlers;
  /** Requests that run, by who may cancel them. */
  private readonly running = new Map<string, () => void>();

  constructor(deps: Deps, handlers: ToolHandlers) {
    this.deps = deps;
    this.handlers = handlers;
  }

  /** @throws AppError invalid_request when the body is no message of MCP. */
  async answer(input: Input<'callMcp'>): Promise<Response> {
    const { id, method } = input.body;
    if (method === undefined || id === undefined) {
      if (method === 'notifications/cancelled') this.cancel(input);
      return new Response(null, { status: 202 });
    }
    const server = this.newServer(input);
    const transport = new WebStandardStreamableHTTPServerTransport({
      keepAliveMs: LIMITS.heartbeatMs,
    });
    await server.connect(transport);
    const response = await transport.handleRequest(requestOf(input), { parsedBody: input.body });
    if (!response.ok) {
      const { error } = (await response.json()) as { error: { message: string } };
      throw new AppError('invalid_request', error.message);
    }
    return this.stream(input, response, () => void server.close());
  }

  /** The stream holds the activity and can be cancelled; `close` ends it and what runs for it. */
  private stream(input: Input<'callMcp'>, response: Response, close: () => void): Response {
    const { activity, body } = input;
    const key = keyOf(input, body.id);
    this.running.set(key, close);
    activity.hold();
    const end = (): void => {
      if (this.running.get(key) === close) this.running.delete(key);
      close();
      activity.release();
    };
    const headers = new Headers(response.headers);
    if (body.method === 'initialize') headers.set('mcp-session-id', this.deps.newId('mcpSession'));
    return new Response(withEnd(must(response.body, 'an event stream'), end), { headers });
  }

  private cancel(input: Input<'callMcp'>): void {
    const { requestId } = (input.body.params ?? {}) as { requestId?: unknown };
    this.running.get(keyOf(input, requestId))?.();
  }

  private newServer({ requestId, principal, activity }: Input<'callMcp'>): Server {
    const { version } = this.deps.contract;
    const server = new Server(
      { name: 'ramify', version },
      { capabilities: { tools: {}, resources: {} }, instructions: INSTRUCTIONS },
    );
    const source = { contract: this.deps.contract, handlers: this.handlers };
    const as = <T>(extra: Extra, work: (caller: Caller) => Promise<T>): Promise<T> => {
      const signal = anySignal([extra.signal, activity.signal]);
      const own = this.deps.lifecycle.begin(signal);
      return work({ requestId, principal, activity: own }).finally(() => own.release());
    };
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: listedTools() }));
    server.setRequestHandler(CallToolRequestSchema, ({ params }, extra) => {
      const progress = this.tellProgress(params._meta?.progressToken, extra);
      return as(extra, async (caller) => {
        const running = runTool(source, params.name, params.arguments ?? {}, caller);
        if (running === null) {
          throw new McpError(ErrorCode.InvalidParams, `there is no tool ${params.name}`);
        }
        return this.toolResult(requestId, running);
      }).finally(progress.stop);
    });
    server.setRequestHandler(ListResourcesRequestSchema, () => ({ resources: [] }));
    server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({
      resourceTemplates: [
        {
          uriTemplate: `${TRAJECTORY_URI}{trajectory_id}`,
          name: 'trajectory',
          description: 'One trajectory of the log with its steps.',
          mimeType: 'application/json',
        },
      ],
    }));
    server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }, extra) =>
      as(extra, async (caller) => {
        const id = uri.startsWith(TRAJECTORY_URI) ? uri.slice(TRAJECTORY_URI.length) : '';
        const args = { trajectory_id: id };
        const reading = must(runTool(source, 'get_trajectory', args, caller), 'there is the tool');
        const trajectory = await reading.catch((thrown: unknown) => {
          throw new McpError(RESOURCE_NOT_FOUND, this.told(requestId, thrown), { uri });
        });
        const contents = { uri, mimeType: 'application/json', text: JSON.stringify(trajectory) };
        return { contents: [contents] };
      }),
    );
    return server;
  }

  /** An error of a tool is a result, so that the model that called it can read it. */
  private async toolResult(
    requestId: string,
    running: Promise<Record<string, unknown>>,
  ): Promise<CallToolResult> {
    try {
      const structuredContent = await running;
      const text = JSON.stringify(structuredContent);
      const failed = structuredContent['status'] === 'failed';
      return { content: [{ type: 'text', text }], structuredContent, isError: failed };
    } catch (thrown) {
      return { content: [{ type: 'text', text: this.told(requestId, thrown) }], isError: true };
    }
  }

  private told(requestId: string, thrown: unknown): string {
    const error = toAppError(thrown);
    logFailure(this.deps.logger, requestId, error, thrown);
    return `${error.code}: ${publicMessage(error, `the log has it under ${requestId}`)}`;
  }

  /** Clients give up on what says nothing for long; those that ask are told that work goes on. */
  private tellProgress(
    progressToken: string | number | undefined,
    extra: Extra,
  ): { stop: () => void } {
    if (progressToken === undefined) return { stop: () => undefined };
    const startedAt = this.deps.clock.now();
    const timer = setInterval(() => {
      const progress = (this.deps.clock.now() - startedAt) / 1000;
      const message = `working for ${Math.round(progress)} s`;
      const params = { progressToken, progress, message };
      extra.sendNotification({ method: 'notifications/progress', params }).catch(() => undefined);
    }, LIMITS.mcpProgressMs);
    return { stop: () => clearInterval(timer) };
  }
}

/** Whose request it is: another key, or a session that was not told, cannot name it. */
function keyOf({ principal, header }: Input<'callMcp'>, id: unknown): string {
  return JSON.stringify([principal.keyId, header['Mcp-Session-Id'] ?? null, id]);
}

/** The request as the SDK wants it; it was read and checked before. */
function requestOf({ header }: Input<'callMcp'>): Request {
  const version = header['MCP-Protocol-Version'];
  return new Request('http://ramify/mcp', {
    method: 'POST',
    headers: {
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
      ...(version !== undefined && { 'mcp-protocol-version': version }),
    },
  });
}

/** The same stream; `end` is called once, when it has ended or failed or its reader has gone. */
export function withEnd(
  body: ReadableStream<Uint8Array>,
  end: () => void,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let ended = false;
  const endOnce = (): void => {
    if (!ended) end();
    ended = true;
  };
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        endOnce();
        throw error;
      });
      if (!done) {
        controller.enqueue(value);
        return;
      }
      endOnce();
      controller.close();
    },
    async cancel() {
      endOnce();
      await reader.cancel();
    },
  });
}
