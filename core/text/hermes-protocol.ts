/**
 * The JSON call protocol of Hermes and Qwen: a policy writes
 * `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`, one or several in a step, and
 * ends its turn; the results come back in the next turn as the directory's chat template writes
 * them (Qwen2.5: `<tool_response>` in a user turn). A step without calls is the answer.
 *
 * JSON that does not parse makes the whole step malformed: none of its calls is run.
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { ToolSpec } from '../ports.ts';
import type { ChatTemplate } from './chat-template.ts';
import { renderAfterTurn, splitAnswers } from './continuation.ts';
import { isObject } from './policy-files.ts';
import type { ByteLevelTokenizer } from './tokenizer.ts';
import type { ChatMessage, FinishedStep, ParsedStep, Protocol, ToolCallRequest } from './types.ts';

const CALL_TAG = /<(\/?)tool_call>/g;

export interface HermesProtocolOptions {
  tokenizer: ByteLevelTokenizer;
  template: ChatTemplate;
  /** End-of-turn tokens, from the directory's generation and tokenizer configs. */
  endTokens: readonly number[];
}

export class HermesProtocol implements Protocol {
  readonly name = 'hermes';
  readonly stopTokens: readonly number[];
  private readonly template: ChatTemplate;
  private readonly endTexts: readonly string[];

  /** Throws policy_invalid when the template has no form for tool results. */
  constructor(options: HermesProtocolOptions) {
    this.template = options.template;
    this.stopTokens = options.endTokens;
    this.endTexts = options.endTokens.map((token) => options.tokenizer.decode([token]));
    this.renderToolResults([{ name: 'probe', result: 'probe' }]);
  }

  renderPrompt(messages: readonly ChatMessage[], tools: readonly ToolSpec[]): number[] {
    return this.template.encode(this.template.render(messages, tools, { generationPrompt: true }));
  }

  /**
   * What the template writes between the end of the policy's turn and the next one: the difference
   * of a conversation rendered with the results and without.
   */
  renderToolResults(results: readonly { name: string; result: string }[]): number[] {
    const calls = results.map(({ name }) => ({ name, arguments: '{}' }));
    const before: ChatMessage[] = [
      { role: 'user', content: '' },
      { role: 'assistant', content: '', toolCalls: calls },
    ];
    const after: ChatMessage[] = [
      ...before,
      ...results.map(({ name, result }): ChatMessage => ({ role: 'tool', name, content: result })),
    ];
    const prefix = this.template.render(before, [], { generationPrompt: false }).text;
    const whole = this.template.render(after, [], { generationPrompt: true });
    const ends = this.endTexts.map((end) => ({ at: prefix.lastIndexOf(end), length: end.length }));
    const turnEnd = Math.max(...ends.map((end) => (end.at === -1 ? -1 : end.at + end.length)));
    if (turnEnd === -1 || !whole.text.startsWith(prefix)) {
      throw new AppError(
        'policy_invalid',
        'the chat template does not write tool results after a turn that ends with ' +
          this.endTexts.join(' or '),
      );
    }
    return this.template.encode({ text: whole.text.slice(turnEnd), guard: whole.guard });
  }

  renderContinuation(step: FinishedStep, messages: readonly ChatMessage[]): number[] | null {
    const { answers, rest } = splitAnswers(step, messages);
    // A token limit or a stop text may have ended the step behind a whole call, before its turn's
    // end.
    const turnEnded = this.withoutEnd(step.text) !== step.text;
    if (rest.length === 0 && turnEnded) {
      return this.renderToolResults(
        answers.map(({ name = '', content }) => ({ name, result: content ?? '' })),
      );
    }
    const turn = { calls: step.calls, endTexts: this.endTexts, turnEnded };
    return renderAfterTurn(this.template, turn, [...answers, ...rest]);
  }

  parseStep(text: string): ParsedStep {
    const { reasoning, rest } = splitReasoning(this.withoutEnd(text));
    const { bodies, content, fault } = splitCalls(rest);
    const parsed = bodies.map(parseCall);
    const malformed = fault ?? parsed.find((call) => typeof call === 'string') ?? null;
    if (typeof malformed === 'string') {
      return { reasoning, content, calls: [], answer: null, malformed };
    }
    const calls = parsed.filter((call) => typeof call !== 'string');
    if (calls.length > 0) return { reasoning, content, calls, answer: null, malformed: null };
    if (content === '') {
      const why = 'neither a call nor an answer';
      return { reasoning, content, calls, answer: null, malformed: why };
    }
    return { reasoning, content, calls, answer: content, malformed: null };
  }

  formatError(stepTexts: readonly string[]): string | null {
    if (stepTexts.length === 0) return 'no step';
    for (const [i, text] of stepTexts.entries()) {
      const { malformed, answer } = this.parseStep(text);
      if (malformed !== null) return `step ${i + 1}: ${malformed}`;
      const last = i === stepTexts.length - 1;
      if (last && answer === null) return 'no answer';
      if (!last && answer !== null) return `step ${i + 1}: an answer before the last step`;
    }
    return null;
  }

  private withoutEnd(text: string): string {
    const end = this.endTexts.find((candidate) => text.endsWith(candidate));
    return end === undefined ? text : text.slice(0, text.length - end.length);
  }
}

/** Reasoning models open <think> themselves or find it open at the end of the prompt. */
function splitReasoning(text: string): { reasoning: string | null; rest: string } {
  const close = text.indexOf('</think>');
  if (close === -1) return { reasoning: null, rest: text };
  const reasoning = text
    .slice(0, close)
    .replace(/^\s*<think>/, '')
    .trim();
  return { reasoning, rest: text.slice(close + '</think>'.length) };
}

interface SplitCalls {
  bodies: string[];
  /** The text outside the calls, trimmed. */
  content: string;
  fault: string | null;
}

function splitCalls(text: string): SplitCalls {
  const bodies: string[] = [];
  let content = '';
  let at = 0;
  let open: number | null = null;
  for (const match of text.matchAll(CALL_TAG)) {
    const closing = match[1] === '/';
    if (closing !== (open !== null)) {
      return { bodies, content: text.trim(), fault: `unpaired tag: ${match[0]}` };
    }
    const end = match.index + match[0].length;
    if (closing) {
      bodies.push(text.slice(must(open, 'checked above'), match.index));
      at = end;
      open = null;
    } else {
      content += text.slice(at, match.index);
      open = end;
    }
  }
  if (open !== null) {
    return { bodies, content: text.trim(), fault: 'unpaired tag: <tool_call> is not closed' };
  }
  return { bodies, content: (content + text.slice(at)).trim(), fault: null };
}

/** The call, or why it is none. */
function parseCall(body: string): ToolCallRequest | string {
  if (body.trim() === '') return 'an empty call';
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    return `a call that is not valid JSON: ${error instanceof Error ? error.message : 'unknown'}`;
  }
  if (!isObject(value)) return 'a call that is not a JSON object';
  const { name } = value;
  if (typeof name !== 'string' || name === '') return 'a call without a name';
  if (!isObject(value.arguments)) return `the call of ${name} has no arguments object`;
  return { name, arguments: JSON.stringify(value.arguments) };
}
