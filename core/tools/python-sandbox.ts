/**
 * Runs one Python program in the sandbox of python-command.ts: a fresh process a call, ended with
 * all that it started when its time is over or its caller leaves. What it prints is bounded while
 * it is read, so that a flood costs neither memory nor time of the server.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError, toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Command } from './python-command.ts';

export interface PythonRun {
  code: string;
  timeoutMs: number;
  signal: AbortSignal;
}

/** What the program printed. @throws AppError tool_failed, tool_timeout, request_cancelled */
export async function runPython(command: Command, run: PythonRun): Promise<string> {
  const { code, timeoutMs, signal } = run;
  if (signal.aborted) throw cancelled();
  const child = await started(command);
  const stopped: { why: AppError | null } = { why: null };
  const stop = (why: AppError): void => {
    stopped.why ??= why;
    killGroup(child);
  };
  const timer = setTimeout(() => {
    stop(new AppError('tool_timeout', `the code ran longer than ${timeoutMs} ms`));
  }, timeoutMs);
  const leave = (): void => stop(cancelled());
  signal.addEventListener('abort', leave, { once: true });
  const flood = (): void => {
    stop(failed(`the code printed more than ${LIMITS.pythonOutputBytesMax} bytes`));
  };
  try {
    if (signal.aborted) leave();
    const printed = bounded(child.stdout, flood);
    const errors = bounded(child.stderr, flood);
    // It may end without having read its program.
    child.stdin.on('error', () => undefined);
    child.stdin.end(code);
    const status = await endOf(child);
    if (stopped.why !== null) throw stopped.why;
    if (status !== 0) throw failed(faultOf(status, errors()));
    return printed().replace(/\n$/, '') || 'None';
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', leave);
    killGroup(child);
  }
}

/** A child that could not be started may have no streams, and no event but its error. */
async function started(command: Command): Promise<ChildProcessWithoutNullStreams> {
  try {
    const child = spawn(command.file, command.args, {
      // Whatever bubblewrap itself is given could be read inside, in /proc/1/environ.
      env: {},
      cwd: '/',
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
      ...command.identity,
    });
    await once(child, 'spawn');
    return child;
  } catch (thrown) {
    throw failed(`the sandbox cannot be started: ${toAppError(thrown).message}`);
  }
}

/**
 * The exit status, when all who held its output are gone. Bubblewrap passes on that of the program,
 * and a signal's number and 128.
 */
async function endOf(child: ChildProcessWithoutNullStreams): Promise<number> {
  const lingering = once(child, 'exit').then(() =>
    sleep(LIMITS.pythonEndMs, undefined, { ref: false }),
  );
  await Promise.race([once(child, 'close'), lingering]);
  for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy();
  return child.exitCode ?? 128;
}

/** The processes inside end with bubblewrap, which asks the kernel for that. */
function killGroup({ pid, exitCode, signalCode }: ChildProcessWithoutNullStreams): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group is gone.
  }
}

/** Collects a stream as text; `flood` is called when there is more than may be. */
function bounded(stream: NodeJS.ReadableStream, flood: () => void): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on('error', () => undefined);
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > LIMITS.pythonOutputBytesMax) flood();
    else chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

/** The last line of its error output says it best; a process that was killed has none. */
function faultOf(status: number, errors: string): string {
  const line = errors.trim().split('\n').at(-1) ?? '';
  if (line !== '') return line;
  if (status <= 128) return `the code ended with status ${status}`;
  return `the code was ended by signal ${status - 128}`;
}

function failed(message: string): AppError {
  return new AppError('tool_failed', message);
}

function cancelled(): AppError {
  return new AppError('request_cancelled', 'the call was cancelled');
}
