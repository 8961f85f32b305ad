/**
 * Runs a built module in a process of its own and collects what it prints. For work on devices
 * whose drivers may fault or hang: whatever happens there is a result here.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LIMITS } from '../limits.ts';

export interface ChildOutput {
  /**
   * Lines of its output that are JSON objects, parsed; those before a fault are kept. A driver may
   * print others among them, which are skipped.
   */
  lines: unknown[];
  /** The end of its error output. */
  errors: string;
  /** How it ended when not by itself, in words; null when it did. */
  ended: string | null;
}

/** Never rejects. `environment` is added to the caller's own. */
export function childOutput(
  module: URL,
  args: readonly string[],
  timeoutMs: number,
  environment: Readonly<Record<string, string>> = {},
): Promise<ChildOutput> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [fileURLToPath(module), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      // No setting is read: drivers are found through PATH, LD_LIBRARY_PATH and VK_*.
      // eslint-disable-next-line no-restricted-properties
      env: { ...process.env, ...environment },
    });
    let [output, errors] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length > LIMITS.childOutputCharsMax) child.kill('SIGKILL');
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-LIMITS.trainerStderrCharsMax);
    });
    const done = (ended: string | null): void => {
      const whole = output.slice(0, output.lastIndexOf('\n') + 1).split('\n');
      resolve({ lines: whole.flatMap(parsedObject), errors, ended });
    };
    child.once('error', (error) => done(`it could not be started: ${error.message}`));
    child.once('close', (_code, signal) => {
      if (signal === null) done(null);
      else if (output.length > LIMITS.childOutputCharsMax) {
        done(`it printed more than ${LIMITS.childOutputCharsMax} characters`);
      } else if (signal === 'SIGKILL') done(`it was not done within ${timeoutMs / 1000} s`);
      else done(`it was ended by ${signal}, a fault of the driver`);
    });
  });
}

/** The object that a line is in JSON, or nothing. */
function parsedObject(line: string): unknown[] {
  if (!line.startsWith('{')) return [];
  try {
    return [JSON.parse(line) as unknown];
  } catch {
    return [];
  }
}
