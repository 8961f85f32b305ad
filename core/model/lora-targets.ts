/**
 * Which modules of a model an adapter changes, by the rules of PEFT: a list of names (whole, or the
 * end after a dot), one regular expression over whole names, or `all-linear`.
 *
 * The expressions come from a file, so they are bounded before they run: they are Python's, and
 * those that a backtracking matcher could hang on are refused. Real ones are far simpler.
 */
import { AppError } from '../errors.ts';

export const ALL_LINEAR = 'all-linear';
/** The projections of a layer, by the end of their names. */
export const PROJECTIONS = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
] as const;

const PATTERN_CHARS_MAX = 1_000;
/** Repeats multiply the ways to match a name of some fifty characters. */
const PATTERN_REPEATS_MAX = 4;

/** Names of modules, one regular expression, or ALL_LINEAR. */
export type ModuleSet = string | readonly string[];

/** Whether `module` belongs to a set. Throws policy_invalid on an expression that is not safe. */
export function inModuleSet(set: ModuleSet, module: string, where: string): boolean {
  if (set === ALL_LINEAR) return true;
  if (typeof set === 'string') return safePattern(`^(?:${set})$`, set, where).test(module);
  return set.some((name) => module === name || module.endsWith(`.${name}`));
}

/** The value of the first key of a pattern table that matches the end of `module`. */
export function patternValue(
  table: Readonly<Record<string, number>>,
  module: string,
  where: string,
): number | undefined {
  for (const [key, value] of Object.entries(table)) {
    if (safePattern(`^(?:.*\\.)?(?:${key})$`, key, where).test(module)) return value;
  }
  return undefined;
}

function safePattern(whole: string, written: string, where: string): RegExp {
  const shown = JSON.stringify(written).slice(0, 120);
  const refuse = (why: string, cause?: unknown) =>
    new AppError('policy_invalid', `${where}: the pattern ${shown} ${why}`, { cause });
  if (written.length > PATTERN_CHARS_MAX) {
    throw refuse(`is longer than ${PATTERN_CHARS_MAX} characters`);
  }
  // Escaped characters and classes hold no repeats; what is left of them is one letter.
  const plain = written.replace(/\\./g, 'x').replace(/\[[^\]]*\]/g, 'x');
  if (/\)[*+{]/.test(plain)) throw refuse('repeats a group, which is not supported');
  if ((plain.match(/[*+{]/g) ?? []).length > PATTERN_REPEATS_MAX) {
    throw refuse(`has more than ${PATTERN_REPEATS_MAX} repeats, which is not supported`);
  }
  try {
    return new RegExp(whole);
  } catch (cause) {
    throw refuse('is not a regular expression', cause);
  }
}
