/**
 * Defence against DNS rebinding while there are no keys: a web page can make a browser send
 * requests to this machine under a foreign name, but it cannot forge Host and Origin. Only loopback
 * names pass.
 */
import { AppError } from '../core/errors.ts';
import { isLoopback } from './config.ts';

/** @throws AppError forbidden */
export function checkHost(request: Request): void {
  const host = request.headers.get('host') ?? new URL(request.url).host;
  if (!isLoopback(hostName(host))) {
    throw new AppError('forbidden', `Host ${host} is not a loopback name`);
  }
  const origin = request.headers.get('origin');
  if (origin !== null && !isLoopback(originName(origin))) {
    throw new AppError('forbidden', `Origin ${origin} is not of this machine`);
  }
}

function hostName(host: string): string {
  return host.replace(/:\d*$/, '');
}

function originName(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).hostname : '';
}
