/**
 * From the bodies of chat completions and agent runs to what the agent loop takes: messages, client
 * tools, sampling. The contract has checked the shape; what it cannot express is checked here.
 */
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { ToolSpec } from '../core/ports.ts';
import { freshSeed } from '../core/prng.ts';
import type { SamplingParams } from '../core/records.ts';
import type { GenerationConfig } from '../core/text/generation-config.ts';
import type { ChatMessage } from '../core/text/types.ts';
import type { Schemas } from './handlers.ts';

type Message = Schemas['Message'];
type FunctionTool = Schemas['FunctionTool'];

/**
 * @throws AppError invalid_request: a tool message that answers no call, or a call without answer.
 */
export function chatMessages(messages: readonly Message[]): ChatMessage[] {
  checkToolAnswers(messages);
  const names = new Map<string, string>();
  return messages.map((message, i) => {
    if (message.role === 'assistant') {
      for (const call of message.tool_calls ?? []) names.set(call.id, call.function.name);
      return assistantMessage(message, i);
    }
    const content = textOf(message.content, `messages[${i}].content`);
    if (message.role !== 'tool') return { role: message.role, content };
    const name = names.get(message.tool_call_id);
    return {
      role: 'tool',
      content,
      toolCallId: message.tool_call_id,
      ...(name !== undefined && { name }),
    };
  });
}

function assistantMessage(
  message: Extract<Message, { role: 'assistant' }>,
  index: number,
): ChatMessage {
  const calls = message.tool_calls ?? [];
  const content = message.content ?? null;
  if (content === null && calls.length === 0) {
    throw new AppError('invalid_request', 'an assistant message needs content or tool_calls', {
      param: `messages[${index}].content`,
    });
  }
  const text = content === null ? null : textOf(content, `messages[${index}].content`);
  const toolCalls = calls.map((call) => ({
    id: call.id,
    name: call.function.name,
    arguments: call.function.arguments,
  }));
  return { role: 'assistant', content: text, ...(calls.length > 0 && { toolCalls }) };
}

function textOf(content: Schemas['MessageContent'], param: string): string {
  const text = typeof content === 'string' ? content : content.map((part) => part.text).join('');
  if (text.length <= LIMITS.messageCharsMax) return text;
  throw new AppError(
    'invalid_request',
    `${param}: ${text.length} characters; at most ${LIMITS.messageCharsMax}`,
    { param },
  );
}

/** Each tool message answers a call of the assistant before it, and each call is answered once. */
function checkToolAnswers(messages: readonly Message[]): void {
  let open = new Set<string>();
  for (const [i, message] of messages.entries()) {
    const param = `messages[${i}]`;
    if (message.role === 'tool') {
      if (open.delete(message.tool_call_id)) continue;
      throw new AppError(
        'invalid_request',
        `${param}.tool_call_id: '${message.tool_call_id}' answers no open call before it`,
        { param: `${param}.tool_call_id` },
      );
    }
    requireAnswered(open, param);
    open = new Set(message.role === 'assistant' ? message.tool_calls?.map((call) => call.id) : []);
  }
  requireAnswered(open, 'messages');
}

function requireAnswered(open: ReadonlySet<string>, param: string): void {
  const [missing] = open;
  if (missing === undefined) return;
  throw new AppError('invalid_request', `${param}: the tool call '${missing}' has no answer`, {
    param,
  });
}

/** Specs of client-run functions. @throws AppError invalid_request for a name given twice. */
export function clientTools(tools: readonly FunctionTool[]): ToolSpec[] {
  const seen = new Set<string>();
  return tools.map((tool, i) => {
    const { name, description, parameters } = tool.function;
    if (seen.has(name)) {
      throw new AppError('invalid_request', `tools[${i}]: '${name}' is given twice`, {
        param: `tools[${i}].function.name`,
      });
    }
    seen.add(name);
    return {
      name,
      description: description ?? '',
      parameters: parameters ?? { type: 'object', properties: {} },
    };
  });
}

export interface SamplingFields {
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  repetition_penalty?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  logit_bias?: Record<string, number> | null;
  min_tokens?: number | null;
  seed?: number | null;
}

/** What the request says, else what the policy's makers say, else neutral. */
export function samplingParams(
  fields: SamplingFields,
  { temperature, topP, topK, minP, repetitionPenalty }: GenerationConfig = {},
): SamplingParams {
  const options: Partial<SamplingParams> = {
    minP: fields.min_p ?? minP,
    repetitionPenalty: fields.repetition_penalty ?? repetitionPenalty,
    presencePenalty: fields.presence_penalty ?? undefined,
    frequencyPenalty: fields.frequency_penalty ?? undefined,
    logitBias: fields.logit_bias ?? undefined,
    minTokens: fields.min_tokens ?? undefined,
  };
  return {
    temperature: fields.temperature ?? temperature ?? 1,
    topP: fields.top_p ?? topP ?? 1,
    topK: fields.top_k ?? topK ?? 0,
    seed: seedOf(fields.seed ?? freshSeed()),
    // What is off is not logged, so that rows stay short.
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)),
  };
}

/** Draws take whole numbers from 0; a negative one becomes one that no small positive one is. */
function seedOf(seed: number): number {
  return seed < 0 ? seed + 2 ** 53 : seed;
}

/** The bound on sampled tokens that was asked for; null when none was. */
export function requestedTokens(body: {
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
}): number | null {
  const older = body.max_tokens ?? null;
  const newer = body.max_completion_tokens ?? null;
  if (older !== null && newer !== null) {
    throw new AppError(
      'invalid_request',
      `max_tokens (${older}) and max_completion_tokens (${newer}) are both given; give one of them`,
      { param: 'max_completion_tokens' },
    );
  }
  return newer ?? older;
}

export function stopTexts(stop: Schemas['ChatCompletionRequest']['stop']): string[] {
  if (stop === undefined || stop === null) return [];
  return typeof stop === 'string' ? [stop] : stop;
}
