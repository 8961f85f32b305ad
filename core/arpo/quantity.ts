/**
 * Answers read as numbers, for the `math` verifier: integers, decimals, thousands separators,
 * fractions (3/4, 1 3/4, LaTeX \frac), powers of ten, with units and currency signs dropped.
 * A text that holds anything else, such as a second number, is not a quantity.
 */

/** Relative difference up to which two numbers count as equal. */
const TOLERANCE = 1e-6;
/** Longer texts are no numbers; the bound keeps the patterns below cheap. */
const CHARS_MAX = 200;

const NUMBER = String.raw`[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?`;
const LEADING = new RegExp(`^(${NUMBER})(?:e([-+]?\\d{1,3}))?(.*)$`, 's');
const UNIT = /^(?:[a-zµ°%$€£/·*()]+(?:\^?-?\d)?)$/;

/** The value of a text, or null when it is not exactly one number (with an optional unit). */
export function parseQuantity(text: string): number | null {
  if (text.length > CHARS_MAX) return null;
  const plain = text
    .trim()
    .toLowerCase()
    .replaceAll('−', '-')
    .replace(
      /(\d?)\s*\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}/g,
      (_, whole: string, a: string, b: string) =>
        whole === '' ? `${a}/${b}` : `${whole} ${a}/${b}`,
    )
    .replace(/\\(?:text|mathrm)\{([^{}]*)\}/g, ' $1')
    .replace(/\\[,;! ]|\\(?=[%$])/g, '')
    .replace(/\s*(?:\\times|×)\s*10\^\{?([-+]?\d+)\}?/g, 'e$1')
    .replace(/^[a-z]\s*=\s*/, '')
    .replace(/^([-+]?)\s*[$€£]\s*/, '$1')
    .trim()
    .replace(/\.$/, '');
  const head = leadingNumber(plain);
  if (head === null) return null;
  return withFraction(head.value, head.rest, head.text);
}

/** Reads "a/b" and "w a/b" after a leading number; else checks that only a unit follows. */
function withFraction(first: number, rest: string, firstText: string): number | null {
  if (/^\s*\/\s*[-+\d.]/.test(rest)) {
    const below = leadingNumber(rest.replace(/^\s*\/\s*/, ''));
    return below !== null && below.value !== 0 && isUnit(below.rest) ? first / below.value : null;
  }
  const mixed = /^\s+(\d+)\s*\/\s*(\d+)(.*)$/s.exec(rest);
  if (mixed !== null && /^[-+]?\d+$/.test(firstText)) {
    const fraction = Number(mixed[1]) / Number(mixed[2]);
    if (!Number.isFinite(fraction) || !isUnit(mixed[3] as string)) return null;
    return firstText.startsWith('-') ? first - fraction : first + fraction;
  }
  return isUnit(rest) ? first : null;
}

function leadingNumber(text: string): { value: number; text: string; rest: string } | null {
  const match = LEADING.exec(text);
  if (match === null || !/\d/.test(match[1] as string)) return null;
  const value = Number(`${(match[1] as string).replaceAll(',', '')}e${match[2] ?? '0'}`);
  return Number.isFinite(value)
    ? { value, text: match[1] as string, rest: match[3] as string }
    : null;
}

function isUnit(rest: string): boolean {
  return rest
    .split(/\s+/)
    .filter((word) => word !== '')
    .every((word) => UNIT.test(word));
}

/** Whether two texts are the same number; null when the truth is not a number at all. */
export function sameQuantity(answer: string, truth: string): boolean | null {
  const right = parseQuantity(truth);
  if (right === null) return null;
  const said = parseQuantity(answer);
  if (said === null) return false;
  return Math.abs(said - right) <= TOLERANCE * Math.max(Math.abs(said), Math.abs(right));
}
