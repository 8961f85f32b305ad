/**
 * Turns the error list of a schema validator into one sentence for the caller: which field, in the
 * caller's spelling, what is expected and what came. Of the errors of a failed alternative the
 * deepest one is told, because there the caller came closest.
 */
import type { ErrorObject } from 'ajv/dist/2020.js';
import { must } from '../../core/assert.ts';

export interface Mistake {
  /** `messages[2].content`; the parameter's name for path, query and header. */
  param: string | null;
  message: string;
  /** The field is known but only its neutral value is offered. */
  unsupported: boolean;
}

/** Keywords that only sum up other errors. */
const SUMMARIES = new Set(['oneOf', 'anyOf', 'allOf', 'if', '$ref']);

const VALUE_CHARS_MAX = 60;

export function mistakeOf(errors: readonly ErrorObject[], place: string): Mistake {
  const detailed = errors.filter((error) => !SUMMARIES.has(error.keyword));
  const candidates = detailed.length > 0 ? detailed : errors;
  const depth = (error: ErrorObject): number => paramOf(error).length;
  const deepest = Math.max(...candidates.map(depth));
  const best = candidates.filter((error) => depth(error) === deepest);
  const first = must(
    best.find((error) => unsupportedText(error) !== null) ?? best[0],
    'a failed validation has an error',
  );
  const param = spelled(paramOf(first));
  const unsupported = unsupportedText(first);
  const expectation = unsupported ?? expected(first, best);
  return {
    param: param === '' ? null : param,
    message: `${param === '' ? place : param}: ${expectation}${got(first)}`,
    unsupported: unsupported !== null,
  };
}

function unsupportedText(error: ErrorObject): string | null {
  // A missing field is a plain mistake, whatever the neutral value would be.
  if (error.keyword === 'required') return null;
  const text: unknown = error.parentSchema?.['x-unsupported'];
  return typeof text === 'string' ? text : null;
}

function expected(error: ErrorObject, same: readonly ErrorObject[]): string {
  const params = error.params as Record<string, unknown>;
  switch (error.keyword) {
    case 'required':
      return 'is required';
    case 'additionalProperties':
    case 'unevaluatedProperties':
      return 'is not a known field';
    case 'enum':
      return `must be one of ${JSON.stringify(params['allowedValues'])}`;
    case 'const':
      return `must be ${JSON.stringify(params['allowedValue'])}`;
    case 'discriminator':
      return 'has an unknown value';
    case 'type': {
      const types = same.filter(({ keyword }) => keyword === 'type');
      const names = types.flatMap((one) => (one.params as { type: string | string[] }).type);
      return `must be ${[...new Set(names)].join(' or ')}`;
    }
    default:
      return error.message ?? `fails ${error.keyword}`;
  }
}

/** The offending value, cut short; nothing where the value is absent or the whole object. */
function got(error: ErrorObject): string {
  if (['required', 'additionalProperties', 'unevaluatedProperties'].includes(error.keyword)) {
    return '';
  }
  const value =
    error.keyword === 'discriminator'
      ? (error.params as { tagValue?: unknown }).tagValue
      : error.data;
  const text = JSON.stringify(value) ?? 'nothing';
  return ` (got ${text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}...` : text})`;
}

/** The path of the field at fault, including a missing or unknown property. */
function paramOf(error: ErrorObject): string[] {
  const path = error.instancePath
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));
  const params = error.params as Record<string, unknown>;
  const extra =
    params['missingProperty'] ??
    params['additionalProperty'] ??
    params['unevaluatedProperty'] ??
    (error.keyword === 'discriminator' ? params['tag'] : undefined);
  return typeof extra === 'string' ? [...path, extra] : path;
}

function spelled(path: readonly string[]): string {
  return path
    .map((token, i) => (/^\d+$/.test(token) ? `[${token}]` : i === 0 ? token : `.${token}`))
    .join('');
}
