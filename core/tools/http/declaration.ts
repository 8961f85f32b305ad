/**
 * What an operator declares of an HTTP operation that the agent may call as a tool. The address is
 * a template: arguments fill parts of its path and query, never the host. Secrets stand in the
 * environment; the declaration has their names.
 */
import { AppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';

export const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;
export type Method = (typeof METHODS)[number];

export interface HttpOperation {
  name: string;
  description: string;
  method: Method;
  /** With `{name}` where an argument goes. */
  url: string;
  /** JSON Schema of the arguments. */
  parameters: Record<string, unknown>;
  /** By names in lower case. */
  headers: Readonly<Record<string, string>>;
  effects: 'none' | 'writes';
  timeoutMs: number;
  retriesMax: number;
  /** Whether addresses of this machine and its networks may be reached. */
  allowPrivate: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;
type Demand = (fits: boolean, key: string, form: string) => void;

const KEYS = [
  ...['name', 'description', 'method', 'url', 'parameters', 'headers', 'effects', 'timeout_ms'],
  ...['retries', 'allow_private'],
];
const RETRIES_MAX = 5;
/** Those that say how a message is sent. */
const HEADERS_REFUSED =
  /^(host|connection|content-length|transfer-encoding|upgrade|te|trailer|expect|keep-alive)$/i;

/** The arguments that a template names. */
export function placeholders(template: string): string[] {
  return [...template.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string);
}

/**
 * Reads the list `http` of a tools file. `where` names the file in errors.
 * @throws AppError config_invalid that names the place and what must be there.
 */
export function parseHttpOperations(
  list: unknown,
  environment: Environment,
  where: string,
): HttpOperation[] {
  if (!Array.isArray(list)) throw refusal(`${where}: http must be a list of operations`);
  const operations = list.map((entry, i) =>
    parseOperation(entry, environment, `${where}: http[${i}]`),
  );
  const names = operations.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw refusal(`${where}: two http operations are called ${twice}`);
  return operations;
}

function parseOperation(entry: unknown, environment: Environment, where: string): HttpOperation {
  const demand: Demand = (fits, key, form) => {
    if (!fits) throw refusal(`${where}.${key} must be ${form}`);
  };
  if (!isObject(entry)) throw refusal(`${where} must be an object`);
  const unknown = Object.keys(entry).find((key) => !KEYS.includes(key));
  if (unknown !== undefined) {
    throw refusal(`${where}.${unknown} is not known; known are ${KEYS.join(', ')}`);
  }
  const { name, description, method = 'GET', effects = 'writes', retries = 0 } = entry;
  const { timeout_ms: timeoutMs = LIMITS.httpTimeoutMs, allow_private: allowPrivate = false } =
    entry;
  const named = typeof name === 'string' && /^[a-zA-Z0-9_-]{1,64}$/.test(name);
  demand(named, 'name', '1 to 64 letters, digits, _ or -');
  const { toolDescriptionCharsMax: charsMax } = LIMITS;
  const described = typeof description === 'string' && description.length <= charsMax;
  demand(described && description !== '', 'description', `a text of at most ${charsMax} letters`);
  demand(METHODS.includes(method as Method), 'method', `one of ${METHODS.join(', ')}`);
  demand(effects === 'none' || effects === 'writes', 'effects', 'none or writes');
  demand(isInteger(timeoutMs, 1, LIMITS.toolTimeoutMs), 'timeout_ms', upTo(LIMITS.toolTimeoutMs));
  demand(isInteger(retries, 0, RETRIES_MAX), 'retries', `an integer from 0 to ${RETRIES_MAX}`);
  demand(retries === 0 || effects === 'none', 'retries', '0 with effects: it could act twice');
  demand(typeof allowPrivate === 'boolean', 'allow_private', 'true or false');
  const parameters = parametersOf(entry, demand);
  return {
    name: name as string,
    description: description as string,
    method: method as Method,
    url: urlOf(entry, parameters, demand),
    parameters,
    headers: headersOf(entry, environment, demand),
    effects: effects as 'none' | 'writes',
    timeoutMs: timeoutMs as number,
    retriesMax: retries as number,
    allowPrivate: allowPrivate as boolean,
  };
}

function parametersOf(entry: Record<string, unknown>, demand: Demand): Record<string, unknown> {
  const { parameters = { type: 'object', properties: {}, additionalProperties: false } } = entry;
  const isSchema = isObject(parameters) && parameters.type === 'object';
  demand(isSchema, 'parameters', 'a JSON Schema of type object');
  const { properties = {} } = parameters as Record<string, unknown>;
  demand(isObject(properties), 'parameters.properties', 'an object');
  return parameters as Record<string, unknown>;
}

function urlOf(
  { url }: Record<string, unknown>,
  { properties, required }: Record<string, unknown>,
  demand: Demand,
): string {
  const form = 'an http or https address; only its path and query may have {arguments}';
  const text = typeof url === 'string' ? url : '';
  const [, origin = ''] = /^(https?:\/\/[^/?#{}\s]+)(?:[/?]|$)/.exec(text) ?? [];
  const filled = text.replaceAll(/\{\w+\}/g, 'x');
  demand(origin !== '' && URL.canParse(filled) && !/[{}#\s]/.test(filled), 'url', form);
  const { username, password } = new URL(filled);
  demand(username === '' && password === '', 'url', 'without a user; use the header Authorization');
  for (const name of placeholders(text)) {
    const known = isObject(properties) && Object.hasOwn(properties, name);
    demand(known, 'parameters', `a schema that has the property ${name}, which url names`);
    const always = Array.isArray(required) && required.includes(name);
    demand(always, 'parameters', `a schema that requires ${name}, which url names`);
  }
  return text;
}

function headersOf(
  { headers = {} }: Record<string, unknown>,
  environment: Environment,
  demand: Demand,
): Record<string, string> {
  const areTexts =
    isObject(headers) && Object.values(headers).every((value) => typeof value === 'string');
  demand(areTexts, 'headers', 'names with texts');
  const filled = Object.entries(headers as Record<string, string>).map(([name, text]) => {
    const isName = /^[\w!#$%&'*+.^`|~-]+$/.test(name) && !HEADERS_REFUSED.test(name);
    demand(isName, 'headers', `names of headers that may be set; ${name} is not`);
    const value = text.replaceAll(/\$\{(\w+)\}/g, (_, variable: string) => {
      const found = environment[variable];
      demand(found !== undefined, 'headers', `of variables that are set; ${variable} is not`);
      return found ?? '';
    });
    // eslint-disable-next-line no-control-regex
    demand(/^[^\u0000-\u0008\u000a-\u001f\u007f\u0100-\uffff]*$/.test(value), 'headers', SENDABLE);
    return [name.toLowerCase(), value] as const;
  });
  const names = filled.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  demand(twice === undefined, 'headers', `names that differ in more than case; ${twice} is twice`);
  return Object.fromEntries(filled);
}

const SENDABLE = 'of signs that a header may have';

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isInteger = (value: unknown, min: number, max: number): boolean =>
  Number.isInteger(value) && (value as number) >= min && (value as number) <= max;

const upTo = (max: number): string => `an integer from 1 to ${max}`;

function refusal(message: string): AppError {
  return new AppError('config_invalid', message);
}
