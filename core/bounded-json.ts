/**
 * JSON that somebody else wrote, parsed within a bound on nesting: what walks over a value, or
 * prints it in an error, does so by recursion and would run out of stack.
 */
import { LIMITS } from './limits.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Throws SyntaxError as JSON.parse does, and where lists and objects nest too deep. */
export function parseBoundedJson(text: string): unknown {
  if (depthOf(text) > LIMITS.jsonDepthMax) {
    throw new SyntaxError(`lists and objects nest deeper than ${LIMITS.jsonDepthMax}`);
  }
  return JSON.parse(text) as unknown;
}

/** The deepest nesting; of a text that is no JSON, some number. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (quoted) {
      if (code === BACKSLASH) i++;
      else if (code === QUOTE) quoted = false;
    } else if (code === QUOTE) quoted = true;
    else if (code === OPEN_LIST || code === OPEN_OBJECT) deepest = Math.max(deepest, ++depth);
    else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--;
  }
  return deepest;
}
