/**
 * The program behind `npx ramify COMMAND`: one table of commands. A wrong command or flag is one
 * line on stderr and exit code 1. The server itself is api/main.ts (`npm start`).
 */
import { AppError, toAppError } from '../../core/errors.ts';
import { doctor } from './doctor.ts';

interface Command {
  summary: string;
  /** Resolves with what to print on stdout. `flags` are the words behind the command. */
  run(
    flags: readonly string[],
    environment: Readonly<Record<string, string | undefined>>,
  ): Promise<string>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  doctor: {
    summary: 'devices found, which provider runs what, speed, and how to get more (--json)',
    run: doctor,
  },
};

const USAGE = [
  'npx ramify COMMAND',
  ...Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name}  ${summary}`),
  'The server: npm start',
].join('\n');

async function main([name, ...flags]: readonly string[]): Promise<string> {
  if (name === undefined || name === 'help' || name === '--help') return USAGE;
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const known = Object.keys(COMMANDS).join(', ');
    throw new AppError('config_invalid', `unknown command ${name}; known are ${known}`);
  }
  // The program, like api/main.ts: the one place where the environment is read and handed on.
  // eslint-disable-next-line no-restricted-properties
  return command.run(flags, process.env);
}

main(process.argv.slice(2)).then(
  (text) => process.stdout.write(`${text}\n`),
  (thrown: unknown) => {
    const { message, stack, code } = toAppError(thrown);
    process.stderr.write(`ramify: ${code === 'internal' ? (stack ?? message) : message}\n`);
    process.exitCode = 1;
  },
);
