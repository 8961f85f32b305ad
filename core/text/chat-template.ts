/**
 * Renders the chat template of a policy directory (Jinja, as Hugging Face writes it) to token ids.
 * The template is the operator's and may write special tokens; the messages are the users' and may
 * not: template-guard.ts keeps the two apart. Knows no protocol: tool calls and tool specs are only
 * put into the form that templates expect (OpenAI's, with arguments as an object).
 */
import { join } from 'node:path';
import type { Template } from '@huggingface/jinja';
import { systemClock, type Clock } from '../clock.ts';
import { parseBoundedJson } from '../bounded-json.ts';
import { AppError, toAppError } from '../errors.ts';
import type { ToolSpec } from '../ports.ts';
import { invalidFile } from '../json-file.ts';
import { isObject, readOptionalJson, readOptionalText } from './policy-files.ts';
import type { JsonObject } from './policy-files.ts';
import { chooseGuard, TemplateGuard } from './template-guard.ts';
import { parseTemplate, runTemplate } from './template-interpreter.ts';
import type { BpeTokenizer } from './tokenizer.ts';
import type { ChatMessage } from './types.ts';

export interface RenderOptions {
  /** Ends with the header of an assistant turn, where the policy starts to write. */
  generationPrompt: boolean;
}

/** Rendered text in which `guard` breaks what is not a special token. */
export interface RenderedText {
  text: string;
  guard: string;
}

export class ChatTemplate {
  readonly source: string;
  private readonly template: Template;
  private readonly tokenizer: BpeTokenizer;
  private readonly variables: JsonObject;
  private readonly path: string;
  private readonly clock: Clock;

  /** Throws policy_invalid when the template does not parse; `path` names it in messages. */
  constructor(
    source: string,
    path: string,
    tokenizer: BpeTokenizer,
    variables: JsonObject,
    clock: Clock = systemClock,
  ) {
    this.source = source;
    this.path = path;
    this.tokenizer = tokenizer;
    this.variables = variables;
    this.clock = clock;
    try {
      this.template = parseTemplate(source);
    } catch (error) {
      const why = toAppError(error).message;
      throw invalidFile(path, `the chat template does not parse: ${why}`, error);
    }
  }

  /** Throws invalid_request when the template refuses the conversation (`raise_exception`). */
  render(
    messages: readonly ChatMessage[],
    tools: readonly ToolSpec[],
    options: RenderOptions,
  ): RenderedText {
    const plain = { messages: messages.map(templateMessage), tools: tools.map(templateTool) };
    const char = chooseGuard(plain);
    const guard = new TemplateGuard(char, this.tokenizer.addedTokens);
    // What the policy said may hold its own marks (<think>, <tool_call>), which are not special.
    const own = new TemplateGuard(
      char,
      this.tokenizer.addedTokens.filter(({ special }) => special),
    );
    const guarded = plain.messages.map(({ role, content, ...rest }) => ({
      role,
      content: (role === 'assistant' ? own : guard).deep(content),
      ...(guard.deep(rest) as JsonObject),
    }));
    try {
      const variables = {
        ...this.variables,
        messages: guarded,
        tools: tools.length > 0 ? guard.deep(plain.tools) : null,
        add_generation_prompt: options.generationPrompt,
      };
      const functions = { refuse, clock: this.clock, guard: char };
      return { text: runTemplate(this.template, variables, functions), guard: char };
    } catch (error) {
      if (error instanceof AppError) throw error;
      const why = toAppError(error).message;
      throw invalidFile(this.path, `the chat template failed: ${why}`, error);
    }
  }

  encode(rendered: RenderedText): number[] {
    return this.tokenizer.encodeTemplate(rendered.text, rendered.guard);
  }
}

function refuse(message: unknown): never {
  throw new AppError('invalid_request', `the policy's chat template: ${String(message)}`, {
    param: 'messages',
  });
}

/**
 * chat_template.jinja, else `chat_template` of tokenizer_config.json (a string, or a list of named
 * templates of which `default` is taken). Throws policy_invalid when there is none.
 */
export function loadChatTemplate(
  directory: string,
  tokenizer: BpeTokenizer,
  clock: Clock = systemClock,
): ChatTemplate {
  const config = readOptionalJson(directory, 'tokenizer_config.json') ?? {};
  const variables: JsonObject = {};
  for (const name of ['bos_token', 'eos_token', 'unk_token', 'pad_token']) {
    variables[name] = tokenText(config[name]) ?? '';
  }
  const own = readOptionalText(directory, 'chat_template.jinja');
  if (own !== null) {
    const path = join(directory, 'chat_template.jinja');
    return new ChatTemplate(own, path, tokenizer, variables, clock);
  }
  const path = join(directory, 'tokenizer_config.json');
  const source = defaultTemplate(config.chat_template);
  if (source === null) throw invalidFile(path, 'has no chat_template, and no chat_template.jinja');
  return new ChatTemplate(source, path, tokenizer, variables, clock);
}

/** A token in a config file: its text, or an object that holds it. */
export function tokenText(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return isObject(value) && typeof value.content === 'string' ? value.content : null;
}

function defaultTemplate(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const named = value.filter(isObject);
  const chosen = named.find((item) => item.name === 'default') ?? named[0];
  return typeof chosen?.template === 'string' ? chosen.template : null;
}

function templateMessage(message: ChatMessage): JsonObject {
  return {
    // Templates know no `developer`; it is OpenAI's newer name of the same role.
    role: message.role === 'developer' ? 'system' : message.role,
    // Templates test the content for truth; null would be printed as text by some.
    content: message.content ?? '',
    ...(message.name === undefined ? {} : { name: message.name }),
    ...(message.toolCallId === undefined ? {} : { tool_call_id: message.toolCallId }),
    ...(message.toolCalls === undefined || message.toolCalls.length === 0
      ? {}
      : {
          tool_calls: message.toolCalls.map((call) => ({
            ...(call.id === undefined ? {} : { id: call.id }),
            type: 'function',
            function: { name: call.name, arguments: argumentsValue(call.arguments) },
          })),
        }),
  };
}

/**
 * Templates write arguments with `tojson`; text that is no JSON, or nests too deep, stays a string.
 */
function argumentsValue(json: string): unknown {
  try {
    return parseBoundedJson(json);
  } catch {
    return json;
  }
}

function templateTool(tool: ToolSpec): JsonObject {
  const { name, description, parameters } = tool;
  return { type: 'function', function: { name, description, parameters } };
}
