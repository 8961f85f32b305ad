/**
 * The server: HTTP before the parts (parts.ts), started in order and stopped in reverse. The port
 * is bound first, so that a port in use is known before anything is touched; until all parts stand,
 * requests are answered `not_ready`.
 */
import { join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import { AgentRuns } from './agent-runs.ts';
import { createApp } from './app.ts';
import type { Config } from './config.ts';
import { KeyRing } from './key-ring.ts';
import { KeyUsage } from './key-usage.ts';
import { Lifecycle } from './lifecycle.ts';
import { closeHttp, listen, requireKeys } from './listen.ts';
import { LogRetention } from './log-retention.ts';
import { runCleanups, startParts } from './parts.ts';
import type { Cleanup, Parts } from './parts.ts';

export interface RunningServer {
  /** `http://127.0.0.1:8787` */
  readonly url: string;
  /** Stops accepting, finishes what is under way within the limit, closes everything. */
  stop(): Promise<void>;
}

/** @throws AppError with one line that says what is wrong; then nothing is left running. */
export async function startServer(config: Config, logger: Logger): Promise<RunningServer> {
  const cleanups: Cleanup[] = [];
  try {
    requireKeys(config, systemClock);
    const front = await listen(config);
    cleanups.push(() => closeHttp(front.server));
    const { app, stop } = await serve(await startParts(config, logger, cleanups), config, logger);
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
  { keep, dataFolder }: Config,
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
  const folder = join(dataFolder, 'archive');
  const retention = new LogRetention({ stores, keep, folder, clock, logger });
  retention.start();
  const app = createApp({ ...shared, agentRuns });
  const stop = async (): Promise<void> => {
    agentRuns.stop();
    const answered = lifecycle.stop(LIMITS.shutdownTimeoutMs);
    await Promise.all([answered, training.stop(), releases.stop(), retention.stop()]);
  };
  return { app, stop };
}
