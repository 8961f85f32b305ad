/**
 * Writes the output of one response: items as they come to be, and each change of them as an event
 * of the stream. Streamed and plain answers are both written here, so they say the same. The order
 * of the events and the fields in them are what OpenAI's clients rely on: an item is added empty,
 * filled by deltas, and said to be done with all of it.
 */
import { must } from '../../core/assert.ts';
import type { AppError } from '../../core/errors.ts';
import type { NewId } from '../../core/ids.ts';
import { LIMITS } from '../../core/limits.ts';
import type { CompletionPiece, TokenLogprob } from '../chat-completion.ts';
import { EventLog } from '../event-log.ts';
import type { Schemas } from '../handlers.ts';
import { problemBody } from '../problem.ts';
import type { OutputItem } from './items.ts';
import { SERVER_LABEL } from './request.ts';

type Event = Schemas['ResponseEvent'];
export type ResponseEvent = Event & { type: NonNullable<Event['type']> };
export type ResponseView = Schemas['ResponseObject'];

type Message = Schemas['ResponseMessage'];
type Reasoning = Schemas['ResponseReasoning'];
type ServerCall = Schemas['ResponseServerCall'];
type ItemStatus = Schemas['ResponseItemStatus'];

export interface Call {
  id: string;
  name: string;
  arguments: string;
}

export class ResponseWriter {
  /** Characters of the JSON of the events so far, without the response that some have. */
  size = 0;
  readonly log = new EventLog<ResponseEvent>(LIMITS.responseEventsMax);
  readonly output: OutputItem[] = [];
  private readonly newId: NewId;
  private readonly logprobs: boolean;
  /** The text that is being written, the last of the output. */
  private text: Message | Reasoning | null = null;
  /** Whether the step under way has a message. */
  private said = false;
  /** Figures of tokens of this step that no text has come of yet. */
  private figures: TokenLogprob[] = [];
  /** Calls that run, by their ids in the log. */
  private readonly running = new Map<string, { item: ServerCall; index: number }>();

  /** `logprobs`: messages have those of their tokens. */
  constructor(newId: NewId, { logprobs }: { logprobs: boolean }) {
    this.newId = newId;
    this.logprobs = logprobs;
  }

  begin(view: ResponseView): void {
    this.emit({ type: 'response.created', response: view });
    this.emit({ type: 'response.in_progress', response: view });
  }

  beginStep(): void {
    this.said = false;
    this.figures = [];
  }

  add({ reasoning, content, logprobs }: CompletionPiece): void {
    this.figures.push(...logprobs);
    if (reasoning !== '') this.append('reasoning', reasoning);
    if (content !== '') this.append('message', content);
  }

  /** `called`: calls follow, so that the step need not say anything. */
  endStep(status: ItemStatus, called: boolean): void {
    if (!this.said && !called && status === 'completed') this.append('message', '');
    this.endText(status);
  }

  functionCalls(calls: readonly Call[]): void {
    for (const { id, name, arguments: args } of calls) {
      const itemId = this.newId('functionCall');
      const base = { type: 'function_call' as const, id: itemId, call_id: id, name };
      const index = this.open({ ...base, status: 'in_progress', arguments: '' });
      const at = { item_id: itemId, output_index: index };
      this.emit({ type: 'response.function_call_arguments.delta', ...at, delta: args });
      this.emit({ type: 'response.function_call_arguments.done', ...at, name, arguments: args });
      this.close(index, { ...base, status: 'completed', arguments: args });
    }
  }

  beginServerCalls(calls: readonly Call[]): void {
    for (const { id, name, arguments: args } of calls) {
      const item: ServerCall = {
        ...{ type: 'mcp_call', id: this.newId('serverCall'), status: 'in_progress' },
        ...{ server_label: SERVER_LABEL, name, arguments: '', output: null, error: null },
      };
      const index = this.open(item);
      const at = { item_id: item.id, output_index: index };
      this.emit({ type: 'response.mcp_call.in_progress', ...at });
      this.emit({ type: 'response.mcp_call_arguments.delta', ...at, delta: args });
      this.emit({ type: 'response.mcp_call_arguments.done', ...at, arguments: args });
      this.running.set(id, { item: { ...item, arguments: args }, index });
    }
  }

  endServerCall(id: string, { result, failed }: { result: string; failed: boolean }): void {
    const { item, index } = must(this.running.get(id), 'a result is of a call that runs');
    this.running.delete(id);
    const status = failed ? 'failed' : 'completed';
    this.emit({ type: `response.mcp_call.${status}`, item_id: item.id, output_index: index });
    this.close(index, { ...item, status, ...(failed ? { error: result } : { output: result }) });
  }

  /** Ends what is open. */
  endAll(): void {
    this.endText('incomplete');
    for (const { item, index } of this.running.values()) {
      this.close(index, { ...item, status: 'incomplete' });
    }
    this.running.clear();
  }

  /** The last event; behind an error that is no cancellation. */
  end(view: ResponseView, error: AppError | null): void {
    if (error !== null) {
      // Clients differ in whether they look for the code here or in `error`.
      const { error: detail } = problemBody(error, view.id);
      const { code, message, param } = detail;
      this.emit({ type: 'error', code, message, param, error: detail });
    }
    const { status } = view;
    const whole = status === 'completed' || status === 'incomplete';
    this.emit({ type: whole ? `response.${status}` : 'response.failed', response: view });
    this.log.close();
  }

  private append(type: 'message' | 'reasoning', delta: string): void {
    if (this.text?.type !== type) {
      this.endText('completed');
      this.text = this.openText(type);
    }
    const { text } = this;
    const part = must(text.content[0], 'a text has one part');
    part.text += delta;
    const at = {
      item_id: text.id,
      output_index: this.output.length - 1,
      content_index: 0 as const,
    };
    if (type === 'reasoning') {
      this.emit({ type: 'response.reasoning_text.delta', ...at, delta });
    } else {
      this.emit({ type: 'response.output_text.delta', ...at, delta, logprobs: this.take(text) });
    }
  }

  /** Moves the waiting figures into the message. */
  private take(text: Message | Reasoning): TokenLogprob[] {
    const taken = this.figures.splice(0);
    if (!this.logprobs || text.type !== 'message') return [];
    must(text.content[0]?.logprobs, 'a message has its figures').push(...taken);
    return taken;
  }

  private openText(type: 'message' | 'reasoning'): Message | Reasoning {
    const status = 'in_progress' as const;
    const text: Message | Reasoning =
      type === 'message'
        ? { type, id: this.newId('message'), status, role: 'assistant', content: [] }
        : { type, id: this.newId('reasoning'), status, summary: [], content: [] };
    const index = this.open(text);
    if (text.type === 'message') {
      this.said = true;
      const logprobs = this.logprobs && { logprobs: [] };
      text.content.push({ type: 'output_text', text: '', annotations: [], ...logprobs });
    } else {
      text.content.push({ type: 'reasoning_text', text: '' });
    }
    const at = { item_id: text.id, output_index: index, content_index: 0 as const };
    const part = must(text.content[0], 'a text has one part');
    this.emit({ type: 'response.content_part.added', ...at, part });
    return text;
  }

  private endText(status: ItemStatus): void {
    const { text } = this;
    if (text === null) return;
    this.text = null;
    const index = this.output.length - 1;
    const part = must(text.content[0], 'a text has one part');
    const at = { item_id: text.id, output_index: index, content_index: 0 as const };
    if (text.type === 'reasoning') {
      this.emit({ type: 'response.reasoning_text.done', ...at, text: part.text });
    } else {
      // Tokens behind the text: those that end the step, mostly.
      const rest = this.take(text);
      if (rest.length > 0) {
        this.emit({ type: 'response.output_text.delta', ...at, delta: '', logprobs: rest });
      }
      const logprobs = text.content[0]?.logprobs ?? [];
      this.emit({ type: 'response.output_text.done', ...at, text: part.text, logprobs });
    }
    this.emit({ type: 'response.content_part.done', ...at, part });
    this.close(index, { ...text, status });
  }

  private open(item: OutputItem): number {
    const index = this.output.push(item) - 1;
    this.emit({ type: 'response.output_item.added', output_index: index, item });
    return index;
  }

  private close(index: number, item: OutputItem): void {
    this.output[index] = item;
    this.emit({ type: 'response.output_item.done', output_index: index, item });
  }

  /**
   * The log keeps events as they are now; items and parts go on changing. A view of the response is
   * made when no item is open, so it stays as it is, and may be large: it repeats the request.
   */
  private emit(event: DistributiveOmit<ResponseEvent, 'sequence_number'>): void {
    const numbered = { ...event, sequence_number: this.log.lastId };
    if ('response' in numbered) {
      this.log.append(numbered);
      return;
    }
    const json = JSON.stringify(numbered);
    this.size += json.length;
    this.log.append(JSON.parse(json) as ResponseEvent);
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
