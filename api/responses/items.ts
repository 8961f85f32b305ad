/**
 * Items of the responses API: from what a client sends to what is stored, and from items to the
 * messages that a policy is given. The messages are made of items alone, by one rule, so that a
 * conversation has the same ones whether the server kept it or its client sends it back, and the
 * stored tokens of its last answer are found by them (api/continuation.ts).
 */
import { AppError } from '../../core/errors.ts';
import type { NewId } from '../../core/ids.ts';
import { LIMITS } from '../../core/limits.ts';
import type { ResponseItem } from '../../core/records.ts';
import type { ChatMessage, ToolCallRequest } from '../../core/text/types.ts';
import type { Schemas } from '../handlers.ts';

export type OutputItem = Schemas['ResponseOutputItem'];
/** As stored, and as `input_items` lists them. */
export type Item = Schemas['ResponseItemList']['data'][number];

type Content = Schemas['ResponseContent'];

/** What the contract says of an item by its `type`, which its generated type can't. */
type Sent =
  | ({ type?: 'message' } & Schemas['ResponseInputMessage'])
  | ({ type: 'function_call' } & Schemas['ResponseInputCall'])
  | ({ type: 'function_call_output' } & Schemas['ResponseInputOutput'])
  | ({ type: 'mcp_call' } & Schemas['ResponseInputServerCall'])
  | ({ type: 'item_reference' } & Schemas['ResponseItemReference'])
  | { type: 'reasoning'; id?: unknown; content?: unknown };

export interface ItemSource {
  newId: NewId;
  /** A stored item that the client may name. */
  findItem: (id: string) => ResponseItem | null;
}

/** @throws AppError invalid_request for a reference to an item that is not stored. */
export function givenItems(input: Schemas['ResponseRequest']['input'], source: ItemSource): Item[] {
  if (typeof input === 'string') {
    return [givenMessage(source.newId('message'), 'user', input)];
  }
  return input.map((sent, i) => givenItem(sent as Sent, `input[${i}]`, source));
}

function givenItem(sent: Sent, param: string, { newId, findItem }: ItemSource): Item {
  const status = 'completed';
  switch (sent.type) {
    case 'item_reference': {
      const found = findItem(sent.id);
      if (found !== null) return found as Item;
      const message = `${param}.id: no stored item has the id '${sent.id}'`;
      throw new AppError('invalid_request', message, { param: `${param}.id` });
    }
    case 'function_call': {
      const { type, call_id, name, arguments: args } = sent;
      const id = sent.id ?? newId('functionCall');
      return { type, id, status, call_id, name, arguments: args };
    }
    case 'function_call_output': {
      const { type, call_id } = sent;
      const output = textOf(sent.output, `${param}.output`);
      return { type, id: sent.id ?? newId('functionOutput'), status, call_id, output };
    }
    case 'mcp_call': {
      const { type, id, server_label, name, arguments: args } = sent;
      const result = { output: sent.output ?? null, error: sent.error ?? null };
      return { type, id, status, server_label, name, arguments: args, ...result };
    }
    case 'reasoning': {
      const id = typeof sent.id === 'string' ? sent.id : newId('reasoning');
      return { type: 'reasoning', id, status, summary: [], content: [] };
    }
    default: {
      const id = sent.id ?? newId('message');
      return givenMessage(id, sent.role, textOf(sent.content, `${param}.content`));
    }
  }
}

function givenMessage(
  id: string,
  role: Schemas['ResponseInputMessage']['role'],
  text: string,
): Item {
  const base = { type: 'message', id, status: 'completed' } as const;
  if (role !== 'assistant') return { ...base, role, content: [{ type: 'input_text', text }] };
  return { ...base, role, content: [{ type: 'output_text', text, annotations: [] }] };
}

function textOf(content: Content, param: string): string {
  const text =
    typeof content === 'string' ? content : content.map(({ text = '' }) => text).join('');
  if (text.length <= LIMITS.messageCharsMax) return text;
  const message = `${param}: ${text.length} characters; at most ${LIMITS.messageCharsMax}`;
  throw new AppError('invalid_request', message, { param });
}

/**
 * The messages that items stand for. Calls belong to the assistant's message before them, up to the
 * first result; thoughts are not shown again. `callsOpen`: the last calls may have no output yet.
 * @throws AppError invalid_request for an output that answers no call, or a call without output.
 */
export function messagesOf(
  items: readonly Item[],
  { callsOpen }: { callsOpen: boolean } = { callsOpen: false },
): ChatMessage[] {
  const reader = new ItemReader();
  for (const item of items) reader.add(item);
  if (!callsOpen) reader.requireAnswered();
  return reader.messages.map(({ toolCalls, ...message }) =>
    toolCalls === undefined || toolCalls.length === 0 ? message : { ...message, toolCalls },
  );
}

type Turn = ChatMessage & { toolCalls: ToolCallRequest[] };

class ItemReader {
  readonly messages: ChatMessage[] = [];
  /** The assistant's message that calls still join. */
  private turn: Turn | null = null;
  /** Names of the calls that have no result yet, by id. */
  private readonly open = new Map<string, string>();

  add(item: Item): void {
    switch (item.type) {
      case 'message': {
        this.requireAnswered();
        const content = item.content.map(({ text }) => text).join('');
        this.turn = null;
        if (item.role === 'assistant') this.openTurn(content);
        else this.messages.push({ role: item.role, content });
        return;
      }
      case 'function_call':
        this.call({ id: item.call_id, name: item.name, arguments: item.arguments });
        return;
      case 'function_call_output':
        this.result(item.call_id, item.output);
        return;
      case 'mcp_call': {
        const result = item.output ?? item.error;
        // A call that was cut off has none, and was no part of what the policy went on from.
        if (result === null) return;
        this.call({ id: item.id, name: item.name, arguments: item.arguments });
        this.result(item.id, result);
        return;
      }
      case 'reasoning':
    }
  }

  private openTurn(content: string | null): Turn {
    const turn: Turn = { role: 'assistant', content, toolCalls: [] };
    this.messages.push(turn);
    this.turn = turn;
    return turn;
  }

  private call(call: ToolCallRequest & { id: string }): void {
    (this.turn ?? this.openTurn(null)).toolCalls.push(call);
    this.open.set(call.id, call.name);
  }

  private result(callId: string, content: string): void {
    const name = this.open.get(callId);
    if (name === undefined) {
      const message = `input: the output for '${callId}' answers no open call before it`;
      throw new AppError('invalid_request', message, { param: 'input' });
    }
    this.open.delete(callId);
    if (this.open.size === 0) this.turn = null;
    this.messages.push({ role: 'tool', content, toolCallId: callId, name });
  }

  requireAnswered(): void {
    const [missing] = this.open.keys();
    if (missing === undefined) return;
    const message = `input: no output found for the function call '${missing}'`;
    throw new AppError('invalid_request', message, { param: 'input' });
  }
}
