/**
 * Policies that work in turns: a step ends with an end-of-turn token, it is either calls (in the
 * syntax of the model's family, call-syntax.ts) or the answer, and the results come back in the
 * next turn as the directory's chat template writes them (Qwen2.5: `<tool_response>` in a user
 * turn, Llama 3.1: an `ipython` turn).
 */
import { AppError } from '../errors.ts';
import type { ToolSpec } from '../ports.ts';
import type { Constraint, ConstraintPart } from '../records.ts';
import { formConstraint, jsonPart } from './answer-form.ts';
import { noCalls, type CallSyntax } from './call-syntax.ts';
import type { ChatTemplate } from './chat-template.ts';
import { endTexts, renderAfterTurn, splitAnswers } from './continuation.ts';
import type { BpeTokenizer } from './tokenizer.ts';
import type {
  AnswerForm,
  CallOpening,
  ChatMessage,
  FinishedStep,
  ParsedStep,
  Protocol,
} from './types.ts';

export interface TurnProtocolOptions {
  tokenizer: BpeTokenizer;
  template: ChatTemplate;
  syntax: CallSyntax;
  /** End-of-turn tokens, from the directory's generation and tokenizer configs. */
  endTokens: readonly number[];
}

export class TurnProtocol implements Protocol {
  readonly name: CallSyntax['name'];
  readonly opening: CallOpening;
  readonly stopTokens: readonly number[];
  private readonly tokenizer: BpeTokenizer;
  private readonly template: ChatTemplate;
  private readonly syntax: CallSyntax;
  private readonly endTexts: readonly string[];

  /** Throws policy_invalid when the template has no form for tool results. */
  constructor(options: TurnProtocolOptions) {
    this.tokenizer = options.tokenizer;
    this.template = options.template;
    this.syntax = options.syntax;
    this.name = options.syntax.name;
    this.opening = options.syntax.opening;
    this.stopTokens = options.endTokens;
    this.endTexts = endTexts(options.tokenizer, options.endTokens);
    if (this.name !== 'plain') this.renderToolResults([{ name: 'probe', result: 'probe' }]);
  }

  /** Throws invalid_request for tools when the policy was never taught a form of calls. */
  renderPrompt(messages: readonly ChatMessage[], tools: readonly ToolSpec[]): number[] {
    if (this.name === 'plain' && tools.length > 0) throw noCalls();
    return this.template.encode(this.template.render(messages, tools, { generationPrompt: true }));
  }

  /**
   * What the template writes between the end of the policy's turn and the next one: the difference
   * of a conversation rendered with the results and without.
   */
  renderToolResults(results: readonly { name: string; result: string }[]): number[] {
    // One call stands for all: some templates refuse several in a turn, none counts the results.
    const calls = results.slice(0, 1).map(({ name }) => ({ name, arguments: '{}' }));
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

  constrain(form: AnswerForm, context: string): Constraint {
    const { tokenizer, syntax, stopTokens: endTokens } = this;
    const end: ConstraintPart = { kind: 'token', anyOf: endTokens };
    return formConstraint(
      {
        tokenizer,
        call: (tool) => [...syntax.write(tool, tokenizer), end],
        answer: (schema) => [jsonPart(schema), end],
      },
      form,
      context,
    );
  }

  parseStep(text: string): ParsedStep {
    const { reasoning, rest } = splitReasoning(this.withoutEnd(text));
    const { calls, content, malformed } = this.syntax.read(rest);
    if (malformed !== null || calls.length > 0) {
      return { reasoning, content, calls, answer: null, malformed };
    }
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
