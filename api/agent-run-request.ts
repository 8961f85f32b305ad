/**
 * What a client asks of an agent run, read from the body that the contract has checked. The body is
 * what is stored, so a run that goes on in another process is read by the same code.
 */
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { ToolRunner, ToolSpec } from '../core/ports.ts';
import type { AnswerForm, ChatMessage, Protocol } from '../core/text/types.ts';
import { answerForm, requireWritable } from './answer-form.ts';
import { chatMessages, clientTools } from './chat-request.ts';
import type { SamplingFields } from './chat-request.ts';
import type { Schemas } from './handlers.ts';

export type AgentRunBody = Schemas['AgentRunRequest'];

export interface AgentRunRequest {
  model: string;
  messages: readonly ChatMessage[];
  toolNames: readonly string[];
  clientTools: readonly ToolSpec[];
  /** Of the first step. */
  toolChoice: AgentRunBody['tool_choice'];
  maxToolCalls: number;
  maxTokens: number | null;
  timeoutMs: number;
  sampling: SamplingFields;
  /** Outlives the connection, and the server. */
  background: boolean;
  /** The body as it was validated, for the record. */
  body: Record<string, unknown>;
}

/** @throws AppError invalid_request for what the contract cannot express. */
export function agentRunRequest(body: AgentRunBody): AgentRunRequest {
  const tools = body.tools ?? [];
  const toolNames = tools.filter((tool) => typeof tool === 'string');
  const functions = tools.filter((tool) => typeof tool !== 'string');
  if (new Set(toolNames).size < toolNames.length) {
    throw new AppError('invalid_request', 'tools: a server tool is named twice', {
      param: 'tools',
    });
  }
  return {
    model: body.model ?? 'ramify',
    messages: chatMessages(messagesOf(body)),
    toolNames,
    clientTools: clientTools(functions),
    toolChoice: body.tool_choice,
    maxToolCalls: body.max_tool_calls ?? LIMITS.toolCallsDefault,
    maxTokens: body.max_tokens ?? null,
    timeoutMs: body.timeout_s === undefined ? LIMITS.agentRunTimeoutMs : body.timeout_s * 1000,
    sampling: body,
    background: body.background === true,
    body: { ...body },
  };
}

/**
 * The form of the first step; null when it is free. @throws AppError unknown_tool; invalid_request
 * when there is no such tool, or a schema that cannot be written to.
 */
export function firstForm(
  { toolNames, clientTools, toolChoice, sampling }: AgentRunRequest,
  tools: ToolRunner,
  protocol: Protocol,
): AnswerForm | null {
  if (toolChoice === undefined || toolChoice === 'auto') return null;
  const { min_tokens } = sampling;
  const offered = [...tools.specs(toolNames), ...clientTools];
  const demands = { tool_choice: toolChoice, min_tokens: min_tokens ?? undefined };
  const form = answerForm(demands, offered);
  if (form !== null) requireWritable(protocol, form);
  return form;
}

/** @throws AppError unknown_tool */
export function checkServerTools(tools: ToolRunner, names: readonly string[]): void {
  const unknown = names.find((name) => !tools.has(name));
  if (unknown === undefined) return;
  throw new AppError('unknown_tool', `no tool '${unknown}' on this server`, { param: 'tools' });
}

function messagesOf({ messages, input }: AgentRunBody): readonly Schemas['Message'][] {
  if (messages !== undefined && input === undefined) return messages;
  if (messages === undefined && input !== undefined) return [{ role: 'user', content: input }];
  throw new AppError('invalid_request', 'give exactly one of messages and input', {
    param: 'messages',
  });
}
