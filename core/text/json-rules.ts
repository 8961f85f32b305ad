/**
 * The rules of JSON text: strings, numbers, arrays, objects, any value. Each function adds a rule
 * to the automaton and returns its first state. Every rule has an end, and none has two ways to
 * spell white space without end.
 */
import type { Automaton } from './automaton.ts';

/** More digits than these a double does not hold. */
const DIGITS_MAX = 15;
const INTEGER_MAX = 10 ** DIGITS_MAX - 1;

export interface JsonMember {
  name: string;
  /** The rule of its value. */
  value: number;
  required: boolean;
}

export class JsonRules {
  private readonly automaton: Automaton;
  private readonly escaped: string;
  private character: number | null = null;
  private any: number | null = null;

  constructor(automaton: Automaton, escaped: string) {
    this.automaton = automaton;
    this.escaped = escaped;
  }

  /** A value as JSON text without white space, with the characters of `escaped` as escapes. */
  literal(value: unknown): string {
    if (typeof value === 'string') {
      const text = JSON.stringify(value);
      return Array.from(text, (char) => (this.escaped.includes(char) ? unicode(char) : char)).join(
        '',
      );
    }
    if (Array.isArray(value)) return `[${value.map((item) => this.literal(item)).join()}]`;
    if (typeof value !== 'object' || value === null) return JSON.stringify(value);
    const members = Object.entries(value).map(([k, v]) => `${this.literal(k)}:${this.literal(v)}`);
    return `{${members.join()}}`;
  }

  words(...words: string[]): number {
    const start = this.automaton.state();
    for (const word of words) this.automaton.endAt(this.automaton.text(start, word));
    return start;
  }

  /** Lengths in code points. */
  string(min: number, max: number | null): number {
    const { automaton } = this;
    const character = this.stringCharacter();
    const start = automaton.state();
    const body = automaton.text(start, '"');
    const end = automaton.repeat(body, min, max, (from) => automaton.call(from, character));
    automaton.endAt(automaton.text(end, '"'));
    return start;
  }

  number(): number {
    const { automaton } = this;
    const start = automaton.state();
    const whole = this.wholeNumber(this.optional(start, '-'));
    const point = automaton.text(whole, '.');
    const fraction = automaton.repeat(this.digit(point), 0, DIGITS_MAX - 1, (at) => this.digit(at));
    automaton.empty(whole, fraction);
    const sign = automaton.state();
    automaton.text(fraction, 'e', sign);
    automaton.text(fraction, 'E', sign);
    const exponent = automaton.state();
    for (const text of ['+', '-', '']) automaton.text(sign, text, exponent);
    const last = automaton.repeat(this.digit(exponent), 0, 1, (at) => this.digit(at));
    automaton.endAt(fraction);
    automaton.endAt(last);
    return start;
  }

  /** Integers of [low, high] with at most 15 digits; null when there are none. */
  integer(low: number, high: number): number | null {
    const least = Math.max(low, -INTEGER_MAX);
    const most = Math.min(high, INTEGER_MAX);
    if (least > most) return null;
    const { automaton } = this;
    const start = automaton.state();
    if (least < 0) {
      const minus = automaton.text(start, '-');
      this.magnitudes(minus, Math.max(1, -most), -least);
    }
    if (most >= 0) this.magnitudes(start, Math.max(0, least), most);
    return start;
  }

  array(item: number, min: number, max: number | null): number {
    const { automaton } = this;
    const start = automaton.state();
    const open = automaton.text(start, '[');
    const first = automaton.call(open, item);
    const rest = (from: number) => automaton.call(this.separated(from, ','), item);
    const more = max === null ? null : max - 1;
    const end = automaton.repeat(first, Math.max(0, min - 1), more, rest);
    const close = automaton.text(end, ']');
    if (min === 0) automaton.text(open, ']', close);
    automaton.endAt(close);
    return start;
  }

  /** These members in this order; those not required may be left out. */
  object(members: readonly JsonMember[]): number {
    const { automaton } = this;
    const start = automaton.state();
    // Two tracks: no member written yet, and some written, so that the next needs a comma.
    let none: number | null = automaton.text(start, '{');
    let some: number | null = null;
    for (const { name, value, required } of members) {
      const key = automaton.state();
      if (none !== null) automaton.empty(none, key);
      if (some !== null) automaton.empty(this.separated(some, ','), key);
      const colon = this.separated(automaton.text(key, this.literal(name)), ':');
      const after = automaton.call(colon, value);
      if (!required && some !== null) automaton.empty(some, after);
      if (required) none = null;
      some = after;
    }
    const close = automaton.state();
    for (const from of [none, some]) if (from !== null) automaton.text(from, '}', close);
    automaton.endAt(close);
    return start;
  }

  /** Any members with values of this rule. */
  freeObject(value: number): number {
    const { automaton } = this;
    const start = automaton.state();
    const name = this.string(0, null);
    const member = (from: number) =>
      automaton.call(this.separated(automaton.call(from, name), ':'), value);
    const open = automaton.text(start, '{');
    const rest = (from: number) => member(this.separated(from, ','));
    const close = automaton.text(automaton.repeat(member(open), 0, null, rest), '}');
    automaton.text(open, '}', close);
    automaton.endAt(close);
    return start;
  }

  anyValue(): number {
    if (this.any !== null) return this.any;
    const start = this.automaton.state();
    this.any = start;
    const rules = [
      this.string(0, null),
      this.number(),
      this.words('true', 'false', 'null'),
      this.array(start, 0, null),
      this.freeObject(start),
    ];
    for (const rule of rules) this.automaton.empty(start, rule);
    return start;
  }

  /**
   * One character of a string: valid UTF-8, or an escape that is no half of a surrogate pair, so
   * that every one is one code point.
   */
  private stringCharacter(): number {
    if (this.character !== null) return this.character;
    const { automaton } = this;
    const start = automaton.state();
    const end = automaton.state();
    automaton.endAt(end);
    this.character = start;
    for (let code = 0x20; code < 0x80; code++) {
      const char = String.fromCharCode(code);
      const raw = char !== '"' && char !== '\\' && !this.escaped.includes(char);
      if (raw) automaton.range(start, code, code, end);
    }
    wideCharacters(automaton, start, end);
    const escape = automaton.text(start, '\\');
    for (const char of '"\\/bfnrt') automaton.text(escape, char, end);
    const digits = automaton.text(escape, 'u');
    const any = automaton.state();
    for (const [low, high] of ['09', 'ac', 'ef', 'AC', 'EF']) {
      automaton.range(digits, code(low), code(high), any);
    }
    const below = automaton.state();
    for (const d of 'dD') automaton.text(digits, d, below);
    const two = automaton.range(below, code('0'), code('7'));
    this.hexDigit(any, two);
    this.hexDigit(this.hexDigit(two), end);
    return start;
  }

  private hexDigit(from: number, to = this.automaton.state()): number {
    for (const [low, high] of ['09', 'af', 'AF']) {
      this.automaton.range(from, code(low), code(high), to);
    }
    return to;
  }

  private digit(from: number): number {
    return this.automaton.range(from, code('0'), code('9'));
  }

  private optional(from: number, text: string): number {
    const to = this.automaton.text(from, text);
    this.automaton.empty(from, to);
    return to;
  }

  /** A mark and perhaps one space. */
  private separated(from: number, mark: string): number {
    return this.optional(this.automaton.text(from, mark), ' ');
  }

  private wholeNumber(from: number): number {
    const { automaton } = this;
    const first = automaton.range(from, code('1'), code('9'));
    const end = automaton.repeat(first, 0, DIGITS_MAX - 1, (at) => this.digit(at));
    automaton.text(from, '0', end);
    return end;
  }

  /** The decimal texts of [low, high], 0 <= low <= high, without leading zeros. */
  private magnitudes(from: number, low: number, high: number): void {
    const end = this.automaton.state();
    this.automaton.endAt(end);
    for (let digits = 1; digits <= DIGITS_MAX; digits++) {
      const least = Math.max(low, digits === 1 ? 0 : 10 ** (digits - 1));
      const most = Math.min(high, 10 ** digits - 1);
      if (least <= most) this.between(from, String(least), String(most), end);
    }
  }

  /** Digit texts of one length, between two of them. */
  private between(from: number, low: string, high: string, to: number): void {
    const { automaton } = this;
    if (low === '') return void automaton.empty(from, to);
    const [least, most] = [code(low), code(high)];
    const [lowRest, highRest] = [low.slice(1), high.slice(1)];
    const [zeros, nines] = ['0'.repeat(lowRest.length), '9'.repeat(lowRest.length)];
    const branch = (first: number, last: number, restLow: string, restHigh: string) =>
      this.between(automaton.range(from, first, last), restLow, restHigh, to);
    if (least === most) return branch(least, most, lowRest, highRest);
    if (low.slice(1) === zeros && highRest === nines) return branch(least, most, zeros, nines);
    branch(least, least, lowRest, nines);
    if (most - least > 1) branch(least + 1, most - 1, zeros, nines);
    branch(most, most, zeros, highRest);
  }
}

/** Every character beyond ASCII, as valid UTF-8 (no surrogates, nothing overlong). */
export function wideCharacters(automaton: Automaton, from: number, to: number): void {
  const one = automaton.state(); // One more byte follows.
  automaton.range(one, 0x80, 0xbf, to);
  const two = automaton.state();
  automaton.range(two, 0x80, 0xbf, one);
  const three = automaton.state();
  automaton.range(three, 0x80, 0xbf, two);
  automaton.range(from, 0xc2, 0xdf, one);
  automaton.range(automaton.range(from, 0xe0, 0xe0), 0xa0, 0xbf, one);
  automaton.range(from, 0xe1, 0xec, two);
  automaton.range(automaton.range(from, 0xed, 0xed), 0x80, 0x9f, one);
  automaton.range(from, 0xee, 0xef, two);
  automaton.range(automaton.range(from, 0xf0, 0xf0), 0x90, 0xbf, two);
  automaton.range(from, 0xf1, 0xf3, three);
  automaton.range(automaton.range(from, 0xf4, 0xf4), 0x80, 0x8f, two);
}

function code(text: string | undefined): number {
  return (text ?? '').charCodeAt(0);
}

function unicode(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
