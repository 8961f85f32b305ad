/**
 * The program: reads settings, starts the server, says where it is, and stops it on SIGINT or
 * SIGTERM. What prevents a start is one line on stderr and exit code 1. Logs are JSON lines on
 * stderr.
 */
import { pino } from 'pino';
import { toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { parseConfig } from './config.ts';
import { startServer } from './server.ts';

async function main(): Promise<void> {
  // For the processes that hold models, which are started with this environment.
  process.env.MALLOC_MMAP_THRESHOLD_ ??= String(LIMITS.mallocMapBytes);
  process.env.MALLOC_TRIM_THRESHOLD_ ??= String(LIMITS.mallocTrimBytes);
  const config = parseConfig(process.env, process.argv.slice(2));
  const logger = pino({ level: config.logLevel }, pino.destination(2));
  const server = await startServer(config, logger);
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    logger.info({ signal }, 'stopping');
    server.stop().then(
      () => process.exit(0),
      (thrown: unknown) => exit(thrown),
    );
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.stdout.write(`ramify is ready at ${server.url}\n`);
}

function exit(thrown: unknown): void {
  const { message, stack, code } = toAppError(thrown);
  process.stderr.write(`ramify: ${code === 'internal' ? (stack ?? message) : message}\n`);
  process.exit(1);
}

main().catch(exit);
