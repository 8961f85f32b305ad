/**
 * Documents of a collection as lines of JSON, checked against the contract's DocumentLine. The
 * first wrong line is told by its number.
 */
import { parseBoundedJson } from '../core/bounded-json.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { SearchDocument } from '../db/search-index.ts';
import type { Contract } from './contract/contract.ts';
import type { Schemas } from './handlers.ts';

/** @throws AppError invalid_json, invalid_request */
export function readDocumentLine(
  contract: Contract,
  { number, text }: { number: number; text: string },
): SearchDocument {
  const place = `line ${number}`;
  let value: unknown;
  try {
    value = parseBoundedJson(text);
  } catch (cause) {
    const message = `${place}: not valid JSON: ${toAppError(cause).message}`;
    throw new AppError('invalid_json', message, { param: place, cause });
  }
  const mistake = contract.checkSchema('DocumentLine', value);
  if (mistake !== null) {
    throw new AppError('invalid_request', `${place}: ${mistake.message}`, { param: place });
  }
  const { id, title = '', text: body } = value as Schemas['DocumentLine'];
  return { id, title, text: body };
}
