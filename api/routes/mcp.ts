/**
 * The Model Context Protocol. The SDK costs a quarter of a second and some 20 MB to load, so it is
 * loaded by the first request.
 */
import type { AppDeps } from '../app.ts';
import type { Handlers } from '../handlers.ts';
import type { McpEndpoint } from '../mcp/mcp-endpoint.ts';
import type { ToolHandlers } from '../mcp/ramify-tools.ts';

/** `handlers`: those of the operations that the tools are made of. */
export function mcpRoutes(deps: AppDeps, handlers: ToolHandlers): Pick<Handlers, 'callMcp'> {
  let endpoint: Promise<McpEndpoint> | null = null;
  const load = async (): Promise<McpEndpoint> => {
    const { McpEndpoint } = await import('../mcp/mcp-endpoint.ts');
    return new McpEndpoint(deps, handlers);
  };
  return {
    callMcp: async (input) => {
      endpoint ??= load();
      return (await endpoint).answer(input);
    },
  };
}
