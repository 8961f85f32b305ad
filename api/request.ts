/**
 * Turns an HTTP request into the typed input of an operation: reads the body within its bound
 * (unless its handler reads it as it comes), parses it by its media type, checks every part against
 * the contract. Whatever is wrong is told
 * with the field and the value.
 */
import type { Principal } from './auth.ts';
import { within } from './body-lines.ts';
import type { Contract, Operation, OperationId, RequestPart } from './contract/contract.ts';
import type { Input } from './handlers.ts';
import type { Activity } from './lifecycle.ts';
import { parseBoundedJson } from '../core/bounded-json.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

export interface RequestFacts {
  requestId: string;
  principal: Principal;
  activity: Activity;
  pathParameters: Record<string, string>;
}

/** @throws AppError invalid_request, invalid_json, unsupported_*, payload_too_large. */
export async function readInput(
  contract: Contract,
  operation: Operation,
  request: Request,
  facts: RequestFacts,
): Promise<Input<OperationId>> {
  const check = (part: RequestPart, value: unknown): unknown =>
    checked(contract, operation.id, part, value);
  const path = check('path', facts.pathParameters);
  const query = check('query', queryOf(new URL(request.url)));
  const names = contract.parameterNames(operation.id, 'header');
  const headers = check('header', headersOf(request, names)) as Record<string, unknown>;
  const header = Object.fromEntries(names.map((name) => [name, headers[name.toLowerCase()]]));
  const { bodyType, bodyStreamed } = operation;
  if (bodyType !== null) checkMediaType(request.headers.get('content-type'), bodyType);
  const isRead = bodyType !== null && !bodyStreamed;
  const body = isRead ? await readBody(request, bodyType, facts.activity.signal) : undefined;
  if (body !== undefined) check('body', body);
  const stream = bodyStreamed ? request.body : null;
  const { requestId, principal, activity } = facts;
  const trail = null;
  const input = { path, query, header, body, stream, requestId, principal, trail, activity };
  return input as unknown as Input<OperationId>;
}

function checked(contract: Contract, id: OperationId, part: RequestPart, value: unknown): unknown {
  const result = contract.checkRequest(id, part, value);
  if ('value' in result) return result.value;
  const { param, message, unsupported } = result.mistake;
  const code = unsupported ? 'unsupported_parameter' : 'invalid_request';
  throw new AppError(code, message, param === null ? {} : { param });
}

/** Names that end in [] are lists, as OpenAI's clients write them. */
function queryOf(url: URL): Record<string, string | string[]> {
  const out: Record<string, string | string[]> = {};
  for (const [name, value] of url.searchParams) {
    if (name.endsWith('[]')) {
      out[name] = url.searchParams.getAll(name);
      continue;
    }
    if (Object.hasOwn(out, name)) {
      throw new AppError('invalid_request', `${name}: is given twice`, { param: name });
    }
    out[name] = value;
  }
  return out;
}

function headersOf(request: Request, names: readonly string[]): Record<string, string> {
  const out: Record<string, string> = {};
  for (const name of names) {
    const value = request.headers.get(name);
    if (value !== null) out[name.toLowerCase()] = value;
  }
  return out;
}

/** Parsed JSON, or text for other media types. */
async function readBody(
  request: Request,
  mediaType: string,
  signal: AbortSignal,
): Promise<unknown> {
  const limitMs: number = LIMITS.bodyTimeoutMs;
  const text = decodeUtf8(await within(readBytes(request), { signal, limitMs }));
  if (mediaType !== 'application/json') return text;
  try {
    return parseBoundedJson(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new AppError('invalid_json', `the body is not valid JSON: ${why}`, { cause });
  }
}

/** Compares type and subtype, and lets only UTF-8 pass as charset. */
function checkMediaType(header: string | null, wanted: string): void {
  const [type = '', ...parameters] = (header ?? '').split(';').map((part) => part.trim());
  const charset = parameters
    .map((parameter) => /^charset="?([^"]*)"?$/i.exec(parameter)?.[1])
    .find((value) => value !== undefined);
  const known = charset === undefined || /^utf-?8$/i.test(charset);
  if (type.toLowerCase() === wanted && known) return;
  throw new AppError(
    'unsupported_media_type',
    `the content type must be ${wanted} in UTF-8, not ${header ?? 'absent'}`,
  );
}

async function readBytes(request: Request): Promise<Uint8Array> {
  const max = LIMITS.bodyBytesMax;
  const tooLarge = (): AppError =>
    new AppError('payload_too_large', `the body is larger than ${max} bytes`);
  if (Number(request.headers.get('content-length') ?? 0) > max) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let size = 0;
  // The declared length may be absent or a lie, so what really comes is counted too.
  const reader = request.body?.getReader() as ReadableStreamDefaultReader<Uint8Array> | undefined;
  for (;;) {
    const piece = await reader?.read();
    if (piece === undefined || piece.done) break;
    size += piece.value.byteLength;
    if (size > max) throw tooLarge();
    pieces.push(piece.value);
  }
  return Buffer.concat(pieces, size);
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new AppError('invalid_json', 'the body is not valid UTF-8', { cause });
  }
}
