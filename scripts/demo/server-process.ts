/**
 * The real server as a child process: started on a free port with its data folder, awaited until it
 * is ready, stopped by SIGTERM and, when that takes too long, by SIGKILL. What it writes to stderr
 * goes to server.log in the data folder; the last of it is kept for the message when it dies.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { builtModule } from '../../core/paths.ts';

/** Two stages of the server's own orderly end, and some room. */
const STOP_MS = 2 * LIMITS.shutdownTimeoutMs + 10_000;
/** A cold start loads the policy and imports the tasks; a busy machine takes long for both. */
const START_MS = 120_000;
const STDERR_CHARS = 4_096;

export interface ServerProcess {
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** Aborts when the server ended without being told to; the reason says why. */
  readonly died: AbortSignal;
  /** Resolves when the process is gone. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Starts dist/api/main.js. RAMIFY_* settings of the environment hold, but for address, data folder
 * and those given here.
 * @throws AppError not_ready with the server's own words when it does not get ready.
 */
export async function startServerProcess(
  dataFolder: string,
  signal: AbortSignal,
  settings: Readonly<Record<string, string>> = {},
): Promise<ServerProcess> {
  const main = builtModule(import.meta.url, '../../api/main.ts');
  const child = spawn(
    process.execPath,
    [fileURLToPath(main), '--host', '127.0.0.1', '--port', '0', '--data', dataFolder],
    { env: { ...serverEnvironment(process.env), ...settings }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const lastWords = keepStderr(child, join(dataFolder, 'server.log'));
  const died = new AbortController();
  let stopping = false;
  const ended = new Promise<void>((resolve) => {
    const end = (how: string): void => {
      resolve();
      if (stopping) return;
      const message = `the server ended by itself (${how}): ${lastWords() || 'it said nothing'}`;
      died.abort(new AppError('not_ready', message));
    };
    child.once('error', (error) => end(error.message));
    child.once('close', (code, by) => end(by === null ? `exit code ${code ?? '?'}` : by));
  });
  const stop = async (): Promise<void> => {
    stopping = true;
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await ended;
    clearTimeout(timer);
  };
  try {
    const url = await readyUrl(child, AbortSignal.any([signal, died.signal]));
    return { url, died: died.signal, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Address and data folder are ours; every other setting of the environment is handed on. */
function serverEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own: NodeJS.ProcessEnv = {
    ...environment,
    RAMIFY_LOG_LEVEL: environment['RAMIFY_LOG_LEVEL'] ?? 'warn',
  };
  for (const name of ['RAMIFY_PORT', 'RAMIFY_HOST', 'RAMIFY_DATA']) delete own[name];
  return own;
}

/** Returns what gives the end of the server's stderr. */
function keepStderr(child: ChildProcess, path: string): () => string {
  let tail = '';
  child.stderr?.setEncoding('utf8');
  child.stderr?.on('data', (text: string) => (tail = (tail + text).slice(-STDERR_CHARS)));
  // The log is a convenience: a disk that is full must not take the demo down.
  child.stderr?.pipe(createWriteStream(path).on('error', () => undefined));
  return () => tail.trim();
}

/** The address that the server prints once it is ready. */
function readyUrl(child: ChildProcess, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    const timer = setTimeout(
      () => fail(new AppError('not_ready', `the server was not ready after ${START_MS / 1000} s`)),
      START_MS,
    );
    const onAbort = (): void => fail(signal.reason as Error);
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    };
    const fail = (error: Error): void => {
      done();
      reject(error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    lines.on('line', (line) => {
      const url = /^ramify is ready at (http:\S+)$/.exec(line)?.[1];
      if (url === undefined) return;
      done();
      resolve(url);
    });
  });
}
