/**
 * The tag protocol of ARPO (arpo.md section 4): a policy step is an optional <think>...</think> and
 * then either one call, written as a tag named like the tool (`<search>query</search>`), or
 * `<answer>... \boxed{X} ...</answer>`. A call's result follows as `<result>...</result>` in the
 * same assistant turn, and the policy goes on. Tags are single tokens, so a call ends on its
 * closing tag and an answer on the end-of-turn token that the policy writes after it.
 *
 * The body of a tool tag fills one string argument of the tool. What the tools do is not known
 * here.
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { ToolSpec } from '../ports.ts';
import type { Constraint } from '../records.ts';
import { bodyParts, formConstraint, jsonPart, markPart, textPart } from './answer-form.ts';
import { extractBoxed } from './boxed.ts';
import type { ChatTemplate } from './chat-template.ts';
import { endTexts, renderAfterTurn, splitAnswers } from './continuation.ts';
import { parseObject } from './policy-files.ts';
import type { BpeTokenizer } from './tokenizer.ts';
import type {
  AnswerForm,
  ChatMessage,
  FinishedStep,
  ParsedStep,
  Protocol,
  ToolCallRequest,
} from './types.ts';

/** A tool that the policy can call, and the argument that the tag's body fills. */
export interface ToolTag {
  name: string;
  argument: string;
}

export const FIXED_TAGS = ['think', 'result', 'answer'] as const;

/** The tag tokens of a policy with these tools, opening and closing. */
export function tagTokens(tools: readonly ToolTag[]): string[] {
  const names = [...FIXED_TAGS, ...tools.map((tool) => tool.name)];
  return names.flatMap((name) => [`<${name}>`, `</${name}>`]);
}

export interface TagProtocolOptions {
  tokenizer: BpeTokenizer;
  template: ChatTemplate;
  tools: readonly ToolTag[];
  /** End-of-turn tokens; the closing tags of the tools are added. */
  endTokens: readonly number[];
}

interface Block {
  name: string;
  body: string;
  start: number;
  end: number;
}

export class TagProtocol implements Protocol {
  readonly name = 'tags';
  readonly opening = null;
  readonly stopTokens: readonly number[];
  private readonly tokenizer: BpeTokenizer;
  private readonly template: ChatTemplate;
  private readonly argumentOf: ReadonlyMap<string, string>;
  private readonly tagPattern: RegExp;
  /** Texts that a tag's body cannot hold: it would be read otherwise. */
  private readonly reserved: readonly string[];
  private readonly endTokens: readonly number[];
  private readonly endTexts: readonly string[];

  /** Throws policy_invalid when a tag is not a token of the vocabulary. */
  constructor(options: TagProtocolOptions) {
    const { tokenizer, tools, endTokens } = options;
    this.tokenizer = tokenizer;
    this.template = options.template;
    this.argumentOf = new Map(tools.map((tool) => [tool.name, tool.argument]));
    for (const tag of tagTokens(tools)) {
      if (tokenizer.tokenId(tag) === null) {
        throw new AppError('policy_invalid', `the tag ${tag} is not a token of the vocabulary`);
      }
    }
    this.stopTokens = [...endTokens, ...tools.map((tool) => this.tag(`</${tool.name}>`))];
    this.endTokens = endTokens;
    this.endTexts = endTexts(tokenizer, endTokens);
    this.reserved = [...tagTokens(tools), ...this.endTexts];
    const names = [...FIXED_TAGS, ...this.argumentOf.keys()];
    this.tagPattern = new RegExp(`<(/?)(${names.join('|')})>`, 'g');
  }

  /**
   * Throws unknown_tool when a tool has no tag (this policy could never call it), invalid_request
   * when a call of the history has arguments that are no JSON object.
   */
  renderPrompt(messages: readonly ChatMessage[], tools: readonly ToolSpec[]): number[] {
    const calls = messages.flatMap((message) => message.toolCalls ?? []);
    for (const { name } of [...tools, ...calls]) {
      if (!this.argumentOf.has(name)) throw this.noTag(name);
    }
    for (const call of calls) requireArguments(call);
    return this.template.encode(this.template.render(messages, tools, { generationPrompt: true }));
  }

  renderToolResults(results: readonly { name: string; result: string }[]): number[] {
    return results.flatMap(({ result }) => [
      this.tag('<result>'),
      ...this.tokenizer.encode(result),
      this.tag('</result>'),
    ]);
  }

  renderContinuation(step: FinishedStep, messages: readonly ChatMessage[]): number[] | null {
    const { answers, rest } = splitAnswers(step, messages);
    const results = this.renderToolResults(
      answers.map(({ name = '', content }) => ({ name, result: content ?? '' })),
    );
    if (rest.length === 0) return results;
    // A call leaves the turn open, and so does its result: the next message closes it.
    const turnEnded = answers.length === 0 && this.withoutEnd(step.text) !== step.text;
    const turn = { calls: [], endTexts: this.endTexts, turnEnded };
    const after = renderAfterTurn(this.template, turn, rest);
    return after === null ? null : [...results, ...after];
  }

  constrain(form: AnswerForm, context: string): Constraint {
    const { tokenizer } = this;
    const mark = (text: string) => markPart(tokenizer, text);
    return formConstraint(
      {
        tokenizer,
        call: (tool) => {
          const argument = this.argumentOf.get(tool.name);
          if (argument === undefined) throw this.noTag(tool.name);
          const body = bodyParts(tool, argument, this.reserved);
          return [mark(`<${tool.name}>`), ...body, mark(`</${tool.name}>`)];
        },
        // Braces in strings are escapes too: those of \boxed{} are counted (boxed.ts).
        answer: (schema) => [
          ...[mark('<answer>'), textPart('\\boxed{'), jsonPart(schema, '<{}')],
          ...[textPart('}'), mark('</answer>'), { kind: 'token', anyOf: this.endTokens } as const],
        ],
      },
      form,
      context,
    );
  }

  parseStep(text: string): ParsedStep {
    const step = this.withoutEnd(text);
    const { blocks, fault } = this.findBlocks(step);
    const malformed = fault ?? this.faultOf(blocks, step);
    const reasoning = blocks.find((block) => block.name === 'think')?.body.trim() ?? null;
    const answerBody = blocks.find((block) => block.name === 'answer')?.body.trim() ?? null;
    if (malformed !== null) {
      const content = answerBody ?? outsideOf(blocks, step);
      return { reasoning, content, calls: [], answer: null, malformed };
    }
    const content = outsideOf(blocks, step);
    if (answerBody !== null) {
      const answer = must(extractBoxed(answerBody), 'checked by faultOf');
      return { reasoning, content, calls: [], answer, malformed };
    }
    const call = must(
      blocks.find((block) => this.argumentOf.has(block.name)),
      'a step without answer has a call',
    );
    const argument = must(this.argumentOf.get(call.name), 'blocks have known names');
    const json = JSON.stringify({ [argument]: call.body.trim() });
    return {
      reasoning,
      content,
      calls: [{ name: call.name, arguments: json }],
      answer: null,
      malformed,
    };
  }

  formatError(stepTexts: readonly string[]): string | null {
    if (stepTexts.length === 0) return 'no step';
    for (const [i, text] of stepTexts.entries()) {
      const { malformed, answer } = this.parseStep(text);
      if (malformed !== null) return `step ${i + 1}: ${malformed}`;
      const last = i === stepTexts.length - 1;
      if (last && answer === null) return 'no <answer>';
      if (!last && answer !== null) return `step ${i + 1}: an <answer> before the last step`;
    }
    return null;
  }

  private tag(text: string): number {
    return must(this.tokenizer.tokenId(text), `the token of ${text}`);
  }

  private noTag(name: string): AppError {
    const known = [...this.argumentOf.keys()].join(', ') || 'none';
    return new AppError('unknown_tool', `this policy has no tag for ${name}; it has: ${known}`, {
      param: 'tools',
    });
  }

  /** The text without the end-of-turn token that ended it. */
  private withoutEnd(text: string): string {
    const end = this.endTexts.find((candidate) => text.endsWith(candidate));
    return end === undefined ? text : text.slice(0, text.length - end.length);
  }

  /**
   * Top-level tag pairs in order. Tags do not nest; the first that is out of place is the fault.
   */
  private findBlocks(text: string): { blocks: Block[]; fault: string | null } {
    const blocks: Block[] = [];
    let open: { name: string; start: number; bodyStart: number } | null = null;
    for (const match of text.matchAll(this.tagPattern)) {
      const [tag, slash, name] = match as unknown as [string, string, string];
      if (slash === '') {
        if (open !== null) return { blocks, fault: `unpaired tag: ${tag} inside <${open.name}>` };
        open = { name, start: match.index, bodyStart: match.index + tag.length };
      } else if (open === null) {
        return { blocks, fault: `unpaired tag: ${tag} closes nothing` };
      } else if (open.name !== name) {
        return { blocks, fault: `unpaired tag: ${tag} inside <${open.name}>` };
      } else {
        const body = text.slice(open.bodyStart, match.index);
        blocks.push({ name, body, start: open.start, end: match.index + tag.length });
        open = null;
      }
    }
    return { blocks, fault: open === null ? null : `unpaired tag: <${open.name}> is not closed` };
  }

  /** What is wrong with paired blocks; null when they make a well-formed step. */
  private faultOf(blocks: readonly Block[], text: string): string | null {
    const count = (name: string): number => blocks.filter((block) => block.name === name).length;
    const calls = blocks.filter((block) => this.argumentOf.has(block.name));
    const answers = count('answer');
    if (count('result') > 0) return 'a <result> written by the policy';
    if (count('think') > 1) return 'more than one <think>';
    if (calls.length > 1) return 'more than one call';
    if (calls.length === 1 && answers > 0) return 'a call and an <answer> in one step';
    if (answers > 1) return 'more than one <answer>';
    if (calls.length + answers === 0) return 'neither a call nor an <answer>';
    const last = must(blocks.at(-1), 'there is a call or an answer');
    if (last.name === 'think') return 'out of order: <think> comes last';
    if (text.slice(last.end).trim() !== '') return `text after </${last.name}>`;
    if (calls[0]?.body.trim() === '') return `an empty call: <${calls[0].name}>`;
    if (answers === 0) return null;
    const boxed = extractBoxed(last.body);
    if (boxed === null) return 'no \\boxed{} in the <answer>';
    return boxed === '' ? 'an empty \\boxed{}' : null;
  }
}

function requireArguments(call: ToolCallRequest): void {
  if (parseObject(call.arguments) !== null) return;
  throw new AppError(
    'invalid_request',
    `the arguments of a ${call.name} call are not a JSON object: ${call.arguments.slice(0, 100)}`,
    { param: 'messages' },
  );
}

function outsideOf(blocks: readonly Block[], text: string): string {
  let at = 0;
  let out = '';
  for (const block of blocks) {
    out += text.slice(at, block.start);
    at = block.end;
  }
  return (out + text.slice(at)).trim();
}
