/** Writes down which token may follow which, as logits of a bigram table. For tests only. */

export interface TokenTable {
  /** Allows each part after the part before it; a number is one token, a text is encoded. */
  path: (parts: readonly (string | number)[]) => void;
  /** Logit of the token `column` after the token `row`. */
  logit: (row: number, column: number) => number;
}

/** Allowed successors share nearly all mass; any other token keeps e^-12 of theirs. */
const ALLOWED_LOGIT = 12;

export function createTokenTable(encode: (text: string) => number[]): TokenTable {
  const allowed = new Set<string>();
  return {
    path(parts) {
      const tokens = parts.flatMap((part) => (typeof part === 'number' ? [part] : encode(part)));
      tokens.forEach((token, i) => {
        if (i > 0) allowed.add(`${tokens[i - 1]} ${token}`);
      });
    },
    logit: (row, column) => (allowed.has(`${row} ${column}`) ? ALLOWED_LOGIT : 0),
  };
}
