/**
 * The real server as a child process of a test: `node dist/api/main.js` on a free port of loopback,
 * with everything that a test may want to know of it (address, standard error, how it ended) and do
 * to it (any signal). Settings of the environment that runs the tests are kept out, but for
 * RAMIFY_POLICY, so that the same tests can be run on another policy. Knows nothing of vitest.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { AppError } from '../../core/errors.ts';
import { builtModule } from '../../core/paths.ts';

/** A first start imports the shipped tasks; a machine that runs other tests beside is slow. */
const READY_MS = 60_000;

export interface LaunchOptions {
  dataFolder: string;
  /** After `--port`, `--data` and the log level, so that they win. */
  flags?: readonly string[];
  environment?: Readonly<Record<string, string>>;
  /** Flags of Node itself, before the program. */
  nodeFlags?: readonly string[];
  /** An IPC channel to what nodeFlags load. */
  ipc?: boolean;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export class TestServer {
  /** Resolves when the process is gone and its output is read to the end. */
  readonly exited: Promise<Exit>;
  readonly child: ChildProcess;
  /** From launch to ready, in milliseconds; NaN before. */
  readyMs = NaN;
  private readonly launchedAt = performance.now();
  private address: string | null = null;
  private output = '';
  private errors = '';
  private onOutput: () => void = () => undefined;

  constructor(options: LaunchOptions) {
    const main = fileURLToPath(builtModule(import.meta.url, '../../api/main.ts'));
    const own = ['--port', '0', '--data', options.dataFolder, '--log-level', 'warn'];
    this.child = spawn(
      process.execPath,
      [...(options.nodeFlags ?? []), main, ...own, ...(options.flags ?? [])],
      {
        env: { ...cleanEnvironment(), ...options.environment },
        stdio: ['ignore', 'pipe', 'pipe', ...(options.ipc === true ? ['ipc' as const] : [])],
      },
    );
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
      this.onOutput();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.errors += text));
    this.exited = new Promise((resolve, reject) => {
      this.child.once('close', (code, signal) => resolve({ code, signal }));
      this.child.once('error', reject);
    });
  }

  get url(): string {
    if (this.address === null) throw new AppError('internal', 'internal: not ready yet');
    return this.address;
  }

  /** What it wrote to standard error so far. */
  get stderr(): string {
    return this.errors;
  }

  /** Resolves once it takes requests. @throws AppError internal with its own words when it ends. */
  async ready(): Promise<this> {
    const ended = this.exited.then(({ code, signal }) => {
      throw new AppError('internal', `the server ended (${code ?? signal}): ${this.errors}`);
    });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new AppError('internal', `not ready after ${READY_MS} ms: ${this.errors}`)),
        READY_MS,
      );
    });
    const announced = new Promise<void>((resolve) => {
      this.onOutput = () => {
        this.address ??= /^ramify is ready at (http:\S+)\n/m.exec(this.output)?.[1] ?? null;
        if (this.address !== null) resolve();
      };
      this.onOutput();
    });
    try {
      await Promise.race([announced, ended, late]);
    } finally {
      clearTimeout(timer);
    }
    this.readyMs = performance.now() - this.launchedAt;
    return this;
  }

  /** Sends a signal and waits for the end. */
  end(signal: NodeJS.Signals): Promise<Exit> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    return this.exited;
  }
}

function cleanEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('RAMIFY_') || name === 'RAMIFY_POLICY',
  );
  return Object.fromEntries(kept);
}
