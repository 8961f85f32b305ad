/**
 * Keeps user text from forging special tokens in a rendered chat template. A guard character, one
 * that occurs nowhere in the conversation, is put inside every spelling of an added token in a
 * user's string (after its first character), and where such a string begins or ends with a part of
 * one, so that template text beside it cannot complete it. BpeTokenizer.encodeTemplate
 * removes it.
 *
 * Everything else stays as it is, so templates that trim, compare or search contents still work and
 * text without such spellings encodes exactly as Hugging Face transformers does it. Known gap: a
 * template that looks for an added token in a user's text (`startswith('<tool_response>')`) does
 * not find it, which is what we want.
 */
import { AppError } from '../errors.ts';
import { isSingleCharacter, literalPattern } from './pattern.ts';
import { isObject } from './policy-files.ts';
import type { AddedToken } from './tokenizer.ts';

/** Private use area: never part of ordinary text, and JSON writes it unescaped. */
const GUARD_FIRST = 0xe000;
const GUARD_LAST = 0xf8ff;

/**
 * A character that occurs in none of the strings inside `value`. Throws invalid_request when the
 * conversation uses all 6,400 characters of the private use area, which no text does.
 */
export function chooseGuard(value: unknown): string {
  const strings: string[] = [];
  collectStrings(value, strings);
  for (let code = GUARD_FIRST; code <= GUARD_LAST; code++) {
    const guard = String.fromCharCode(code);
    if (!strings.some((text) => text.includes(guard))) return guard;
  }
  throw new AppError('invalid_request', 'messages use the whole private use area of Unicode', {
    param: 'messages',
  });
}

function collectStrings(value: unknown, out: string[]): void {
  if (typeof value === 'string') out.push(value);
  else if (Array.isArray(value)) value.forEach((item) => collectStrings(item, out));
  else if (isObject(value)) {
    for (const [key, item] of Object.entries(value)) {
      out.push(key);
      collectStrings(item, out);
    }
  }
}

/** Guards the strings (and object keys) of one conversation. */
export class TemplateGuard {
  readonly char: string;
  private readonly replacements: [RegExp, string][] = [];
  private readonly tokens: readonly string[];

  constructor(char: string, tokens: readonly AddedToken[]) {
    this.char = char;
    this.tokens = tokens.map((token) => token.content);
    const long = this.tokens.filter((token) => !isSingleCharacter(token)).map(literalPattern);
    const single = this.tokens.filter(isSingleCharacter).map(literalPattern);
    if (long.length > 0) {
      // The look-ahead tries every position, so spellings that overlap are all broken.
      this.replacements.push([new RegExp(`(?=${long.join('|')})[^]`, 'gu'), `$&${char}`]);
    }
    if (single.length > 0) {
      // Two, because one may stand at the end of a text, before a token of the template.
      this.replacements.push([new RegExp(single.join('|'), 'gu'), `${char}${char}$&`]);
    }
  }

  text(text: string): string {
    let inner = text;
    for (const [pattern, guarded] of this.replacements) inner = inner.replace(pattern, guarded);
    const begins = this.tokens.some((token) => beginsWithTail(text, token));
    const ends = this.tokens.some((token) => endsWithHead(text, token));
    return `${begins ? this.char : ''}${inner}${ends ? this.char : ''}`;
  }

  /** The same for every string and key inside a JSON value. */
  deep(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (Array.isArray(value)) return value.map((item) => this.deep(item));
    if (!isObject(value)) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [this.text(key), this.deep(item)]),
    );
  }
}

// Parts that are white space are left out: a guard beside them would keep a template from trimming.

function beginsWithTail(text: string, token: string): boolean {
  for (let i = 1; i < token.length; i++) {
    const tail = token.slice(i);
    if (tail.trim() !== '' && text.startsWith(tail)) return true;
  }
  return false;
}

function endsWithHead(text: string, token: string): boolean {
  for (let i = 1; i < token.length; i++) {
    const head = token.slice(0, i);
    if (head.trim() !== '' && text.endsWith(head)) return true;
  }
  return false;
}
