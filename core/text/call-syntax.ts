/**
 * How a policy that works in turns writes its calls, and how they are read back: one syntax a model
 * family. Calls that do not parse make the whole step malformed: none of them is run. Knows nothing
 * of turns, templates or reasoning (turn-protocol.ts).
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { ToolSpec } from '../ports.ts';
import type { Constraint } from '../records.ts';
import { argumentsSchema, jsonPart, markPart, textPart } from './answer-form.ts';
import { isObject } from './policy-files.ts';
import type { CallOpening, ToolCallRequest, Tokenizer } from './types.ts';

export interface ReadCalls {
  calls: ToolCallRequest[];
  /** The text outside the calls, trimmed. */
  content: string;
  /** Why the calls are none; null when all is well. */
  malformed: string | null;
}

export interface CallSyntax {
  readonly name: 'hermes' | 'llama' | 'plain';
  readonly opening: CallOpening;
  /** Reads a step without its reasoning and end token. */
  read(text: string): ReadCalls;
  /** What a call of the tool spells. */
  write(tool: ToolSpec, tokenizer: Tokenizer): Constraint;
}

/**
 * Hermes, Qwen: `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`, one or several,
 * with words around them.
 */
export const HERMES_CALLS: CallSyntax = {
  name: 'hermes',
  opening: { anywhere: '<tool_call>', atStart: [], callEnd: '</tool_call>' },
  read(text) {
    const { bodies, content, fault } = splitTagged(text);
    if (fault !== null) return { calls: [], content, malformed: fault };
    return collect(
      bodies.map((body) => parseCall(body, 'arguments')),
      content,
    );
  },
  write: (tool, tokenizer) => [
    markPart(tokenizer, '<tool_call>'),
    textPart(`\n{"name": ${JSON.stringify(tool.name)}, "arguments": `),
    jsonPart(argumentsSchema(tool)),
    textPart('}\n'),
    markPart(tokenizer, '</tool_call>'),
  ],
};

const PYTHON_TAG = '<|python_tag|>';

/**
 * Llama 3.1 and later: the whole step is `{"name": ..., "parameters": {...}}`, sometimes behind
 * <|python_tag|>, sometimes several with `;` between. Other JSON is an answer like any text; behind
 * the tag it is a malformed call.
 */
export const LLAMA_CALLS: CallSyntax = {
  name: 'llama',
  opening: { anywhere: null, atStart: [PYTHON_TAG, '{'], callEnd: null },
  read(text) {
    const trimmed = text.trim();
    const tagged = trimmed.startsWith(PYTHON_TAG);
    const body = tagged ? trimmed.slice(PYTHON_TAG.length).trim() : trimmed;
    const answer = { calls: [], content: trimmed, malformed: null };
    if (!tagged && !body.startsWith('{')) return answer;
    // One object may hold `}; {` in a string, so it is tried as a whole first.
    const whole = parseCall(body, 'parameters');
    const parts = body.split(/(?<=\}\s*);\s*(?=\{)/);
    const parsed =
      typeof whole === 'string' && parts.length > 1
        ? parts.map((part) => parseCall(part, 'parameters'))
        : [whole];
    const read = collect(parsed, '');
    return read.malformed === null || tagged ? { ...read, content: '' } : answer;
  },
  write: (tool) => [
    textPart(`{"name": ${JSON.stringify(tool.name)}, "parameters": `),
    jsonPart(argumentsSchema(tool)),
    textPart('}'),
  ],
};

/** A policy that was never taught a form of calls: every text is the answer. */
export const NO_CALLS: CallSyntax = {
  name: 'plain',
  opening: { anywhere: null, atStart: [], callEnd: null },
  read: (text) => ({ calls: [], content: text.trim(), malformed: null }),
  write() {
    throw noCalls();
  },
};

/** A policy that makes no calls was asked for one. */
export function noCalls(): AppError {
  return new AppError('invalid_request', 'tools: this policy has no form of tool calls', {
    param: 'tools',
  });
}

function collect(parsed: readonly (ToolCallRequest | string)[], content: string): ReadCalls {
  const malformed = parsed.find((call) => typeof call === 'string') ?? null;
  if (malformed !== null) return { calls: [], content, malformed };
  return { calls: parsed.filter((call) => typeof call !== 'string'), content, malformed: null };
}

const CALL_TAG = /<(\/?)tool_call>/g;

interface TaggedCalls {
  bodies: string[];
  content: string;
  fault: string | null;
}

function splitTagged(text: string): TaggedCalls {
  const bodies: string[] = [];
  let content = '';
  let at = 0;
  let open: number | null = null;
  for (const match of text.matchAll(CALL_TAG)) {
    const closing = match[1] === '/';
    if (closing !== (open !== null)) {
      return { bodies, content: text.trim(), fault: `unpaired tag: ${match[0]}` };
    }
    const end = match.index + match[0].length;
    if (closing) {
      bodies.push(text.slice(must(open, 'checked above'), match.index));
      at = end;
      open = null;
    } else {
      content += text.slice(at, match.index);
      open = end;
    }
  }
  if (open !== null) {
    return { bodies, content: text.trim(), fault: 'unpaired tag: <tool_call> is not closed' };
  }
  return { bodies, content: (content + text.slice(at)).trim(), fault: null };
}

/** The call, or why it is none. */
function parseCall(body: string, argumentsKey: string): ToolCallRequest | string {
  if (body.trim() === '') return 'an empty call';
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    return `a call that is not valid JSON: ${error instanceof Error ? error.message : 'unknown'}`;
  }
  if (!isObject(value)) return 'a call that is not a JSON object';
  const { name } = value;
  if (typeof name !== 'string' || name === '') return 'a call without a name';
  const given = value[argumentsKey];
  if (!isObject(given)) return `the call of ${name} has no ${argumentsKey} object`;
  return { name, arguments: JSON.stringify(given) };
}
