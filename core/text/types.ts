/** The text layer as the agent loop, the engine and the trainer see it. */
import type { ToolSpec } from '../ports.ts';
import type { Constraint, JsonSchema } from '../records.ts';

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Plain text: a special token spelled out in it is encoded as ordinary characters. */
  encode(text: string): number[];
  /** Template text: special tokens are recognised. Never pass user text through this. */
  encodeTemplate(text: string): number[];
  decode(tokens: ArrayLike<number>, options?: { skipSpecial?: boolean }): string;
  /** The UTF-8 bytes of one token, often only a part of a character; empty for an unused id. */
  tokenBytes(token: number): Uint8Array;
  /** Id of a special or added token by its text. */
  tokenId(token: string): number | null;
}

export interface ToolCallRequest {
  /** Given by the client in a replayed history; made by the agent loop for new calls. */
  id?: string;
  name: string;
  /** JSON text. */
  arguments: string;
}

export interface ChatMessage {
  role: 'system' | 'developer' | 'user' | 'assistant' | 'tool';
  content: string | null;
  toolCalls?: ToolCallRequest[];
  /** For role tool: which call this answers. */
  toolCallId?: string;
  name?: string;
}

/** One generation of the policy, understood. */
export interface ParsedStep {
  /** Text inside <think>, if any. */
  reasoning: string | null;
  /** Text outside the calls or the whole text when nothing was recognised. */
  content: string;
  calls: ToolCallRequest[];
  /** The final answer (tags: content of \boxed{} in <answer>; others: content without calls). */
  answer: string | null;
  /** Why the step is not well formed; null when it is. A malformed call is never run. */
  malformed: string | null;
}

/** A policy step of the log that a conversation goes on from. */
export interface FinishedStep {
  /** Decoded tokens, control tokens included. */
  text: string;
  /** Its calls that went to a client, with the ids by which their results are matched. */
  calls: readonly ToolCallRequest[];
}

/** The form that a client demands of a step; answer-form.ts makes a constraint of it. */
export interface AnswerForm {
  /** One of these is called. */
  calls: readonly ToolSpec[];
  /** Schema of the answer, which is then a way out beside the calls; null: it must be a call. */
  answer: JsonSchema | null;
}

/** How the text of a call begins, for those who show a step's text while it is written. */
export interface CallOpening {
  /** A mark that begins a call wherever it stands. */
  readonly anywhere: string | null;
  /** Marks that begin one only as the first text of the step (behind its reasoning). */
  readonly atStart: readonly string[];
  /** The mark at the end of each call; null: a step can't be ended behind its first call. */
  readonly callEnd: string | null;
}

/** How conversations and tool calls are written for a policy: chosen by the policy's directory. */
export interface Protocol {
  readonly name: 'tags' | 'hermes' | 'llama' | 'plain';
  /** Null: what a step's text is (thought, call, answer) is known only at its end. */
  readonly opening: CallOpening | null;
  /** A step ends after one of these tokens. */
  readonly stopTokens: readonly number[];
  /**
   * Prompt tokens up to where the policy starts to write. User text cannot forge special tokens.
   */
  renderPrompt(messages: readonly ChatMessage[], tools: readonly ToolSpec[]): number[];
  /** Tokens of the results of one step's calls, in order, up to where the policy goes on. */
  renderToolResults(results: readonly { name: string; result: string }[]): number[];
  /**
   * Tokens of the messages that follow a finished step, up to where the policy goes on: the results
   * of its calls, in any order, then other messages, none of them the assistant's. Null when the
   * chat template does not show what comes after a turn: the history must be rendered anew then.
   */
  renderContinuation(step: FinishedStep, messages: readonly ChatMessage[]): number[] | null;
  /**
   * What a step must spell to be in the form that a client demands. `context`: the text that the
   * step goes on from. Throws invalid_request or unknown_tool for what this policy cannot write.
   */
  constrain(form: AnswerForm, context: string): Constraint;
  parseStep(text: string): ParsedStep;
  /** Judges a whole trajectory (all policy steps' texts, in order): null = well formed. */
  formatError(stepTexts: readonly string[]): string | null;
}
