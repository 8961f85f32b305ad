/**
 * The digest by which a chat request finds the logged answer that its history ends with. It is made
 * of what a client sends back: roles, texts, tool calls with their ids, names and arguments. What
 * clients drop, add or write differently (thoughts, unknown fields, null for no text, white space
 * in arguments) does not count. Call ids are the server's own, so two clients that ask the same do
 * not meet.
 */
import { createHash } from 'node:crypto';
import type { ToolSpec } from '../core/ports.ts';
import type { ChatMessage, ToolCallRequest } from '../core/text/types.ts';

/** What a history must share with the logged one besides its messages. */
export interface ContinuationScope {
  /** The client's `x-session-id`: sessions never meet. */
  sessionId: string | null;
  /** Tools that the prompt shows; empty when the prompt does not depend on them. */
  tools: readonly ToolSpec[];
}

/** Changes when the form below does, so that keys of an older form match nothing. */
const FORM = 1;

/** `messages` end with the assistant's. */
export function continuationKey(
  scope: ContinuationScope,
  messages: readonly ChatMessage[],
): string {
  const tools = scope.tools.map(({ name, description, parameters }) => [
    name,
    description,
    parameters,
  ]);
  const form = [FORM, scope.sessionId, tools, messages.map(plainMessage)];
  return createHash('sha256').update(JSON.stringify(form)).digest('hex');
}

function plainMessage(message: ChatMessage): unknown[] {
  const { role, content, toolCalls = [], toolCallId = null } = message;
  return [role, content ?? '', toolCalls.map(plainCall), toolCallId];
}

function plainCall(call: ToolCallRequest): unknown[] {
  return [call.id ?? null, call.name, plainJson(call.arguments)];
}

/** Some clients parse the arguments and write them anew. */
function plainJson(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}
