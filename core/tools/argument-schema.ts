/**
 * The JSON Schema of a tool's arguments, which may be a stranger's: an MCP server's, or a file's
 * from somewhere. Compiling it can take ten seconds, and its patterns, and alternatives that refer
 * to themselves, can take exponential time; Ajv runs on this thread, and node:vm is what ends
 * JavaScript in mid-work without a thread. What was compiled once is kept while tools have it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createContext, Script } from 'node:vm';
import { Ajv } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Tool } from '../ports.ts';

/** Why arguments do not fit; null when they do. */
export type ArgumentCheck = (value: unknown) => string | null;

/** The check of a schema, or why there is none. */
export interface Compiled {
  schema: string;
  check: ArgumentCheck | Error;
}

type Named = Pick<Tool, 'name' | 'parameters'>;

export interface TurnOptions {
  signal: AbortSignal;
  /** Of one schema; of all of them. */
  schemaMs?: number;
  allMs?: number;
}

/** @throws AppError config_invalid that names the tool when there is none. */
export function checkOf({ name }: Named, { check }: Compiled): ArgumentCheck {
  if (!(check instanceof Error)) return check;
  const message = `the schema of the tool ${name}: ${check.message}`;
  throw new AppError('config_invalid', message, { cause: check });
}

/** In the order of the tools. A schema that `before` has a check of is not compiled again. */
export function compileAll(tools: readonly Named[], before: readonly Compiled[] = []): Compiled[] {
  const known = knownOf(before);
  return tools.map(({ parameters }) => compileUnlessKnown(parameters, known));
}

/**
 * The same for schemas of a stranger: others get their turn between, and half of the time, and
 * after `allMs` of work what is left has no check.
 */
export async function compileInTurns(
  tools: readonly Named[],
  before: readonly Compiled[],
  { signal, schemaMs, allMs = LIMITS.toolSchemasCompileMs }: TurnOptions,
): Promise<Compiled[]> {
  const known = knownOf(before);
  const all: Compiled[] = [];
  let [spentMs, sliceMs] = [0, 0];
  for (const { parameters } of tools) {
    const startedAt = performance.now();
    const late = spentMs > allMs ? new Error(`not compiled: ${allMs} ms were spent`) : null;
    all.push(compileUnlessKnown(parameters, known, late ?? schemaMs));
    sliceMs += performance.now() - startedAt;
    if (sliceMs < LIMITS.toolSchemaSliceMs) continue;
    await sleep(sliceMs, undefined, { signal });
    spentMs += sliceMs;
    sliceMs = 0;
  }
  return all;
}

/** A fault may have been of the hour: it is not kept. */
function knownOf(before: readonly Compiled[]): Map<string, Compiled> {
  const good = before.filter(({ check }) => !(check instanceof Error));
  return new Map(good.map((one) => [one.schema, one]));
}

function compileUnlessKnown(
  parameters: Tool['parameters'],
  known: Map<string, Compiled>,
  bound?: number | Error,
): Compiled {
  const schema = JSON.stringify(parameters);
  const there = known.get(schema);
  if (there !== undefined) return there;
  const made = { schema, check: bound instanceof Error ? bound : compiled(parameters, bound) };
  known.set(schema, made);
  return made;
}

function compiled(
  parameters: Tool['parameters'],
  timeoutMs: number = LIMITS.toolSchemaCompileMs,
): ArgumentCheck | Error {
  let validate: ValidateFunction | null;
  try {
    validate = compileSchema(parameters, timeoutMs);
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(String(thrown));
  }
  if (validate === null) return new Error(`took longer than ${timeoutMs} ms to compile`);
  return (value) => {
    const fits = withinTime(LIMITS.toolArgumentsCheckMs, () => validate(value));
    if (fits === null) return `took longer than ${LIMITS.toolArgumentsCheckMs} ms to check`;
    if (fits) return null;
    const [first] = validate.errors ?? [];
    const where = first?.instancePath ? `at ${first.instancePath} ` : '';
    return `do not fit: ${where}${first?.message ?? 'schema violated'}`;
  };
}

/** MCP servers send schemas with keywords and formats that are not in the standard. */
const LENIENT = { strict: false, validateFormats: false, logger: false } as const;

/** By what schemas are judged themselves, which takes long to compile and keeps nothing of them. */
const judges = new Map<typeof Ajv | typeof Ajv2020, Ajv | Ajv2020>();

/**
 * By the dialect that the schema names, 2020-12 where it names none that is known. With an Ajv of
 * its own: one keeps what it compiled, and strangers' schemas may share an id. Null when it took
 * too long.
 */
function compileSchema(
  { $schema: dialect, ...schema }: Tool['parameters'],
  timeoutMs: number,
): ValidateFunction | null {
  const Dialect = typeof dialect === 'string' && /\/draft-0[67]\//.test(dialect) ? Ajv : Ajv2020;
  const judge = judges.get(Dialect) ?? new Dialect(LENIENT);
  if (!judges.has(Dialect)) void judge.validateSchema({});
  judges.set(Dialect, judge);
  return withinTime(timeoutMs, () => {
    void judge.validateSchema(schema, true);
    return new Dialect({ ...LENIENT, validateSchema: false }).compile(schema);
  });
}

const scope: { work: (() => void) | null } = { work: null };
const context = createContext(scope);
const runWork = new Script('work()');

/** Null when it took too long. */
function withinTime<T>(timeoutMs: number, work: () => T): T | null {
  let result: T | null = null;
  scope.work = () => {
    result = work();
  };
  try {
    runWork.runInContext(context, { timeout: timeoutMs });
    return result;
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') return null;
    throw thrown;
  } finally {
    scope.work = null;
  }
}
