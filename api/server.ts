/**
 * The server: HTTP before the parts (parts.ts), started in order and stopped in reverse. The port
 * is bound first, so that a port in use is known before anything is touched; until all parts stand,
 * requests are answered `not_ready`.
 */
import { once } from 'node:events';
import type { Server as HttpServer } from 'node:http';
import { createAdaptorServer } from '@hono/node-server';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import { AgentRuns } from './agent-runs.ts';
import { createApp } from './app.ts';
import type { Config } from './config.ts';
import { KeyRing } from './key-ring.ts';
import { KeyUsage } from './key-usage.ts';
import { Lifecycle } from './lifecycle.ts';
import { runCleanups, startParts } from './parts.ts';
import type { Cleanup, Parts } from './parts.ts';
import { problemResponse } from './problem.ts';

export interface RunningServer {
  /** `http://127.0.0.1:8787` */
  readonly url: string;
  /** Stops accepting, finishes what is under way within the limit, closes everything. */
  stop(): Promise<void>;
}

type Fetch = (request: Request) => Response | Promise<Response>;

/** @throws AppError with one line that says what is wrong; then nothing is left running. */
export async function startServer(config: Config, logger: Logger): Promise<RunningServer> {
  const cleanups: Cleanup[] = [];
  try {
    const front = await listen(config);
    cleanups.push(() => closeHttp(front.server));
    const { app, stop } = await serve(await startParts(config, logger, cleanups), logger);
    front.serve((request) => app.fetch(request));
    return {
      url: front.url,
      stop: async () => {
        front.server.close();
        await stop();
        await runCleanups(cleanups, logger);
      },
    };
  } catch (error) {
    await runCleanups(cleanups, logger);
    throw error;
  }
}

async function serve(
  parts: Parts,
  logger: Logger,
): Promise<{ app: ReturnType<typeof createApp>; stop: () => Promise<void> }> {
  const { training, releases } = parts;
  releases.start();
  await training.start();
  const lifecycle = new Lifecycle();
  const { stores, clock, newId } = parts;
  const keys = new KeyRing({ store: stores.keys, clock, newId, logger });
  const usage = new KeyUsage({ store: stores.keys, clock, logger });
  const shared = { ...parts, lifecycle, keys, usage, logger };
  const agentRuns = new AgentRuns(shared);
  await agentRuns.start();
  const app = createApp({ ...shared, agentRuns });
  const stop = async (): Promise<void> => {
    agentRuns.stop();
    const ends = [lifecycle.stop(LIMITS.shutdownTimeoutMs), training.stop(), releases.stop()];
    await Promise.all(ends);
  };
  return { app, stop };
}

/** Binds the port; requests before `serve` is called are answered not_ready. */
async function listen(
  config: Config,
): Promise<{ server: HttpServer; url: string; serve: (fetch: Fetch) => void }> {
  let current: Fetch = () =>
    problemResponse(new AppError('not_ready', 'the server is starting'), 'none');
  const server = createAdaptorServer({
    fetch: (request: Request) => current(request),
    overrideGlobalObjects: false,
  }) as HttpServer;
  // Node's own five minutes would cut a long import; other bodies have a limit of their own.
  server.requestTimeout = LIMITS.requestTimeoutMs;
  const { host, port } = config;
  server.listen(port, host);
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
async function closeHttp(server: HttpServer): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    if (server.listening) server.close(() => resolve());
    else resolve();
  });
  server.closeAllConnections();
  await closed;
}
