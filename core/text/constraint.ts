/**
 * Compiles a constraint (core/records.ts) to an automaton: its parts one after the other. What
 * cannot be compiled is refused here, so a request can be checked before any work starts.
 */
import type { Constraint, ConstraintPart } from '../records.ts';
import { Automaton } from './automaton.ts';
import { AutomatonRun } from './automaton-run.ts';
import type { CompileBudget } from './compile-budget.ts';
import { wideCharacters } from './json-rules.ts';
import { schemaRule } from './json-schema.ts';

/**
 * `budget`: of several constraints that have one bound.
 * @throws AppError invalid_request, naming the keyword of a schema that is not supported.
 */
export function compileConstraint(constraint: Constraint, budget?: CompileBudget): AutomatonRun {
  const automaton = new Automaton(budget);
  const start = automaton.state();
  automaton.endAt(addParts(automaton, start, constraint));
  return new AutomatonRun(automaton, start);
}

function addParts(automaton: Automaton, from: number, parts: Constraint): number {
  return parts.reduce((at, part) => addPart(automaton, at, part), from);
}

function addPart(automaton: Automaton, from: number, part: ConstraintPart): number {
  switch (part.kind) {
    case 'text':
      return automaton.text(from, part.text);
    case 'json':
      return automaton.call(from, schemaRule(automaton, part.schema, part.escaped));
    case 'free':
      return automaton.call(from, freeRule(automaton, part.without));
    case 'token': {
      const to = automaton.state();
      for (const token of part.anyOf) automaton.token(from, token, to);
      return to;
    }
    case 'oneOf': {
      const to = automaton.state();
      for (const option of part.options) automaton.empty(addParts(automaton, from, option), to);
      return to;
    }
  }
}

/**
 * Any text that contains none of these ASCII texts and whose first character is no white space.
 * Its states are the beginnings of those texts: the longest one that the text so far ends with
 * (Aho and Corasick 1975).
 */
function freeRule(automaton: Automaton, without: readonly string[]): number {
  const beginnings = new Set([
    '',
    ...without.flatMap((text) => Array.from(text, (_, length) => text.slice(0, length))),
  ]);
  const states = new Map([...beginnings].map((text) => [text, automaton.state()] as const));
  const stateOf = (text: string) => states.get(text) as number;
  const next = (text: string, char: string): number | null => {
    const longer = text + char;
    if (without.some((forbidden) => longer.endsWith(forbidden))) return null;
    for (let cut = 0; ; cut++) {
      const state = states.get(longer.slice(cut));
      if (state !== undefined) return state;
    }
  };
  for (const [text, state] of states) {
    automaton.endAt(state);
    for (const char of ASCII_TEXT) {
      const to = next(text, char);
      if (to !== null) automaton.range(state, char.charCodeAt(0), char.charCodeAt(0), to);
    }
    wideCharacters(automaton, state, stateOf(''));
  }
  const start = automaton.state();
  for (const char of ASCII_TEXT) {
    const to = char.trim() === '' ? null : next('', char);
    if (to !== null) automaton.range(start, char.charCodeAt(0), char.charCodeAt(0), to);
  }
  wideNonSpaces(automaton, start, stateOf(''));
  return start;
}

const ASCII_TEXT = [
  '\t',
  '\n',
  ...Array.from({ length: 0x7f - 0x20 }, (_, i) => String.fromCharCode(0x20 + i)),
];

/**
 * Characters beyond ASCII but those blocks of 64 that hold white space (U+1680, U+2000, U+2040,
 * U+3000, U+FEC0) or controls, as UTF-8.
 */
function wideNonSpaces(automaton: Automaton, from: number, to: number): void {
  const one = automaton.state();
  automaton.range(one, 0x80, 0xbf, to);
  const two = automaton.state();
  automaton.range(two, 0x80, 0xbf, one);
  const three = automaton.state();
  automaton.range(three, 0x80, 0xbf, two);
  const second = (lead: number, ...ranges: [number, number][]) => {
    const after = automaton.range(from, lead, lead);
    for (const [low, high] of ranges) automaton.range(after, low, high, one);
  };
  automaton.range(automaton.range(from, 0xc2, 0xc2), 0xa1, 0xbf, to);
  automaton.range(from, 0xc3, 0xdf, one);
  second(0xe0, [0xa0, 0xbf]);
  second(0xe1, [0x80, 0x99], [0x9b, 0xbf]);
  second(0xe2, [0x82, 0xbf]);
  second(0xe3, [0x81, 0xbf]);
  automaton.range(from, 0xe4, 0xec, two);
  second(0xed, [0x80, 0x9f]);
  automaton.range(from, 0xee, 0xee, two);
  second(0xef, [0x80, 0xba], [0xbc, 0xbf]);
  automaton.range(automaton.range(from, 0xf0, 0xf0), 0x90, 0xbf, two);
  automaton.range(from, 0xf1, 0xf3, three);
  automaton.range(automaton.range(from, 0xf4, 0xf4), 0x80, 0x8f, two);
}
