/**
 * The tools that an MCP server lists, as tools of the agent: named `server__tool` in the letters
 * that policies and OpenAI's clients can write, only those that the declaration allows, and with
 * effects unless the declaration says otherwise. What does not fit is left out and told.
 */
import { createHash } from 'node:crypto';
import type { Tool as Listed } from '@modelcontextprotocol/sdk/types.js';
import { LIMITS } from '../../limits.ts';
import type { Tool } from '../../ports.ts';
import type { Effects, McpServerDeclaration } from './declaration.ts';

export interface OfferedTools {
  tools: Tool[];
  /** What was left out, and why. */
  refused: string[];
}

export type CallTool = (
  name: string,
  args: Record<string, unknown>,
  signal: AbortSignal,
) => Promise<string>;

const NAME_CHARS_MAX = 64;

export function offeredTools(
  declaration: McpServerDeclaration,
  listed: readonly Listed[],
  call: CallTool,
): OfferedTools {
  const tools = new Map<string, Tool>();
  const refused: string[] = [];
  for (const definition of listed) {
    if (declaration.tools?.includes(definition.name) === false) continue;
    const tool = agentTool(declaration, definition, call);
    const fault = tools.has(tool.name) ? 'is listed twice' : faultOf(definition);
    if (fault === null) tools.set(tool.name, tool);
    else refused.push(`${definition.name.slice(0, NAME_CHARS_MAX)} ${fault}`);
  }
  for (const name of declaration.tools ?? []) {
    if (!listed.some((tool) => tool.name === name)) refused.push(`${name} is not on the server`);
  }
  return { tools: [...tools.values()], refused };
}

/** A name that had to be changed ends in a hash of the true one, so that no two become one. */
export function agentToolName(server: string, tool: string): string {
  const plain = `${server}__${tool}`;
  if (/^[a-zA-Z0-9_-]{1,64}$/.test(plain)) return plain;
  const hash = createHash('sha256').update(tool).digest('hex').slice(0, 8);
  const valid = plain.replaceAll(/[^a-zA-Z0-9_-]/g, '_');
  return `${valid.slice(0, NAME_CHARS_MAX - hash.length - 1)}_${hash}`;
}

function agentTool(declaration: McpServerDeclaration, definition: Listed, call: CallTool): Tool {
  const { name, title, description = title ?? '', inputSchema } = definition;
  return {
    name: agentToolName(declaration.name, name),
    description: description.slice(0, LIMITS.toolDescriptionCharsMax),
    parameters: inputSchema,
    primaryArgument: primaryArgument(inputSchema),
    effects: effectsOf(declaration, definition),
    timeoutMs: declaration.timeoutMs,
    run: (args, signal) => call(name, args, signal),
  };
}

function faultOf({ inputSchema, execution }: Listed): string | null {
  if (execution?.taskSupport === 'required') return 'can only be called as a task';
  const size = JSON.stringify(inputSchema).length;
  const max = LIMITS.toolSchemaCharsMax;
  return size > max ? `has a schema of ${size} characters, of ${max} at most` : null;
}

function effectsOf(declaration: McpServerDeclaration, { name, annotations }: Listed): Effects {
  const declared = declaration.effects.get(name) ?? declaration.defaultEffects;
  if (declared !== 'annotations') return declared;
  return annotations?.readOnlyHint === true ? 'none' : 'writes';
}

/** The string that says most of a call: the first required one, else the first. */
function primaryArgument({ properties = {}, required = [] }: Listed['inputSchema']): string {
  const strings = Object.entries(properties)
    .filter(([, schema]) => (schema as { type?: unknown }).type === 'string')
    .map(([name]) => name);
  return strings.find((name) => required.includes(name)) ?? strings[0] ?? '';
}
