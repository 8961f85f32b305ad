/**
 * The command line as a process of its own. Settings of the environment that runs the tests are
 * kept out: one that it does not know, it refuses.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { builtModule } from '../../core/paths.ts';

const main = fileURLToPath(builtModule(import.meta.url, '../../api/cli/main.ts'));
/** A command that takes longer is killed. */
const COMMAND_MS = 60_000;

export interface EndedCommand {
  /** null: killed. */
  code: number | null;
  out: string;
  err: string;
}

export interface StartedCommand {
  child: ChildProcess;
  ended: Promise<EndedCommand>;
}

export function startCommand(...words: readonly string[]): StartedCommand {
  const child = spawn(process.execPath, [main, ...words], {
    env: { PATH: process.env['PATH'] },
    timeout: COMMAND_MS,
    killSignal: 'SIGKILL',
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const ended = once(child, 'close').then(() => ({ code: child.exitCode, out, err }));
  return { child, ended };
}

/** Resolves when it has ended, however that was. */
export function ramify(...words: readonly string[]): Promise<EndedCommand> {
  return startCommand(...words).ended;
}
