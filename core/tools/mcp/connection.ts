/**
 * One MCP server, kept connected: it is connected, its tools are listed, and when the connection
 * ends it is made anew, ever later while that fails. Its tools stay known meanwhile, and a call
 * fails at once. When the server says that its tools changed they are listed again.
 *
 * Calls of one connection run beside one another. The server may ask nothing of us: no sampling, no
 * files, no questions to a person.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import type { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema,
  ErrorCode,
  ListToolsResultSchema,
  McpError,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import type { Tool as Listed } from '@modelcontextprotocol/sdk/types.js';
import { AppError, toAppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';
import type { Logger } from '../../log.ts';
import type { Tool } from '../../ports.ts';
import type { McpServerDeclaration } from './declaration.ts';
import { httpTransport } from './http-transport.ts';
import { offeredTools } from './offered-tools.ts';
import { resultText } from './result-text.ts';
import { StdioTransport } from './stdio-transport.ts';

export interface McpConnectionOptions {
  declaration: McpServerDeclaration;
  /**
   * Told of all its tools when they are first known, and again when they change. The next list
   * waits for it, and the longer the longer it took; `signal` is aborted by stop.
   */
  onTools: (tools: readonly Tool[], signal: AbortSignal) => void | Promise<void>;
  logger: Logger;
  delaysMs?: readonly number[];
}

/** A connection, from its begin. */
interface Link {
  client: Client;
  transport: StdioTransport | StreamableHTTPClientTransport;
  /** The two have greeted each other. */
  ready: boolean;
  /** Why it ended; null while it lasts. */
  why: AppError | null;
  ended: Promise<AppError>;
  end: (why: AppError) => void;
}

export class McpConnection {
  /** Resolves when it was first connected, or could not be. */
  readonly tried: Promise<void>;
  private readonly options: McpConnectionOptions;
  private readonly stopping = new AbortController();
  private readonly running: Promise<void>;
  private link: Link | null = null;
  private down = failed('it is being connected');
  /** When its tools may be listed again. */
  private listAt = -Infinity;
  private onTried: () => void = () => undefined;

  constructor(options: McpConnectionOptions) {
    this.options = options;
    this.tried = new Promise((resolve) => (this.onTried = resolve));
    this.running = this.run();
  }

  /** Ends the connection and, of a child process, its whole group. Safe to call twice. */
  async stop(): Promise<void> {
    this.stopping.abort();
    this.link?.end(failed('ramify is stopping'));
    await this.running;
  }

  private async run(): Promise<void> {
    const { declaration, logger, delaysMs = LIMITS.mcpRestartDelaysMs } = this.options;
    const { signal } = this.stopping;
    for (let failures = 0; !signal.aborted; failures++) {
      const startedAt = performance.now();
      const link = this.newLink();
      await this.hold(link);
      this.onTried();
      if (signal.aborted) return;
      if (performance.now() - startedAt > LIMITS.mcpStableMs) failures = 0;
      const delayMs = delaysMs[Math.min(failures, delaysMs.length - 1)] ?? 0;
      const facts = { mcpServer: declaration.name, why: this.down.message, delayMs };
      const said = link.transport instanceof StdioTransport ? link.transport.stderr : undefined;
      logger.warn({ ...facts, stderr: said }, 'an MCP server is not connected');
      await sleep(delayMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Connects and lasts as long as the connection. */
  private async hold(link: Link): Promise<void> {
    this.link = link;
    this.open(link)
      .then(this.onTried)
      .catch((thrown: unknown) => link.end(failure(thrown)));
    this.down = await link.ended;
    this.link = null;
    await close(link, { inOrder: this.stopping.signal.aborted });
  }

  private newLink(): Link {
    let settle: Link['end'] = () => undefined;
    const ended = new Promise<AppError>((resolve) => (settle = resolve));
    const end: Link['end'] = (why) => {
      link.why ??= why;
      settle(link.why);
    };
    const { name, reach, timeoutMs } = this.options.declaration;
    const transport =
      'command' in reach
        ? new StdioTransport(reach, end)
        : httpTransport(reach, { timeoutMs: timeoutMs + LIMITS.mcpCloseStepMs, onBroken: end });
    const client = new Client({ name: 'ramify', version: '1' }, { capabilities: {} });
    client.onclose = () => end(failed('it ended'));
    client.onerror = (error) => {
      this.options.logger.debug({ mcpServer: name, err: error }, 'from an MCP server');
    };
    const link: Link = { client, transport, ready: false, why: null, ended, end };
    return link;
  }

  private async open(link: Link): Promise<void> {
    const { client, transport } = link;
    await client.connect(transport, { timeout: LIMITS.mcpConnectTimeoutMs });
    link.ready = true;
    let listing: Promise<void> = this.list(link);
    let waits = false;
    client.setNotificationHandler(ToolListChangedNotificationSchema, () => {
      // However often it says so: one list is under way and one waits.
      if (waits) return;
      waits = true;
      listing = listing
        .then(() => sleep(LIMITS.mcpListPauseMs, undefined, { signal: this.stopping.signal }))
        .then(() => {
          waits = false;
          return this.list(link);
        });
      listing.catch((thrown: unknown) => link.end(failure(thrown)));
    });
    await listing;
  }

  private async list({ client }: Link): Promise<void> {
    const { declaration, onTools, logger } = this.options;
    const { signal } = this.stopping;
    const waitMs = this.listAt - performance.now();
    if (waitMs > 0) await sleep(waitMs, undefined, { signal });
    const startedAt = performance.now();
    const offersTools = client.getServerCapabilities()?.tools !== undefined;
    const listed = offersTools ? await listedTools(client) : [];
    const offered = offeredTools(declaration, listed, (...call) => this.call(...call));
    if (signal.aborted) return;
    const { refused } = offered;
    if (refused.length > 0) {
      logger.warn({ mcpServer: declaration.name, refused }, 'tools of an MCP server are left out');
    }
    await onTools(offered.tools, signal);
    const endedAt = performance.now();
    const pauseMs = (endedAt - startedAt) * LIMITS.mcpListPauseRatio;
    this.listAt = endedAt + Math.min(pauseMs, LIMITS.mcpListPauseMaxMs);
  }

  private async call(
    name: string,
    args: Record<string, unknown>,
    signal: AbortSignal,
  ): Promise<string> {
    const { name: server, timeoutMs } = this.options.declaration;
    const named = ({ code, message }: AppError): AppError =>
      new AppError(code, `the MCP server ${server}: ${message}`);
    const { link } = this;
    if (link?.ready !== true) throw named(failed(`not connected (${this.down.message})`));
    const request = { method: 'tools/call', params: { name, arguments: args } } as const;
    // The caller's own time-out comes first, and tells the server that the call is cancelled.
    const timeout = timeoutMs + LIMITS.mcpCloseStepMs;
    let result;
    try {
      result = await link.client.request(request, CallToolResultSchema, { signal, timeout });
    } catch (thrown) {
      signal.throwIfAborted();
      // It did not get there, and nothing else on this connection will.
      if (isTransportFailure(thrown)) link.end(failure(thrown));
      throw named(link.why ?? failure(thrown));
    }
    const text = resultText(result);
    if (result.isError === true) throw failed(text);
    return text;
  }
}

async function listedTools(client: Client): Promise<Listed[]> {
  const listed: Listed[] = [];
  const max = LIMITS.mcpToolsMax;
  let cursor: string | undefined;
  for (let pages = 0; pages === 0 || cursor !== undefined; pages++) {
    const params = cursor === undefined ? {} : { cursor };
    const request = { method: 'tools/list', params } as const;
    const options = { timeout: LIMITS.mcpConnectTimeoutMs };
    const page = await client.request(request, ListToolsResultSchema, options);
    listed.push(...page.tools);
    cursor = page.nextCursor;
    if (listed.length > max || pages > max) throw failed(`it lists more than ${max} tools`);
  }
  return listed;
}

/** `inOrder`: the other side is told, where it keeps a session. */
async function close({ client, transport }: Link, options: { inOrder: boolean }): Promise<void> {
  if (options.inOrder && !(transport instanceof StdioTransport)) {
    const patience = sleep(LIMITS.mcpCloseStepMs, undefined, { ref: false });
    await Promise.race([transport.terminateSession().catch(() => undefined), patience]);
  }
  await client.close();
  // A client that never got connected has let go of its transport already.
  await transport.close();
}

function failed(message: string): AppError {
  return new AppError('tool_failed', message);
}

function failure(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (isOfWrongForm(thrown)) return failed('its answer is not of the form that MCP demands');
  const { message } = toAppError(thrown);
  const late = thrown instanceof McpError && thrown.code === Number(ErrorCode.RequestTimeout);
  return new AppError(late ? 'tool_timeout' : 'tool_failed', message);
}

function isTransportFailure(thrown: unknown): boolean {
  if (thrown instanceof AppError) return thrown.code !== 'tool_timeout';
  return !(thrown instanceof McpError) && !isOfWrongForm(thrown);
}

/** The SDK checks answers with zod, whose errors list issues. */
function isOfWrongForm(thrown: unknown): boolean {
  return thrown instanceof Error && Array.isArray((thrown as { issues?: unknown }).issues);
}
