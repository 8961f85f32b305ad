/**
 * One call of a declared HTTP operation: the address from its template and the arguments, the
 * request, redirects one by one, and the answer as text within a bound. Every redirect goes through
 * the same guarded connections (address-guard.ts); what the operator declared as headers, secrets
 * among them, is sent to the declared origin only, and not after a redirect has left it.
 */
import { request } from 'undici';
import type { Dispatcher } from 'undici';
import { AppError, toAppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';
import { placeholders } from './declaration.ts';
import type { HttpOperation } from './declaration.ts';

type Arguments = Readonly<Record<string, unknown>>;

interface Message {
  url: URL;
  method: string;
  headers: Record<string, string>;
  body: string | null;
}

/** What may be different the next time. */
const PASSING_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);
const ACCEPT = 'application/json, text/*;q=0.9, */*;q=0.1';
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const WITH_BODY = new Set(['POST', 'PUT', 'PATCH']);
/** Of failures that another try may not have. */
const PASSING_CODE =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|EAI_AGAIN|UND_ERR_(SOCKET|CONNECT_TIMEOUT))$/;
const TEXT = /^(text\/|application\/([\w.+-]*\+)?(json|xml|yaml|javascript|x-ndjson|jsonl)\b)/;

/** @throws AppError tool_failed (with `retryAfterS` when it may pass), tool_arguments_invalid */
export async function callHttp(
  operation: HttpOperation,
  args: Arguments,
  options: { dispatcher: Dispatcher; signal: AbortSignal },
): Promise<string> {
  let message = messageOf(operation, args);
  for (let hops = 0; ; hops++) {
    const { status, location, text } = await sent(message, options);
    if (location === null) return judged(status, text);
    if (hops === LIMITS.httpRedirectsMax) throw failed(`more than ${hops} redirects`);
    message = redirected(message, status, location);
  }
}

/** Arguments that the address does not name are its query, or the body of a method that has one. */
export function messageOf(operation: HttpOperation, args: Arguments): Message {
  const { method, url: template } = operation;
  const [address = '', query] = template.split(/\?(.*)/s);
  const path = address.replaceAll(/\{(\w+)\}/g, (_, name: string) => filled(args, name));
  // The parser would take a part `..` away together with the part before it.
  if (path.split('/').some((part) => part === '.' || part === '..')) {
    throw new AppError('tool_arguments_invalid', `${path} is no path: it has a part . or ..`);
  }
  const search = query?.replaceAll(/\{(\w+)\}/g, (_, name: string) => filled(args, name, true));
  const url = new URL(search === undefined ? path : `${path}?${search}`);
  const named = new Set(placeholders(template));
  const others = Object.entries(args).filter(([name]) => !named.has(name));
  const headers = { accept: ACCEPT, ...operation.headers };
  if (WITH_BODY.has(method)) {
    const body = JSON.stringify(Object.fromEntries(others));
    return { url, method, headers: { 'content-type': 'application/json', ...headers }, body };
  }
  for (const [name, value] of others) {
    for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) {
      url.searchParams.append(name, textOf(one));
    }
  }
  return { url, method, headers, body: null };
}

function filled(args: Arguments, name: string, mayBeEmpty = false): string {
  const text = textOf(args[name]);
  if (text === '' && !mayBeEmpty) {
    throw new AppError('tool_arguments_invalid', `${name} must not be empty`);
  }
  // Half of a surrogate pair, which cannot be sent, becomes the sign for that.
  return encodeURIComponent(Buffer.from(text).toString());
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

interface Answer {
  status: number;
  /** Where it sends on to; null: nowhere. */
  location: string | null;
  text: string;
}

async function sent(
  { url, method, headers, body }: Message,
  { dispatcher, signal }: { dispatcher: Dispatcher; signal: AbortSignal },
): Promise<Answer> {
  try {
    const response = await request(url, {
      method: method,
      // Packed answers could be bombs, and small ones gain nothing.
      headers: { 'accept-encoding': 'identity', 'user-agent': 'ramify', ...headers },
      body,
      dispatcher,
      signal,
    });
    return await answerOf(response);
  } catch (thrown) {
    signal.throwIfAborted();
    throw failure(url, thrown);
  }
}

async function answerOf({ statusCode, headers, body }: Dispatcher.ResponseData): Promise<Answer> {
  const one = (name: string): string => [headers[name] ?? ''].flat()[0] ?? '';
  const after = /^\d{1,4}$/.test(one('retry-after')) ? Number(one('retry-after')) : 0;
  // One that is not read to its end says so when it is destroyed.
  body.on('error', () => undefined);
  try {
    const location = REDIRECTS.has(statusCode) ? one('location') : '';
    if (location !== '') return { status: statusCode, location, text: '' };
    const type = one('content-type').toLowerCase();
    const coding = one('content-encoding').toLowerCase();
    if (coding !== '' && coding !== 'identity') throw failed(`the answer is packed (${coding})`);
    if (PASSING_STATUS.has(statusCode)) {
      throw failed(`status ${statusCode}`, after);
    }
    if (type !== '' && !TEXT.test(type)) throw failed(`the answer is ${type}, which is no text`);
    const charset = /charset="?([\w-]+)/.exec(type)?.[1] ?? 'utf-8';
    return { status: statusCode, location: null, text: await bounded(body, charset) };
  } finally {
    body.destroy();
  }
}

/** More than a result may have is not read. */
async function bounded(body: AsyncIterable<Uint8Array>, charset: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    bytes += chunk.byteLength;
    if (bytes > LIMITS.httpResponseBytesMax) break;
  }
  let decoder;
  try {
    decoder = new TextDecoder(charset);
  } catch {
    throw failed(`the answer has the unknown charset ${charset}`);
  }
  return decoder.decode(Buffer.concat(chunks).subarray(0, LIMITS.httpResponseBytesMax));
}

function judged(status: number, text: string): string {
  if (status >= 200 && status < 300) return text === '' ? `done (status ${status})` : text;
  throw failed(`status ${status}: ${text.trim().replaceAll(/\s+/g, ' ')}`);
}

function redirected(message: Message, status: number, location: string): Message {
  if (!URL.canParse(location, message.url.href)) throw failed(`a redirect to no address`);
  const url = new URL(location, message.url.href);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw failed(`a redirect to ${url.protocol}`);
  }
  if (message.url.protocol === 'https:' && url.protocol === 'http:') {
    throw failed('a redirect from https to http');
  }
  const isRead = message.method === 'GET';
  const becomesGet = status === 303 || (!isRead && (status === 301 || status === 302));
  const sameOrigin = url.origin === message.url.origin;
  if (!sameOrigin && !isRead && !becomesGet) {
    throw failed(`a redirect of ${message.method} to another server (${url.host})`);
  }
  url.username = '';
  url.password = '';
  return {
    url,
    method: becomesGet ? 'GET' : message.method,
    // Gone for good: back on the declared server the path would still be the other's choice.
    headers: sameOrigin ? message.headers : { accept: ACCEPT },
    body: becomesGet ? null : message.body,
  };
}

function failure(url: URL, thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  const error = thrown as NodeJS.ErrnoException;
  // Several addresses that fail come as one error with a code.
  const { code = '' } = error;
  const why = error.message === '' || error.message === undefined ? code : error.message;
  const passing = PASSING_CODE.test(code);
  const message = `${url.host}: ${why || toAppError(thrown).message}`;
  return passing ? failed(message, 0) : failed(message);
}

function failed(message: string, retryAfterS?: number): AppError {
  return new AppError('tool_failed', message, retryAfterS === undefined ? {} : { retryAfterS });
}
