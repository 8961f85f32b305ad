/**
 * The socket in front of the application: where it is bound, and the bounds of what may come before
 * there is a request at all: how many connections, how large and how slow the head of one may be.
 * What never becomes a request gets an error of the usual shape, if it can still be told.
 */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { Server as HttpServer } from 'node:http';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { createAdaptorServer } from '@hono/node-server';
import type { Clock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { KeyStore } from '../db/key-store.ts';
import { openForReading } from '../db/open.ts';
import { isLoopback } from './config.ts';
import type { Config } from './config.ts';
import { hasUsableAdmin } from './key-ring.ts';
import { problemResponse } from './problem.ts';

export type Fetch = (request: Request) => Response | Promise<Response>;

export interface Front {
  server: HttpServer;
  /** `http://127.0.0.1:8787` */
  url: string;
  /** Until it is called, requests are answered not_ready. */
  serve: (fetch: Fetch) => void;
}

/** Those of LIMITS that a socket has. */
export type SocketBounds = Record<
  | 'headerBytesMax'
  | 'connectionsMax'
  | 'headersTimeoutMs'
  | 'requestTimeoutMs'
  | 'connectionsCheckMs',
  number
>;

/**
 * Other machines are served only where keys are, one of which can make others.
 * @throws AppError config_invalid
 */
export function requireKeys({ host, dataFolder }: Config, clock: Clock): void {
  if (isLoopback(host)) return;
  const path = join(dataFolder, 'ramify.db');
  if (existsSync(path)) {
    const db = openForReading(path);
    try {
      if (hasUsableAdmin(KeyStore.read(db), clock.now())) return;
    } finally {
      db.close();
    }
  }
  throw new AppError(
    'config_invalid',
    `RAMIFY_HOST=${host}: other machines are served only when there is a key of an admin that is ` +
      `good; npx ramify key create --admin --data ${dataFolder} makes one`,
  );
}

/** Binds the port. @throws AppError config_invalid */
export async function listen(
  { host, port }: Pick<Config, 'host' | 'port'>,
  bounds: SocketBounds = LIMITS,
): Promise<Front> {
  let current: Fetch = () =>
    problemResponse(new AppError('not_ready', 'the server is starting'), 'none');
  const server = createAdaptorServer({
    fetch: (request: Request) => current(request),
    overrideGlobalObjects: false,
    serverOptions: {
      maxHeaderSize: bounds.headerBytesMax,
      headersTimeout: bounds.headersTimeoutMs,
      // Node's own five minutes would cut a long import; other bodies have a limit of their own.
      requestTimeout: bounds.requestTimeoutMs,
      connectionsCheckingInterval: bounds.connectionsCheckMs,
    },
  }) as HttpServer;
  server.maxConnections = bounds.connectionsMax;
  server.on('clientError', refuse);
  server.listen(port, host.replace(/^\[(.*)\]$/, '$1'));
  try {
    await once(server, 'listening');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const why = code === 'EADDRINUSE' ? 'is in use' : `cannot be bound (${code ?? 'unknown'})`;
    throw new AppError('config_invalid', `RAMIFY_PORT=${port}: the port ${why} on ${host}`, {
      cause,
    });
  }
  const address = server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  return { server, url: `http://${name}:${bound}`, serve: (fetch) => (current = fetch) };
}

/** Sockets of clients that left or idle would keep `close` waiting for seconds. */
export async function closeHttp(server: HttpServer): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    if (server.listening) server.close(() => resolve());
    else resolve();
  });
  server.closeAllConnections();
  await closed;
}

/** What Node keeps of the answer under way on a socket. */
interface Answering {
  _httpMessage?: { headersSent: boolean } | null;
}

function refuse(error: NodeJS.ErrnoException, socket: Duplex & Answering): void {
  const begun = socket._httpMessage?.headersSent === true;
  if (!socket.writable || begun || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  void answerRaw(socket, refusalOf(error));
}

function refusalOf({ code, message }: NodeJS.ErrnoException): AppError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    const message = `the line and headers of the request exceed ${LIMITS.headerBytesMax} bytes`;
    return new AppError('headers_too_large', message);
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new AppError('request_too_slow', 'the request did not arrive in time');
  }
  return new AppError('invalid_request', `this is no HTTP request: ${message}`);
}

async function answerRaw(socket: Duplex, error: AppError): Promise<void> {
  const response = problemResponse(error, 'none');
  const body = await response.text();
  const lines = [...response.headers].map(([name, value]) => `${name}: ${value}\r\n`).join('');
  const length = Buffer.byteLength(body);
  const head = `HTTP/1.1 ${response.status} Refused\r\n${lines}content-length: ${length}\r\n`;
  socket.end(`${head}connection: close\r\n\r\n${body}`);
}
