/**
 * Connects the tools that RAMIFY_TOOLS declares, for the server, the command line and the trainer.
 * Their libraries cost a quarter of a second and 20 MB: they are loaded only where there are any.
 */
import type { Logger } from '../core/log.ts';
import type { HttpOperation } from '../core/tools/http/declaration.ts';
import type { McpServerDeclaration } from '../core/tools/mcp/declaration.ts';
import type { ToolRegistry } from '../core/tools/registry.ts';
import type { DeclaredTools } from './tools-file.ts';

export interface ConnectOptions {
  logger: Logger;
  /** The tools of a server that is slower come later. */
  waitMs: number;
}

/** Puts the tools into the registry and keeps them up to date, until the returned end is called. */
export async function connectTools(
  registry: ToolRegistry,
  { mcp, http }: DeclaredTools,
  options: ConnectOptions,
): Promise<() => Promise<void>> {
  const endHttp = await addHttpTools(registry, http);
  try {
    const endMcp = await connectMcpServers(registry, mcp, options);
    return async () => {
      await Promise.all([endHttp(), endMcp()]);
    };
  } catch (thrown) {
    await endHttp();
    throw thrown;
  }
}

/** @throws AppError config_invalid for a schema that does not compile, or a name that is taken. */
async function addHttpTools(
  registry: ToolRegistry,
  operations: readonly HttpOperation[],
): Promise<() => Promise<void>> {
  if (operations.length === 0) return async () => undefined;
  const { httpTools } = await import('../core/tools/http/http-tools.ts');
  const made = httpTools(operations);
  for (const tool of made.tools) registry.add(tool);
  return () => made.stop();
}

async function connectMcpServers(
  registry: ToolRegistry,
  mcp: readonly McpServerDeclaration[],
  { logger, waitMs }: ConnectOptions,
): Promise<() => Promise<void>> {
  if (mcp.length === 0) return async () => undefined;
  const { McpServers } = await import('../core/tools/mcp/mcp-servers.ts');
  const servers = new McpServers(mcp, {
    onTools: (server, tools, signal) => registry.replaceGroupInTurns(server, tools, signal),
    logger,
  });
  await servers.settled(waitMs);
  return () => servers.stop();
}

/** Those of which training may call a tool: it calls none that has effects, and connects none. */
export function toolsForTraining({ mcp, http }: DeclaredTools): DeclaredTools {
  return { mcp: mcp.filter(mayBeFree), http };
}

function mayBeFree({ defaultEffects, effects }: McpServerDeclaration): boolean {
  return defaultEffects !== 'writes' || [...effects.values()].includes('none');
}
