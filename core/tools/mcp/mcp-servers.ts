/**
 * All MCP servers that were declared, each connected by itself: one that is slow, down or broken
 * costs the others nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Tool } from '../../ports.ts';
import { McpConnection } from './connection.ts';
import type { McpServerDeclaration } from './declaration.ts';

export interface McpServersOptions {
  /** Told of all tools of a server when they are first known, and again when they change. */
  onTools: (server: string, tools: readonly Tool[], signal: AbortSignal) => void | Promise<void>;
  logger: Logger;
  delaysMs?: readonly number[];
}

export class McpServers {
  private readonly connections: readonly McpConnection[];

  /** Begins to connect. @throws AppError config_invalid when two have the same name. */
  constructor(declarations: readonly McpServerDeclaration[], options: McpServersOptions) {
    const names = declarations.map(({ name }) => name);
    const twice = names.find((name, i) => names.indexOf(name) < i);
    if (twice !== undefined) {
      throw new AppError('config_invalid', `two MCP servers are called ${twice}`);
    }
    this.connections = declarations.map(
      (declaration) =>
        new McpConnection({
          ...options,
          declaration,
          onTools: (tools, signal) => options.onTools(declaration.name, tools, signal),
        }),
    );
  }

  /** Resolves when each was connected or could not be, at the latest after `timeoutMs`. */
  async settled(timeoutMs: number): Promise<void> {
    const tried = Promise.all(this.connections.map((connection) => connection.tried));
    await Promise.race([tried, sleep(timeoutMs, undefined, { ref: false })]);
  }

  async stop(): Promise<void> {
    await Promise.all(this.connections.map((connection) => connection.stop()));
  }
}
