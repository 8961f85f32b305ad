/**
 * The file that RAMIFY_TOOLS names: tools of the agent beside the built-in ones. JSON, so that
 * programs can write it, or YAML, for people; secrets stand in the environment, and the file has
 * their names.
 */
import { parse } from 'yaml';
import { AppError, toAppError } from '../core/errors.ts';
import { readJsonFile, readTextFile } from '../core/json-file.ts';
import { LIMITS } from '../core/limits.ts';
import { parseHttpOperations } from '../core/tools/http/declaration.ts';
import type { HttpOperation } from '../core/tools/http/declaration.ts';
import { parseMcpServers } from '../core/tools/mcp/declaration.ts';
import type { McpServerDeclaration } from '../core/tools/mcp/declaration.ts';

export interface DeclaredTools {
  mcp: readonly McpServerDeclaration[];
  http: readonly HttpOperation[];
}

export const NO_TOOLS: DeclaredTools = { mcp: [], http: [] };

/** @throws AppError config_invalid that names the file, the place in it and what must be there. */
export function readToolsFile(
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
): DeclaredTools {
  const file = contentOf(path);
  if (typeof file !== 'object' || file === null || Array.isArray(file)) {
    throw new AppError('config_invalid', `${path}: must be an object with lists mcp and http`);
  }
  const { mcp = [], http = [], ...others } = file as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new AppError('config_invalid', `${path}: ${unknown} is not known; known are mcp, http`);
  }
  return {
    mcp: parseMcpServers(mcp, environment, path),
    http: parseHttpOperations(http, environment, path),
  };
}

function contentOf(path: string): unknown {
  try {
    if (!/\.ya?ml$/.test(path)) return readJsonFile(path);
    const text = readTextFile(path, LIMITS.modelJsonBytesMax);
    return yamlOf(path, text);
  } catch (thrown) {
    const { message } = toAppError(thrown);
    throw new AppError('config_invalid', `RAMIFY_TOOLS: ${message}`, { cause: thrown });
  }
}

function yamlOf(path: string, text: string): unknown {
  try {
    return parse(text);
  } catch (cause) {
    const why = toAppError(cause).message.split('\n')[0] ?? '';
    throw new AppError('config_invalid', `${path}: is not valid YAML: ${why}`, { cause });
  }
}
