/**
 * Stop texts of chat completions. The engine knows stop tokens only, and a text may begin and end
 * inside tokens, so the sampled text is watched here: a sequence in between ends the sampling at
 * the token that completes a stop text and drops what came after it.
 */
import type { SampledTokens, SampleRequest, SampleResult, Sequence } from '../core/ports.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { Tokenizer } from '../core/text/types.ts';

/** Finds the first stop text in a stream and holds back what could be the beginning of one. */
export class StopScanner {
  private readonly stops: readonly string[];
  private held = '';
  private stopped = false;

  constructor(stops: readonly string[]) {
    this.stops = stops;
  }

  get found(): boolean {
    return this.stopped;
  }

  /** Text that is certainly before any stop text. */
  push(text: string): string {
    if (this.stopped) return '';
    this.held += text;
    const found = this.stops.map((stop) => this.held.indexOf(stop)).filter((at) => at !== -1);
    if (found.length > 0) {
      this.stopped = true;
      return this.held.slice(0, Math.min(...found));
    }
    const keep = this.partialLength();
    const out = this.held.slice(0, this.held.length - keep);
    this.held = this.held.slice(this.held.length - keep);
    return out;
  }

  /** What was held back, when the text has ended. */
  flush(): string {
    const out = this.stopped ? '' : this.held;
    this.held = '';
    return out;
  }

  /** Length of the longest end of the held text that a stop text begins with. */
  private partialLength(): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.held.length); length > 0; length--) {
      const tail = this.held.slice(this.held.length - length);
      if (this.stops.some((stop) => stop.startsWith(tail))) return length;
    }
    return 0;
  }
}

/**
 * The same sequence, whose `sample` also ends (finish `stop`) with the token that completes a stop
 * text.
 */
export function withStopTexts(
  sequence: Sequence,
  tokenizer: Tokenizer,
  stops: readonly string[],
): Sequence {
  if (stops.length === 0) return sequence;
  return {
    policyVersion: sequence.policyVersion,
    get length() {
      return sequence.length;
    },
    append: (tokens) => sequence.append(tokens),
    truncate: (length) => sequence.truncate(length),
    fork: (length) => withStopTexts(sequence.fork(length), tokenizer, stops),
    close: () => sequence.close(),
    sample: (request) => sampleUntilText(sequence, tokenizer, stops, request),
  };
}

async function sampleUntilText(
  sequence: Sequence,
  tokenizer: Tokenizer,
  stops: readonly string[],
  request: SampleRequest,
): Promise<SampleResult> {
  const scanner = new StopScanner(stops);
  const decoder = new StreamDecoder(tokenizer);
  const enough = new AbortController();
  const lengthBefore = sequence.length;
  let kept = 0;
  const onTokens = (piece: SampledTokens): void => {
    if (scanner.found) return;
    let count = 0;
    while (count < piece.tokens.length && !scanner.found) {
      scanner.push(decoder.push([piece.tokens[count] as number]));
      count++;
    }
    kept += count;
    request.onTokens?.(count === piece.tokens.length ? piece : firstTokens(piece, count));
    if (scanner.found) enough.abort();
  };
  const signal =
    request.signal === undefined ? enough.signal : AbortSignal.any([request.signal, enough.signal]);
  const result = await sequence.sample({ ...request, signal, onTokens });
  if (!scanner.found) return result;
  sequence.truncate(lengthBefore + kept);
  return { ...firstTokens(result, kept), finish: 'stop' };
}

function firstTokens(piece: SampledTokens, count: number): SampledTokens {
  return {
    tokens: piece.tokens.slice(0, count),
    logprobs: piece.logprobs.slice(0, count),
    behaviourLogprobs: piece.behaviourLogprobs.slice(0, count),
    entropies: piece.entropies.slice(0, count),
  };
}
