/**
 * The program behind `npx ramify COMMAND`: one table of commands. A wrong command or flag is one
 * line on stderr and exit code 2, any other failure exit code 1 (see EXIT in command.ts). The first
 * Ctrl-C ends a command in order, the second at once. The server itself is api/main.ts
 * (`npm start`).
 */
import { AppError, toAppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { collectionCommand } from './collection.ts';
import { EXIT, isMisuse } from './command.ts';
import type { Command } from './command.ts';
import { explained } from './data-folder.ts';
import { doctorCommand } from './doctor.ts';
import { evalCommand } from './eval.ts';
import { exportCommand } from './export.ts';
import { importCommand } from './import.ts';
import { keyCommand } from './key.ts';
import { Output } from './output.ts';
import { replayCommand } from './replay.ts';
import { trainCommand } from './train.ts';

const COMMANDS: Readonly<Record<string, Command>> = {
  train: trainCommand,
  eval: evalCommand,
  replay: replayCommand,
  export: exportCommand,
  import: importCommand,
  collection: collectionCommand,
  key: keyCommand,
  doctor: doctorCommand,
};

const USAGE = [
  'npx ramify COMMAND [words]; npx ramify COMMAND --help says more',
  ...Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`),
  'The server: npm start',
].join('\n');

async function main([name, ...words]: readonly string[], output: Output): Promise<number> {
  if (name === undefined || name === 'help' || name === '--help') return print(USAGE);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const known = Object.keys(COMMANDS).join(', ');
    throw new AppError('invalid_request', `unknown command ${name}; known are ${known}`);
  }
  if (words.includes('--help') || words.includes('-h')) return print(command.help);
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(EXIT.interrupted);
    stop.abort(new AppError('request_cancelled', 'stopped by a signal'));
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  // The program, like api/main.ts: the one place where the environment is read and handed on.
  // eslint-disable-next-line no-restricted-properties
  const environment = process.env;
  // For the processes that hold models, which are started with this environment.
  environment.MALLOC_MMAP_THRESHOLD_ ??= String(LIMITS.mallocMapBytes);
  environment.MALLOC_TRIM_THRESHOLD_ ??= String(LIMITS.mallocTrimBytes);
  try {
    return await command.run({ words, environment, output, signal: stop.signal });
  } catch (thrown) {
    if (stop.signal.aborted) return EXIT.interrupted;
    throw thrown;
  }
}

async function print(text: string): Promise<number> {
  process.stdout.write(`${text}\n`);
  return EXIT.done;
}

/** A reader that has seen enough (`| head`) is no failure. */
function closedPipe(thrown: unknown): boolean {
  return thrown instanceof Error && 'code' in thrown && thrown.code === 'EPIPE';
}

const [, , ...words] = process.argv;
const output = new Output({
  out: process.stdout,
  err: process.stderr,
  json: words.includes('--json'),
});
process.stdout.on('error', (error) => {
  if (closedPipe(error)) process.exit(EXIT.done);
  throw error;
});

main(words, output).then(
  (code) => (process.exitCode = code),
  (thrown: unknown) => {
    if (closedPipe(thrown)) return;
    const error = explained(toAppError(thrown));
    output.error(error);
    process.exitCode = isMisuse(error) ? EXIT.misuse : EXIT.failed;
  },
);
