/**
 * Which tokens of a vocabulary may come next at a position of an automaton. The tokens are sorted
 * by their bytes, so what two neighbours share is walked once, and a prefix that does not fit rules
 * out all that begin with it. Added tokens are no text: only a token edge allows them.
 */
import { LIMITS } from '../limits.ts';
import type { AutomatonRun, Position } from './automaton-run.ts';

/** A vocabulary as constraints and stop texts see it. */
export interface TokenBytes {
  readonly vocabularySize: number;
  /** Empty for an unused id. */
  tokenBytes(token: number): Uint8Array;
  /** Whether the token stands for itself (a tag, an end of turn) and never spells text. */
  isAdded(token: number): boolean;
}

/** The vocabulary of a tokenizer. */
export function tokenBytesOf(tokenizer: {
  vocabularySize: number;
  tokenBytes(token: number): Uint8Array;
  addedTokens: readonly { id: number }[];
}): TokenBytes {
  const added = new Set(tokenizer.addedTokens.map(({ id }) => id));
  return {
    vocabularySize: tokenizer.vocabularySize,
    tokenBytes: (token) => tokenizer.tokenBytes(token),
    isAdded: (token) => added.has(token),
  };
}

export class TokenTable {
  readonly vocabulary: TokenBytes;
  private readonly tokens: Uint32Array;
  private readonly bytes: readonly Uint8Array[];
  /** How many bytes each token shares with the one before it. */
  private readonly shared: Uint32Array;

  constructor(vocabulary: TokenBytes) {
    this.vocabulary = vocabulary;
    const spelled: { token: number; bytes: Uint8Array; key: string }[] = [];
    for (let token = 0; token < vocabulary.vocabularySize; token++) {
      const bytes = vocabulary.tokenBytes(token);
      if (bytes.length === 0 || vocabulary.isAdded(token)) continue;
      // A character a byte: strings compare much faster than byte arrays.
      spelled.push({ token, bytes, key: Buffer.from(bytes).toString('latin1') });
    }
    spelled.sort((a, b) => (a.key < b.key ? -1 : 1));
    this.tokens = Uint32Array.from(spelled, ({ token }) => token);
    this.bytes = spelled.map(({ bytes }) => bytes);
    this.shared = Uint32Array.from(spelled, ({ bytes }, i) =>
      i === 0 ? 0 : commonLength(bytes, (spelled[i - 1] as { bytes: Uint8Array }).bytes),
    );
  }

  /** A bit a token, 32 a word. */
  mask(run: AutomatonRun, start: Position): Uint32Array {
    const mask = new Uint32Array(Math.ceil(this.vocabulary.vocabularySize / 32));
    const set = (token: number) => (mask[token >>> 5] = (mask[token >>> 5] ?? 0) | (1 << token));
    for (const token of run.tokensAt(start)) set(token);
    const path: Position[] = [start]; // After 0, 1, .. bytes of the token at hand.
    let rejected = Infinity; // Place of the byte that did not fit; Infinity: all fitted.
    for (let i = 0; i < this.tokens.length; i++) {
      const shared = this.shared[i] as number;
      if (shared > rejected) continue;
      const bytes = this.bytes[i] as Uint8Array;
      rejected = Infinity;
      for (let at = shared; at < bytes.length; at++) {
        const next = run.byte(path[at] as Position, bytes[at] as number);
        if (next === null) {
          rejected = at;
          break;
        }
        path[at + 1] = next;
      }
      if (rejected === Infinity) set(this.tokens[i] as number);
    }
    return mask;
  }
}

/** One constraint on one vocabulary; shared by all samples that have it. */
export class MaskedAutomaton {
  private readonly run: AutomatonRun;
  private readonly table: TokenTable;
  private masks: Position[] = [];

  constructor(run: AutomatonRun, table: TokenTable) {
    this.run = run;
    this.table = table;
  }

  start(): Position {
    return this.run.start();
  }

  /** Tokens that may come next. Do not change it: it is kept for the next time. */
  allowed(position: Position): Uint32Array {
    if (position.mask !== null) return position.mask;
    if (this.masks.length >= LIMITS.constraintMasksMax) {
      for (const kept of this.masks) kept.mask = null;
      this.masks = [];
    }
    position.mask = this.table.mask(this.run, position);
    this.masks.push(position);
    return position.mask;
  }

  /** The position after one more token; null when it does not fit. */
  next(position: Position, token: number): Position | null {
    const { vocabulary } = this.table;
    const byToken = this.run.token(position, token);
    if (byToken !== null || vocabulary.isAdded(token)) return byToken;
    const bytes = vocabulary.tokenBytes(token);
    if (bytes.length === 0) return null;
    let at: Position | null = position;
    for (const byte of bytes) {
      at = this.run.byte(at, byte);
      if (at === null) return null;
    }
    return at;
  }
}

function commonLength(a: Uint8Array, b: Uint8Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
