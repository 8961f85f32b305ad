/**
 * What of a policy's text a chat client sees: thoughts as `reasoning_content`, the answer as
 * `content`, no tags and no control tokens. One splitter serves streamed and plain calls, so both
 * show the same.
 *
 * Thoughts stream as they come. Where a protocol says how calls begin, the text outside calls
 * streams too; with the tag protocol the answer is known only when its tag is closed, so it comes
 * in one piece at the end. Text that was meant as a call but is none (malformed, or of a tool not
 * offered) is shown as it is.
 */
import { StopScanner } from '../core/text/stop-scanner.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { ParsedStep, Protocol, Tokenizer } from '../core/text/types.ts';

export interface TextPiece {
  reasoning: string;
  content: string;
}

const OPEN = '<think>';
const CLOSE = '</think>';

/** Tokens that no client sees: end-of-turn tokens, but not tags, which the splitter needs. */
export function hiddenTokens(protocol: Protocol, tokenizer: Tokenizer): number[] {
  if (protocol.opening !== null) return [...protocol.stopTokens];
  return protocol.stopTokens.filter((token) => !/^<\/[a-z]/.test(tokenizer.decode([token])));
}

/** How many of a step's first tokens are its thoughts, tags included. */
export function reasoningTokens(
  tokens: Uint32Array,
  tokenizer: Tokenizer,
  reasoningOpen: boolean,
): number {
  const decoder = new StreamDecoder(tokenizer);
  let open = reasoningOpen;
  let head = '';
  let tail = '';
  for (const [i, token] of tokens.entries()) {
    const piece = decoder.push([token]);
    if (!open) {
      head = (head + piece).trimStart();
      if (head.startsWith(OPEN)) open = true;
      else if (!OPEN.startsWith(head)) return 0;
    }
    tail = tail.slice(-CLOSE.length) + piece;
    if (open && tail.includes(CLOSE)) return i + 1;
  }
  return open ? tokens.length : 0;
}

/** `behind` the reasoning, if there is any: before the first word of the step itself. */
type State = 'start' | 'reasoning' | 'behind' | 'outside' | 'held';

export class ChatText {
  private readonly protocol: Protocol;
  private readonly scanner: StopScanner;
  /** Text not yet told apart. */
  private buffer = '';
  private state: State;
  private readonly reasoning = new TrimmedStream();
  private readonly content = new TrimmedStream();
  /** The text outside thoughts that waits for the end: from the first call on, or all of it. */
  private held = '';

  /** `reasoningOpen`: the prompt ends inside <think>. */
  constructor(protocol: Protocol, options: { stops: readonly string[]; reasoningOpen: boolean }) {
    this.protocol = protocol;
    this.scanner = new StopScanner(options.stops);
    this.state = options.reasoningOpen ? 'reasoning' : 'start';
  }

  push(text: string): TextPiece {
    return this.split(this.scanner.push(text));
  }

  /**
   * The rest, once the step is whole. `parsed` is the protocol's reading of the step; `callsTaken`
   * says whether its calls go out as tool_calls.
   */
  finish(parsed: ParsedStep | null, callsTaken: boolean): TextPiece {
    const out = this.split(this.scanner.flush(), true);
    const rest = this.rest(parsed, callsTaken);
    return { reasoning: out.reasoning, content: out.content + rest };
  }

  private rest(parsed: ParsedStep | null, callsTaken: boolean): string {
    if (callsTaken) return '';
    const raw = this.content.push(this.held);
    if (this.protocol.opening !== null || this.scanner.found || parsed === null) return raw;
    if (parsed.answer !== null) return parsed.answer;
    return parsed.malformed !== null && parsed.content !== '' && this.held.trim() !== ''
      ? parsed.content
      : raw;
  }

  private split(text: string, last = false): TextPiece {
    this.buffer += text;
    const out: TextPiece = { reasoning: '', content: '' };
    // Each round consumes buffer or moves to a later state, so the loop ends.
    while (this.buffer !== '' && this.step(out, last)) continue;
    return out;
  }

  /** Handles the buffer in the current state; false = more text is needed. */
  private step(out: TextPiece, last: boolean): boolean {
    switch (this.state) {
      case 'start': {
        const text = this.buffer.trimStart();
        if (text.startsWith(OPEN)) return this.enter('reasoning', text.slice(OPEN.length));
        if (!last && OPEN.startsWith(text)) return false;
        return this.enter('behind', this.buffer);
      }
      case 'reasoning': {
        const { before, after } = cut(this.buffer, CLOSE, last);
        out.reasoning += this.reasoning.push(before);
        if (after === null) return this.wait(before.length);
        return this.enter('behind', after);
      }
      case 'behind': {
        const { opening } = this.protocol;
        if (opening === null) return this.enter('held', this.buffer);
        const text = this.buffer.trimStart();
        if (opening.atStart.some((mark) => text.startsWith(mark))) {
          return this.enter('held', this.buffer);
        }
        const mayCome = opening.atStart.some((mark) => mark.startsWith(text));
        return mayCome && !last ? false : this.enter('outside', this.buffer);
      }
      case 'outside': {
        const mark = this.protocol.opening?.anywhere ?? null;
        if (mark === null) {
          out.content += this.content.push(this.buffer);
          return this.wait(this.buffer.length);
        }
        const { before, after } = cut(this.buffer, mark, last);
        out.content += this.content.push(before);
        if (after === null) return this.wait(before.length);
        return this.enter('held', mark + after);
      }
      case 'held':
        this.held += this.buffer;
        return this.wait(this.buffer.length);
    }
  }

  private enter(state: Exclude<State, 'start'>, buffer: string): boolean {
    this.state = state;
    this.buffer = buffer;
    return true;
  }

  private wait(consumed: number): boolean {
    this.buffer = this.buffer.slice(consumed);
    return false;
  }
}

/**
 * The text before a mark and after it; while the mark may still be coming, `before` stops short of
 * it.
 */
function cut(text: string, mark: string, last: boolean): { before: string; after: string | null } {
  const at = text.indexOf(mark);
  if (at !== -1) return { before: text.slice(0, at), after: text.slice(at + mark.length) };
  if (last) return { before: text, after: null };
  for (let length = Math.min(mark.length - 1, text.length); length > 0; length--) {
    if (mark.startsWith(text.slice(-length)))
      return { before: text.slice(0, -length), after: null };
  }
  return { before: text, after: null };
}

/** Drops white space at both ends of a text that comes in pieces. */
class TrimmedStream {
  private started = false;
  private space = '';

  push(text: string): string {
    const joined = this.space + (this.started ? text : text.trimStart());
    const body = joined.trimEnd();
    if (body === '') {
      this.space = this.started ? joined : '';
      return '';
    }
    this.started = true;
    this.space = joined.slice(body.length);
    return body;
  }
}
