/**
 * What a command of `ramify` is, and how its words are read: its own flags by node:util, those that
 * it shares with the server (`--data`, `--device`, ...) by the server's own rules (api/config.ts).
 * Every mistake in them is an AppError that names the word at fault.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { AppError, RETRYABLE } from '../../core/errors.ts';
import { parseConfig } from '../config.ts';
import type { Config } from '../config.ts';
import { STATUS } from '../problem.ts';
import type { Output } from './output.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Call {
  /** The words behind the command. */
  words: readonly string[];
  environment: Environment;
  output: Output;
  /** Aborted by the first Ctrl-C (or SIGTERM). */
  signal: AbortSignal;
}

export interface Command {
  /** One line, for the list of commands. */
  summary: string;
  /** What `--help` prints: how to call it, its flags, examples. */
  help: string;
  /** Resolves with the exit code. */
  run(call: Call): Promise<number>;
}

export const EXIT = {
  done: 0,
  /** The world failed, or ramify did. */
  failed: 1,
  /** A wrong word on the command line, or a wrong file. */
  misuse: 2,
  /** The work was done, and its outcome is a no: the gate refused the candidate. */
  refused: 3,
  /** Ended by Ctrl-C, as shells have it. */
  interrupted: 130,
} as const;

/** Flags of the server that commands take too. */
const SERVER_FLAGS = ['data', 'policy', 'device', 'dtype', 'kv-memory', 'log-level'] as const;
const THREAD_FLAGS = ['engine-threads', 'trainer-threads'] as const;

export const SERVER_HELP = [
  '  --data DIR           data folder (RAMIFY_DATA, ./data)',
  '  --json               one JSON object a line on stdout, nothing else',
  '  also --device, --dtype, --kv-memory, --engine-threads, --trainer-threads, --log-level, as the',
  '  server takes them; here threads are all cores by default, and only warnings are logged',
].join('\n');

export type FlagKinds = Readonly<
  Record<string, { type: 'string' | 'boolean'; multiple?: boolean; short?: string }>
>;

type ValueOf<K extends FlagKinds[string]> = K['type'] extends 'boolean'
  ? boolean
  : K['multiple'] extends true
    ? string[]
    : string;

export interface Words<F extends FlagKinds> {
  flags: { [K in keyof F]?: ValueOf<F[K]> };
  /** Words that are no flags. */
  rest: string[];
  config: Config;
}

/**
 * Reads the words of a command. Where neither flag nor environment says otherwise, a command takes
 * all cores and logs only warnings.
 * @throws AppError config_invalid, invalid_request.
 */
export function readWords<const F extends FlagKinds>(
  { words, environment }: Pick<Call, 'words' | 'environment'>,
  own: F,
  restMax = 0,
): Words<F> {
  const shared = [...SERVER_FLAGS, ...THREAD_FLAGS];
  const options: FlagKinds = {
    ...Object.fromEntries(shared.map((name) => [name, { type: 'string' as const }])),
    json: { type: 'boolean' },
    ...own,
  };
  const { values, positionals } = parsed(words, options);
  const extra = positionals[restMax];
  if (extra !== undefined) {
    throw new AppError(
      'invalid_request',
      `${extra}: one word too many; --help says how to call it`,
    );
  }
  const serverFlags = shared.flatMap((name) => {
    const value = values[name];
    return typeof value === 'string' ? [`--${name}=${value}`] : [];
  });
  return {
    flags: values as Words<F>['flags'],
    rest: positionals,
    config: parseConfig({ ...DEFAULTS, ...environment }, serverFlags),
  };
}

const ALL_CORES = String(availableParallelism());

const DEFAULTS: Environment = {
  RAMIFY_ENGINE_THREADS: ALL_CORES,
  RAMIFY_TRAINER_THREADS: ALL_CORES,
  RAMIFY_LOG_LEVEL: 'warn',
};

function parsed(words: readonly string[], options: FlagKinds) {
  try {
    return parseArgs({ args: [...words], options, allowPositionals: true });
  } catch (cause) {
    // Node adds hints on how to write positionals after its first sentence.
    const [message = ''] = (cause as Error).message.split('. ');
    throw new AppError('invalid_request', message, { cause });
  }
}

/** Whether an error is the caller's: a word, a file or an id that is wrong. */
export function isMisuse({ code }: AppError): boolean {
  const status = STATUS[code];
  return code === 'config_invalid' || (status >= 400 && status < 499 && !RETRYABLE.has(code));
}

export function integer(flag: string, text: string, min: number, max: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (value >= min && value <= max) return value;
  throw wrongValue(flag, text, `an integer from ${min} to ${max}`);
}

export function number(flag: string, text: string, min = -Infinity, max = Infinity): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (Number.isFinite(value) && value >= min && value <= max) return value;
  const range = min === -Infinity && max === Infinity ? '' : ` from ${min} to ${max}`;
  throw wrongValue(flag, text, `a number${range}`);
}

export function choice<T extends string>(flag: string, text: string, values: readonly T[]): T {
  const found = values.find((value) => value === text);
  if (found === undefined) throw wrongValue(flag, text, `one of ${values.join(', ')}`);
  return found;
}

/** A moment as milliseconds: a date, a date with time, or an age as 90m, 24h, 7d. */
export function moment(flag: string, text: string, nowMs: number): number {
  const age = /^(\d{1,6})([mhd])$/.exec(text);
  if (age !== null) return nowMs - Number(age[1]) * AGES[age[2] as keyof typeof AGES];
  const ms = /^\d{4}-\d\d-\d\d([T ].*)?$/.test(text) ? Date.parse(text) : NaN;
  if (Number.isFinite(ms)) return ms;
  throw wrongValue(flag, text, 'a date like 2026-05-01 or 2026-05-01T12:00Z, or an age like 24h');
}

const AGES = { m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `NAME=VALUE`; the value is JSON, or else the text as it is. */
export function assignment(flag: string, text: string): [string, unknown] {
  const at = text.indexOf('=');
  if (at < 1) throw wrongValue(flag, text, 'NAME=VALUE');
  const value = text.slice(at + 1);
  try {
    return [text.slice(0, at), JSON.parse(value) as unknown];
  } catch {
    return [text.slice(0, at), value];
  }
}

export function wrongValue(flag: string, text: string, form: string): AppError {
  return new AppError('invalid_request', `${flag} ${text}: must be ${form}`, { param: flag });
}
