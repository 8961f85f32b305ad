/**
 * An MCP server as a child process, one JSON message a line. The SDK has such a transport too, but
 * its children share our process group, so what they start themselves would outlive them; here a
 * child leads a group of its own, which ends as a whole, and gets no more of the environment than
 * it is given.
 *
 * Closing is as MCP says: end of input, then SIGTERM, then SIGKILL, each after a while. Whatever
 * the child left in its group is killed once it is gone. Where we are killed ourselves a shell that
 * waits for that kills the group.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess, ChildProcessWithoutNullStreams } from 'node:child_process';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReadBuffer, serializeMessage } from '@modelcontextprotocol/sdk/shared/stdio.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import type { JSONRPCMessage } from '@modelcontextprotocol/sdk/types.js';
import { must } from '../../assert.ts';
import { AppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';
import type { McpCommand } from './declaration.ts';

const OWN_GROUP = process.platform !== 'win32';

/** Its input ends with us. A server that ends by itself then, as MCP wants it to, has a second. */
const GUARD = 'read -r _; sleep 1; kill -s KILL -- "-$1"';

export class StdioTransport implements Transport {
  onclose?: () => void;
  onerror?: (error: Error) => void;
  onmessage?: Transport['onmessage'];
  private readonly command: McpCommand;
  private readonly onBroken: (error: AppError) => void;
  private readonly buffer = new ReadBuffer({ maxBufferSize: LIMITS.mcpMessageBytesMax });
  private child: ChildProcessWithoutNullStreams | null = null;
  private gone: Promise<void> = Promise.resolve();
  private closing: Promise<void> | null = null;
  private guard: ChildProcess | null = null;
  private errors = '';

  /** `onBroken` is told when the child can be of no use any more. */
  constructor(command: McpCommand, onBroken: (error: AppError) => void) {
    this.command = command;
    this.onBroken = onBroken;
  }

  /** The end of what the child wrote to its error output. */
  get stderr(): string {
    return this.errors;
  }

  /** Resolves when the program runs. Rejects when it cannot be started. */
  async start(): Promise<void> {
    const { command, args, environment } = this.command;
    const child = spawn(command, args, {
      env: environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: OWN_GROUP,
      windowsHide: true,
    });
    this.child = child;
    this.gone = new Promise((resolve) => {
      // What the child has started may hold its output open for ever; the rest is read shortly.
      child.once('exit', () => {
        this.signalGroup('SIGKILL');
        // The number of the group may be another's from now on.
        this.guard?.kill('SIGKILL');
        setTimeout(resolve, LIMITS.mcpDrainMs).unref();
      });
      child.once('close', () => resolve());
      child.once('error', () => resolve());
    });
    void this.gone.then(() => this.onclose?.());
    // One that could not be started may have no streams.
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (error) => {
        // Before it is heard that it ended, which says less.
        this.onBroken(new AppError('tool_failed', error.message));
        reject(error);
      });
    });
    for (const stream of [child.stdin, child.stdout, child.stderr]) {
      stream.on('error', (error) => this.onerror?.(error));
    }
    child.stdout.on('data', (chunk: Buffer) => this.receive(chunk));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.errors = (this.errors + text).slice(-LIMITS.mcpStderrCharsMax);
    });
    if (OWN_GROUP && child.exitCode === null && child.signalCode === null) {
      this.guard = guardOf(must(child.pid, 'a child that runs has a number'));
    }
  }

  /** Does not wait until the child has read it; one that reads nothing is refused more. */
  async send(message: JSONRPCMessage): Promise<void> {
    const stdin = this.child?.stdin;
    if (stdin?.writable !== true) throw new AppError('tool_failed', 'the server has ended');
    if (stdin.writableLength > LIMITS.mcpMessageBytesMax) {
      throw new AppError('tool_failed', 'the server does not read what it is sent');
    }
    stdin.write(serializeMessage(message));
  }

  /** Resolves when the whole group is gone. Safe to call twice. */
  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    const { child } = this;
    if (child?.pid === undefined) return;
    const goneWithin = (ms: number): Promise<boolean> =>
      Promise.race([this.gone.then(() => true), sleep(ms, false, { ref: false })]);
    child.stdin.end();
    if (await goneWithin(LIMITS.mcpCloseStepMs)) return;
    this.signalGroup('SIGTERM');
    if (await goneWithin(LIMITS.mcpCloseStepMs)) return;
    this.signalGroup('SIGKILL');
    await goneWithin(LIMITS.mcpCloseStepMs);
  }

  private receive(chunk: Buffer): void {
    try {
      this.buffer.append(chunk);
    } catch {
      const max = LIMITS.mcpMessageBytesMax;
      this.onBroken(new AppError('tool_failed', `an answer is longer than ${max} bytes`));
      return;
    }
    for (;;) {
      try {
        const message = this.buffer.readMessage();
        if (message === null) return;
        this.onmessage?.(message);
      } catch (error) {
        // Programs print things to their output that are no messages; the line is passed over.
        this.onerror?.(error as Error);
      }
    }
  }

  private signalGroup(signal: NodeJS.Signals): void {
    const pid = this.child?.pid;
    if (pid === undefined) return;
    try {
      if (OWN_GROUP) process.kill(-pid, signal);
      else this.child?.kill(signal);
    } catch {
      // The group is gone.
    }
  }
}

/**
 * In a group of its own, as what ends ours must not end it before. Null where it cannot be started:
 * the child does without.
 */
function guardOf(group: number): ChildProcess | null {
  const guard = spawn('/bin/sh', ['-c', GUARD, 'sh', String(group)], {
    env: {},
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guard.on('error', () => undefined);
  if (guard.pid === undefined) return null;
  guard.stdin.on('error', () => undefined);
  guard.unref();
  (guard.stdin as Socket).unref();
  return guard;
}
