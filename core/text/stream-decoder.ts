/**
 * Text of a token stream, piece by piece: a token may end inside a UTF-8 character, so each push
 * returns only what is certain and the rest waits for the next token. The pieces, flush included,
 * join to exactly what decoding all tokens at once gives.
 */
import type { Tokenizer } from './types.ts';

export class StreamDecoder {
  private readonly tokenizer: Pick<Tokenizer, 'tokenBytes'>;
  private readonly skipped: ReadonlySet<number>;
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** `skip`: token ids that are not shown (stop tokens, tags). */
  constructor(tokenizer: Pick<Tokenizer, 'tokenBytes'>, options: { skip?: Iterable<number> } = {}) {
    this.tokenizer = tokenizer;
    this.skipped = new Set(options.skip ?? []);
  }

  /** The text that is certain now; may be empty. */
  push(tokens: ArrayLike<number>): string {
    let text = '';
    for (let i = 0; i < tokens.length; i++) {
      const token = tokens[i] as number;
      if (this.skipped.has(token)) continue;
      text += this.decoder.decode(this.tokenizer.tokenBytes(token), { stream: true });
    }
    return text;
  }

  /**
   * The end of the stream: an incomplete character becomes U+FFFD. The decoder can be used anew.
   */
  flush(): string {
    return this.decoder.decode();
  }
}
