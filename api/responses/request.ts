/**
 * What a client asks of a response, read from the body that the contract has checked: tools, the
 * form of the answer, and the settings that the response repeats.
 */
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { ToolRunner, ToolSpec } from '../../core/ports.ts';
import type { JsonSchema } from '../../core/records.ts';
import type { AnswerForm } from '../../core/text/types.ts';
import { checkServerTools } from '../agent-run-request.ts';
import { clientTools } from '../chat-request.ts';
import type { Schemas } from '../handlers.ts';

export type Body = Schemas['ResponseRequest'];
type Tool = Schemas['ResponseFunction'] | Schemas['ResponseServerTools'];

/** By which OpenAI's clients name this server among MCP servers. */
export const SERVER_LABEL = 'ramify';

export interface OfferedTools {
  /** Tools of this server. */
  names: readonly string[];
  /** Functions that the client runs. */
  functions: readonly ToolSpec[];
  /** All of them, in the order of the prompt. */
  specs: readonly ToolSpec[];
}

/** @throws AppError invalid_request for a name given twice; unknown_tool */
export function offeredTools(body: Body, tools: ToolRunner): OfferedTools {
  const sent = body.tool_choice === 'none' ? [] : ((body.tools ?? []) as Tool[]);
  const names = sent.flatMap((tool) => (tool.type === 'mcp' ? toolNames(tool) : []));
  checkServerTools(tools, names);
  const wanted = sent.flatMap((tool) => (tool.type === 'mcp' ? [] : asked(tool)));
  const all = [...names, ...wanted.map((tool) => tool.function.name)];
  const twice = all.find((name, i) => all.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new AppError('invalid_request', `tools: '${twice}' is given twice`, { param: 'tools' });
  }
  const functions = clientTools(wanted);
  return allowedTools(body, { names, functions, specs: [...tools.specs(names), ...functions] });
}

/** Those that the choice lets through. @throws AppError invalid_request for one not offered. */
function allowedTools({ tool_choice: choice }: Body, offered: OfferedTools): OfferedTools {
  if (typeof choice !== 'object' || choice?.type !== 'allowed_tools') return offered;
  if (choice.mode === undefined || choice.tools === undefined) {
    throw wrongChoice('allowed_tools needs mode and tools');
  }
  const allowed = new Set(choice.tools.flatMap((one) => demandedTools(one, offered)));
  const specs = offered.specs.filter((one) => allowed.has(one));
  const names = offered.names.filter((name) => specs.some((one) => one.name === name));
  return { names, functions: specs.slice(names.length), specs };
}

function toolNames({ allowed_tools: allowed }: Schemas['ResponseServerTools']): string[] {
  return Array.isArray(allowed) ? allowed : allowed.tool_names;
}

/** As chat completions name it. */
function asked(tool: Schemas['ResponseFunction']): Schemas['FunctionTool'] {
  const { name, description, parameters } = tool;
  return {
    type: 'function',
    function: { name, ...(description && { description }), ...(parameters && { parameters }) },
  };
}

/** What is demanded of the first step, and of those behind results of this server's tools. */
export interface DemandedForms {
  first: AnswerForm | null;
  later: AnswerForm | null;
}

/** @throws AppError invalid_request when no such tool is offered. */
export function demandedForms(body: Body, tools: OfferedTools): DemandedForms {
  const schema = answerSchema(body.text?.format);
  const later = schema === null ? null : { calls: tools.specs, answer: schema };
  const calls = demandedCalls(body, tools);
  return { first: calls === null ? later : { calls, answer: null }, later };
}

/** Null: no call is demanded. */
function demandedCalls(
  { tool_choice: choice }: Body,
  offered: OfferedTools,
): readonly ToolSpec[] | null {
  const mode =
    typeof choice === 'object' && choice?.type === 'allowed_tools' ? choice.mode : choice;
  if (mode === undefined || mode === null || mode === 'auto' || mode === 'none') return null;
  if (mode === 'required') {
    if (offered.specs.length > 0) return offered.specs;
    throw wrongChoice('a call is required, but there are no tools');
  }
  return demandedTools(mode, offered);
}

/** The tool that is meant; of this server without a name: all of its. */
function demandedTools(
  { type, name = null }: { type: string; name?: string | null },
  { names, functions, specs }: OfferedTools,
): readonly ToolSpec[] {
  const among = type === 'function' ? functions : specs.slice(0, names.length);
  const wanted = name === null && type === 'mcp' ? among : among.filter((one) => one.name === name);
  if (wanted.length > 0) return wanted;
  throw wrongChoice(`there is no ${type} tool '${name ?? ''}' among the tools`);
}

function wrongChoice(why: string): AppError {
  return new AppError('invalid_request', `tool_choice: ${why}`, { param: 'tool_choice' });
}

function answerSchema(format: Schemas['ResponseTextFormat'] | undefined): JsonSchema | null {
  if (format === undefined || format.type === 'text') return null;
  return format.type === 'json_schema' ? format.schema : { type: 'object' };
}

/** The fields of a request that its response repeats, as they hold. */
export type Settings = Pick<
  Schemas['ResponseObject'],
  | 'background'
  | 'instructions'
  | 'max_output_tokens'
  | 'max_tool_calls'
  | 'parallel_tool_calls'
  | 'store'
  | 'temperature'
  | 'text'
  | 'tool_choice'
  | 'tools'
  | 'top_logprobs'
  | 'top_p'
  | 'metadata'
>;

export function settingsOf(body: Body, sampled: { temperature: number; topP: number }): Settings {
  return {
    background: body.background === true,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    store: isStored(body),
    temperature: sampled.temperature,
    text: { format: body.text?.format ?? { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: body.tools ?? [],
    top_logprobs: body.top_logprobs ?? 0,
    top_p: sampled.topP,
    metadata: body.metadata ?? {},
  };
}

export function isStored({ store }: Body): boolean {
  return store !== false;
}

export function maxToolCalls({ max_tool_calls: asked }: Body): number {
  return asked ?? LIMITS.toolCallsDefault;
}

/** Whether messages have the figures of their tokens. */
export function hasLogprobs({ include }: Body): boolean {
  return include?.includes('message.output_text.logprobs') === true;
}

/** @throws AppError invalid_request for fields that do not go together. */
export function checkTogether(body: Body): void {
  if ((body.top_logprobs ?? 0) > 0 && !hasLogprobs(body)) {
    const message = 'top_logprobs: include must have message.output_text.logprobs to go with it';
    throw new AppError('invalid_request', message, { param: 'top_logprobs' });
  }
  if (body.background === true && !isStored(body)) {
    throw new AppError('invalid_request', 'background: a response that is not stored has none', {
      param: 'background',
    });
  }
  if ((body.previous_response_id ?? null) !== null && (body.conversation ?? null) !== null) {
    const message = 'previous_response_id does not go with conversation; give one of them';
    throw new AppError('invalid_request', message, { param: 'previous_response_id' });
  }
}
