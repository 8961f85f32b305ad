/**
 * The form that a client demands of a step (one of these functions must be called, the answer must
 * be JSON of this schema) as a constraint on tokens, in the protocol of the policy. What the
 * constraint lets through, the protocol reads back as what was demanded.
 *
 * A step in a demanded form does not think first; a prompt that leaves <think> open has it closed.
 * In JSON strings `<` is written as an escape, so that no tag can stand there.
 */
import { AppError } from '../errors.ts';
import type { ToolSpec } from '../ports.ts';
import type { Constraint, ConstraintPart, JsonSchema } from '../records.ts';
import { isObject, type JsonObject } from './policy-files.ts';
import type { AnswerForm, Tokenizer } from './types.ts';

/** How one protocol writes what a form may be. */
export interface FormWriter {
  tokenizer: Tokenizer;
  /** With what ends the step. Throws invalid_request for a tool that this policy cannot call. */
  call(tool: ToolSpec): Constraint;
  /** With what ends the step. */
  answer(schema: JsonSchema): Constraint;
}

/**
 * `context`: the text that the step goes on from.
 * @throws AppError invalid_request, unknown_tool for tools that this policy cannot call.
 */
export function formConstraint(writer: FormWriter, form: AnswerForm, context: string): Constraint {
  const { tokenizer } = writer;
  const options = form.calls.map((tool) => writer.call(tool));
  if (form.answer !== null) options.push(writer.answer(form.answer));
  const open = /<think>\s*$/.test(context);
  return [
    ...(open ? [markPart(tokenizer, '</think>'), textPart('\n\n')] : []),
    ...(options.length === 1 ? options.flat() : [{ kind: 'oneOf', options } as const]),
  ];
}

/** A mark of the protocol: its token, or its text where it has none. */
export function markPart(tokenizer: Tokenizer, mark: string): ConstraintPart {
  const token = tokenizer.tokenId(mark);
  return token === null ? textPart(mark) : { kind: 'token', anyOf: [token] };
}

export function textPart(text: string): ConstraintPart {
  return { kind: 'text', text };
}

export function jsonPart(schema: JsonSchema, escaped = '<'): ConstraintPart {
  return { kind: 'json', schema, escaped };
}

/** The parameters of a tool as a schema that only objects fit. */
export function argumentsSchema({ name, parameters }: ToolSpec): JsonSchema {
  const elsewhere = parameters.$ref !== undefined || parameters.anyOf !== undefined;
  if (parameters.type === undefined && !elsewhere) return { ...parameters, type: 'object' };
  if (elsewhere || parameters.type === 'object') return parameters;
  throw unfit(name, 'its parameters are not those of an object');
}

/**
 * The body of a tag that fills one string argument: any text without these texts, or one of the
 * texts that the schema allows.
 */
export function bodyParts(
  { name, parameters }: ToolSpec,
  argument: string,
  without: readonly string[],
): Constraint {
  const { properties = {}, required = [] } = parameters;
  const needed = Array.isArray(required) ? required.map(String) : [];
  const other = needed.find((one) => one !== argument);
  if (other !== undefined) {
    throw unfit(name, `this policy fills only '${argument}', and '${other}' is required`);
  }
  const declared = isObject(properties) ? properties[argument] : undefined;
  if (declared === undefined && parameters.additionalProperties === false) {
    throw unfit(name, `this policy fills '${argument}', which its parameters do not allow`);
  }
  if (!isObject(declared)) return [{ kind: 'free', without }];
  const values = literalsOf(declared);
  if (values === null) {
    refuseKeywords(name, argument, declared);
    return [{ kind: 'free', without }];
  }
  const texts = values.filter(
    (value): value is string =>
      typeof value === 'string' &&
      value !== '' &&
      value === value.trim() &&
      !without.some((text) => value.includes(text)),
  );
  if (texts.length === 0) throw unfit(name, `no value of '${argument}' can be a tag's body`);
  return [{ kind: 'oneOf', options: texts.map((text) => [textPart(text)]) }];
}

function literalsOf(schema: JsonObject): unknown[] | null {
  if (Array.isArray(schema.enum)) return schema.enum as unknown[];
  return schema.const === undefined ? null : [schema.const];
}

function refuseKeywords(name: string, argument: string, schema: JsonObject): void {
  const known = ['type', 'title', 'description', 'default', 'examples'];
  const keyword = Object.keys(schema).find((one) => !known.includes(one));
  if (keyword !== undefined) {
    throw unfit(name, `'${argument}' has ${keyword}, which this policy's calls cannot be bound to`);
  }
  const types: unknown[] = Array.isArray(schema.type) ? schema.type : [schema.type ?? 'string'];
  if (!types.includes('string')) throw unfit(name, `this policy fills '${argument}' with a string`);
}

function unfit(name: string, why: string): AppError {
  return new AppError('invalid_request', `a call of ${name} cannot be demanded: ${why}`, {
    param: 'tool_choice',
  });
}
