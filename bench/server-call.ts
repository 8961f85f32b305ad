/** One JSON call of a bench to the server that it measures. */
import { AppError } from '../core/errors.ts';

const CALL_MS = 30_000;

/** The parsed answer. Throws `internal` with the server's own words on any status but 2xx. */
export async function callServer<T>(
  url: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<T> {
  const response = await fetch(url + path, {
    method,
    signal: AbortSignal.timeout(CALL_MS),
    ...(body !== undefined && {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }),
  });
  if (response.ok) return (await response.json()) as T;
  throw new AppError('internal', `${method} ${path}: ${response.status} ${await response.text()}`);
}
