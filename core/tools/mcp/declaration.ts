/**
 * What an operator declares of an MCP server whose tools the agent may call. The server may be a
 * stranger's, so nothing that it says of itself is believed unless the declaration says so. Secrets
 * stand in the environment; the declaration has their names.
 */
import { AppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';

/** A program that is started and talked to over its standard input and output. */
export interface McpCommand {
  command: string;
  args: readonly string[];
  /** All that it gets of the environment. */
  environment: Readonly<Record<string, string>>;
}

/** A server that is reached over streamable HTTP. */
export interface McpAddress {
  url: string;
  headers: Readonly<Record<string, string>>;
}

export type Effects = 'none' | 'writes';

export interface McpServerDeclaration {
  /** Of letters, digits and `-`, so that it can be told from the tool's name behind it. */
  name: string;
  reach: McpCommand | McpAddress;
  /** Tools that may be called, by the server's names; null: all. */
  tools: readonly string[] | null;
  /** Of tools that `effects` does not name; `annotations`: as the server says of each. */
  defaultEffects: Effects | 'annotations';
  effects: ReadonlyMap<string, Effects>;
  timeoutMs: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** What every program needs to find others, its files and its language. */
const ALWAYS_PASSED = ['PATH', 'HOME', 'LANG', 'TMPDIR', 'SYSTEMROOT'];
const KEYS = ['name', 'command', 'args', 'env', 'url', 'headers', 'tools', 'effects', 'timeout_ms'];

/**
 * Reads the list `mcp` of a tools file. `where` names the file in errors.
 * @throws AppError config_invalid that names the place and what must be there.
 */
export function parseMcpServers(
  list: unknown,
  environment: Environment,
  where: string,
): McpServerDeclaration[] {
  if (!Array.isArray(list)) throw refusal(`${where}: mcp must be a list of servers`);
  return list.map((entry, i) => parseServer(entry, environment, `${where}: mcp[${i}]`));
}

function parseServer(
  entry: unknown,
  environment: Environment,
  where: string,
): McpServerDeclaration {
  const demand = (fits: boolean, key: string, form: string): void => {
    if (!fits) throw refusal(`${where}.${key} must be ${form}`);
  };
  if (!isObject(entry)) throw refusal(`${where} must be an object`);
  const unknown = Object.keys(entry).find((key) => !KEYS.includes(key));
  if (unknown !== undefined) {
    throw refusal(`${where}.${unknown} is not known; known are ${KEYS.join(', ')}`);
  }
  const { name, command, url, tools = null, effects = {} } = entry;
  const { timeout_ms: timeoutMs = LIMITS.toolTimeoutMs } = entry;
  demand(matches(/^[a-zA-Z0-9-]{1,24}$/, name), 'name', '1 to 24 letters, digits or -');
  demand((command === undefined) !== (url === undefined), 'command', 'given, or else url');
  demand(tools === null || isTexts(tools), 'tools', 'a list of tool names');
  const isEffect = ([tool, value]: [string, unknown]): boolean =>
    value === 'none' || value === 'writes' || (tool === 'default' && value === 'annotations');
  demand(
    isObject(effects) && Object.entries(effects).every(isEffect),
    'effects',
    'tool names with none or writes, and default with none, writes or annotations',
  );
  const most = LIMITS.agentRunTimeoutMs;
  demand(
    Number.isInteger(timeoutMs) && Number(timeoutMs) >= 1 && Number(timeoutMs) <= most,
    'timeout_ms',
    `an integer from 1 to ${most}`,
  );
  const { default: defaultEffects = 'writes', ...byTool } = effects as Record<string, Effects>;
  return {
    name: name as string,
    reach:
      url === undefined
        ? commandOf(entry, environment, demand)
        : addressOf(entry, environment, demand),
    tools: tools as string[] | null,
    defaultEffects,
    effects: new Map(Object.entries(byTool)),
    timeoutMs: Number(timeoutMs),
  };
}

type Demand = (fits: boolean, key: string, form: string) => void;

function commandOf(
  { command, args = [], env = [], headers }: Record<string, unknown>,
  environment: Environment,
  demand: Demand,
): McpCommand {
  demand(typeof command === 'string' && command !== '', 'command', 'a program');
  demand(isTexts(args), 'args', 'a list of texts');
  demand(isTexts(env), 'env', 'a list of names of environment variables');
  demand(headers === undefined, 'headers', 'left out with command');
  const passed = new Map<string, string>();
  for (const name of [...ALWAYS_PASSED, ...(env as string[])]) {
    const value = environment[name];
    if (value !== undefined) passed.set(name, value);
    else demand(ALWAYS_PASSED.includes(name), 'env', `variables that are set; ${name} is not`);
  }
  return {
    command: command as string,
    args: args as string[],
    environment: Object.fromEntries(passed),
  };
}

function addressOf(
  { url, headers = {}, args, env }: Record<string, unknown>,
  environment: Environment,
  demand: Demand,
): McpAddress {
  const address = typeof url === 'string' && URL.canParse(url) ? new URL(url) : null;
  const isWeb = address?.protocol === 'http:' || address?.protocol === 'https:';
  demand(isWeb, 'url', 'an http or https address');
  demand(args === undefined && env === undefined, 'args', 'left out with url, and env too');
  demand(isObject(headers) && isTexts(Object.values(headers)), 'headers', 'names with texts');
  const filled = Object.entries(headers as Record<string, string>).map(([name, text]) => {
    const value = text.replaceAll(/\$\{(\w+)\}/g, (_, variable: string) => {
      const found = environment[variable];
      demand(found !== undefined, 'headers', `of variables that are set; ${variable} is not`);
      return found ?? '';
    });
    return [name, value] as const;
  });
  return { url: url as string, headers: Object.fromEntries(filled) };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'string');

const matches = (pattern: RegExp, value: unknown): boolean =>
  typeof value === 'string' && pattern.test(value);

function refusal(message: string): AppError {
  return new AppError('config_invalid', message);
}
