/**
 * What a chat request demands of the answer's form: `tool_choice` and `response_format`. It is
 * checked against the policy before any work starts, each schema by itself, so that a mistake is
 * told with its field.
 */
import { AppError, toAppError } from '../core/errors.ts';
import type { ToolSpec } from '../core/ports.ts';
import type { Constraint, JsonSchema } from '../core/records.ts';
import { CompileBudget } from '../core/text/compile-budget.ts';
import { compileConstraint } from '../core/text/constraint.ts';
import type { AnswerForm, Protocol } from '../core/text/types.ts';
import type { Schemas } from './handlers.ts';

type ToolChoice = Exclude<Schemas['ToolChoice'], { type: 'allowed_tools' }>;

interface Body {
  tool_choice?: ToolChoice;
  response_format?: Schemas['ResponseFormat'] | null;
  min_tokens?: number | null;
}

/**
 * The tools that an answer may call, and the choice among them.
 * @throws AppError invalid_request for an allowed tool that is not offered.
 */
export function chosenTools(
  choice: Schemas['ToolChoice'] | undefined,
  tools: readonly ToolSpec[],
): { tools: readonly ToolSpec[]; choice: ToolChoice } {
  if (typeof choice !== 'object' || choice?.type !== 'allowed_tools') {
    return { tools, choice: choice ?? null };
  }
  const { mode, tools: allowed } = choice.allowed_tools;
  const names = new Set(allowed.map((tool) => tool.function?.name ?? ''));
  for (const name of names) {
    if (!tools.some((tool) => tool.name === name)) throw noTool(name);
  }
  return { tools: tools.filter(({ name }) => names.has(name)), choice: mode };
}

/**
 * Null: the policy writes what it likes. `tools`: those that are offered.
 * @throws AppError invalid_request when no such tool is offered.
 */
export function answerForm(body: Body, tools: readonly ToolSpec[]): AnswerForm | null {
  const form = demanded(body, tools);
  if (form !== null && (body.min_tokens ?? 0) > 0) {
    throw new AppError('invalid_request', 'min_tokens does not go with a demanded form', {
      param: 'min_tokens',
    });
  }
  return form;
}

function demanded(body: Body, tools: readonly ToolSpec[]): AnswerForm | null {
  const { tool_choice: choice } = body;
  if (choice === 'required') {
    if (tools.length > 0) return { calls: tools, answer: null };
    throw wrongChoice('a call is required, but there are no tools');
  }
  if (typeof choice === 'object' && choice !== null) {
    const { name } = choice.function;
    const tool = tools.find((one) => one.name === name);
    if (tool !== undefined) return { calls: [tool], answer: null };
    throw noTool(name);
  }
  const answer = answerSchema(body.response_format);
  return answer === null ? null : { calls: tools, answer };
}

function answerSchema(format: Body['response_format']): JsonSchema | null {
  if (format === undefined || format === null || format.type === 'text') return null;
  const schema = 'json_schema' in format ? format.json_schema.schema : undefined;
  return schema ?? { type: 'object' };
}

/** @throws AppError invalid_request that names the schema's field and the keyword at fault. */
export function requireWritable(
  protocol: Protocol,
  form: AnswerForm,
  answerField = 'response_format',
): void {
  const budget = new CompileBudget();
  for (const tool of form.calls) {
    const part = protocol.constrain({ calls: [tool], answer: null }, '');
    requirePart(part, `tools: ${tool.name}`, budget);
  }
  if (form.answer !== null) {
    requirePart(protocol.constrain({ calls: [], answer: form.answer }, ''), answerField, budget);
  }
}

/** @throws AppError unsupported_parameter */
export function requireOneCall({ name, opening }: Protocol): void {
  // With the tag protocol a step ends with its call.
  if (opening === null || opening.callEnd !== null || name === 'plain') return;
  throw new AppError(
    'unsupported_parameter',
    'parallel_tool_calls: this policy may make several calls a step; false is not offered',
    { param: 'parallel_tool_calls' },
  );
}

function requirePart(part: Constraint, param: string, budget: CompileBudget): void {
  try {
    compileConstraint(part, budget);
  } catch (thrown) {
    const { code, message, param: named } = toAppError(thrown);
    if (code !== 'invalid_request' || named !== null) throw thrown;
    throw new AppError(code, `${param}: ${message}`, {
      param: param.replace(/:.*/, ''),
      cause: thrown,
    });
  }
}

function noTool(name: string): AppError {
  return wrongChoice(`there is no tool '${name}' among the tools`);
}

function wrongChoice(why: string): AppError {
  return new AppError('invalid_request', `tool_choice: ${why}`, { param: 'tool_choice' });
}
