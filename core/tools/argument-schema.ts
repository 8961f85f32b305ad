/**
 * The JSON Schema of a tool's arguments, which may be a stranger's: an MCP server's, or a file's
 * from somewhere. Its patterns, and alternatives that refer to themselves, can take exponential
 * time, and Ajv runs on this thread; node:vm is what ends JavaScript in mid-work without a thread.
 */
import { createContext, Script } from 'node:vm';
import { Ajv } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Tool } from '../ports.ts';

/** Why arguments do not fit; null when they do. */
export type ArgumentCheck = (value: unknown) => string | null;

/** @throws AppError config_invalid when the schema does not compile. */
export function argumentCheck(tool: Pick<Tool, 'name' | 'parameters'>): ArgumentCheck {
  const validate = compileSchema(tool);
  return (value) => {
    const fits = withinTime(() => validate(value));
    if (fits === null) return `took longer than ${LIMITS.toolArgumentsCheckMs} ms to check`;
    if (fits) return null;
    const [first] = validate.errors ?? [];
    const where = first?.instancePath ? `at ${first.instancePath} ` : '';
    return `do not fit: ${where}${first?.message ?? 'schema violated'}`;
  };
}

/**
 * By the dialect that the schema names, 2020-12 where it names none that is known. With an Ajv of
 * its own: one keeps what it compiled, and strangers' schemas may share an id.
 */
function compileSchema({ name, parameters }: Pick<Tool, 'name' | 'parameters'>): ValidateFunction {
  const { $schema: dialect, ...schema } = parameters;
  // MCP servers send schemas with keywords and formats that are not in the standard.
  const options = { strict: false, validateFormats: false, logger: false } as const;
  const old = typeof dialect === 'string' && /\/draft-0[67]\//.test(dialect);
  try {
    return (old ? new Ajv(options) : new Ajv2020(options)).compile(schema);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AppError('config_invalid', `the schema of the tool ${name}: ${why}`, {
      cause: error,
    });
  }
}

const scope: { work: (() => void) | null } = { work: null };
const context = createContext(scope);
const runWork = new Script('work()');

/** Null when it took too long. */
function withinTime(work: () => boolean): boolean | null {
  let result = false;
  scope.work = () => {
    result = work();
  };
  try {
    runWork.runInContext(context, { timeout: LIMITS.toolArgumentsCheckMs });
    return result;
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') return null;
    throw thrown;
  } finally {
    scope.work = null;
  }
}
