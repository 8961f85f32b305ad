/**
 * The file that RAMIFY_TOOLS names: tools of the agent beside the built-in ones. JSON, so that
 * programs can write it; secrets stand in the environment, and the file has their names.
 */
import { AppError, toAppError } from '../core/errors.ts';
import { readJsonFile } from '../core/json-file.ts';
import { parseMcpServers } from '../core/tools/mcp/declaration.ts';
import type { McpServerDeclaration } from '../core/tools/mcp/declaration.ts';

export interface DeclaredTools {
  mcp: readonly McpServerDeclaration[];
}

export const NO_TOOLS: DeclaredTools = { mcp: [] };

/** @throws AppError config_invalid that names the file, the place in it and what must be there. */
export function readToolsFile(
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
): DeclaredTools {
  const file = jsonOf(path);
  if (typeof file !== 'object' || file === null || Array.isArray(file)) {
    throw new AppError('config_invalid', `${path}: must be an object with a list mcp`);
  }
  const { mcp = [], ...others } = file as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new AppError('config_invalid', `${path}: ${unknown} is not known; known is mcp`);
  }
  return { mcp: parseMcpServers(mcp, environment, path) };
}

function jsonOf(path: string): unknown {
  try {
    return readJsonFile(path);
  } catch (thrown) {
    const { message } = toAppError(thrown);
    throw new AppError('config_invalid', `RAMIFY_TOOLS: ${message}`, { cause: thrown });
  }
}
