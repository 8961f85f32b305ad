/**
 * The LaTeX convention for final answers: the content of the last \boxed{...}. Braces inside must
 * balance; an escaped brace (\{ or \}) is a character and does not count.
 */

const OPENING = '\\boxed{';

/** The trimmed content of the last \boxed{}; null when there is none or it does not close. */
export function extractBoxed(text: string): string | null {
  const at = text.lastIndexOf(OPENING);
  if (at === -1) return null;
  const start = at + OPENING.length;
  let depth = 1;
  for (let i = start; i < text.length; i++) {
    const char = text[i];
    if (char === '\\') i++;
    else if (char === '{') depth++;
    else if (char === '}' && --depth === 0) return text.slice(start, i).trim();
  }
  return null;
}
