/** Regular expressions from literal strings (spellings of tokens), safe in unicode mode. */

/** The pattern that matches exactly this text. */
export function literalPattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}

/** Whether the text is one code point. */
export function isSingleCharacter(text: string): boolean {
  return text.length === String.fromCodePoint(text.codePointAt(0) ?? 0).length;
}
