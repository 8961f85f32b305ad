/**
 * Settings from the environment (RAMIFY_*) and the same as flags (`--port 9000`, `--port=9000`); a
 * flag wins. A name that is not known is refused like a wrong value: a misspelt setting must not
 * silently do nothing. Reads nothing by itself: main.ts passes the environment in.
 */
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { parseSettings } from '../core/arpo/settings.ts';
import { AppError, toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { packageRoot } from '../core/paths.ts';
import type { CanaryTerms } from '../core/records.ts';
import type { ScheduledRun, ScheduleSettings } from '../core/trainer/schedule.ts';
import { parseMetrics } from './feedback-metrics.ts';
import type { FeedbackMetrics } from './feedback-metrics.ts';
import type { KeepSettings } from './log-retention.ts';
import type { ReleaseSettings } from './policy-releases.ts';
import { NO_TOOLS, readToolsFile } from './tools-file.ts';
import type { DeclaredTools } from './tools-file.ts';

export const DEVICES = ['auto', 'cuda', 'webgpu', 'cpu'] as const;
export const COMPUTE_TYPES = ['f32', 'f16'] as const;
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export interface Config {
  port: number;
  host: string;
  /** Absolute. */
  dataFolder: string;
  /** Absolute; becomes version 1 on the first start. */
  policyFolder: string;
  device: (typeof DEVICES)[number];
  /** Of serving; training is always f32. */
  dtype: (typeof COMPUTE_TYPES)[number];
  /** Memory of serving for keys and values; null: a quarter of what is free at the start. */
  kvBytesMax: number | null;
  engineThreads: number;
  trainerThreads: number;
  /** Tasks that an empty database begins with. */
  tasks: 'shipped' | 'none';
  /** Absolute; null: none. */
  toolsFile: string | null;
  /** What it declares, beside the built-in tools. */
  tools: DeclaredTools;
  schedule: ScheduleSettings;
  release: ReleaseSettings;
  /** What feedback may say. */
  metrics: FeedbackMetrics;
  /** Policy versions that nothing needs and whose files are kept all the same. */
  policiesKept: number;
  /** What of the log stays. */
  keep: KeepSettings;
  logLevel: (typeof LOG_LEVELS)[number];
}

interface Setting {
  /** What the value must be, for the error message. */
  form: string;
  fallback: string;
}

const THREADS = String(Math.max(1, Math.floor(availableParallelism() / 2)));

const SETTINGS = {
  RAMIFY_PORT: { form: 'a port from 0 to 65535', fallback: '8787' },
  RAMIFY_HOST: { form: 'an IP address or host name', fallback: '127.0.0.1' },
  RAMIFY_DATA: { form: 'a folder', fallback: './data' },
  RAMIFY_POLICY: { form: 'a policy directory', fallback: join(packageRoot, 'policies/embedded') },
  RAMIFY_DEVICE: { form: `one of ${DEVICES.join(', ')}`, fallback: 'auto' },
  RAMIFY_DTYPE: { form: `one of ${COMPUTE_TYPES.join(', ')}`, fallback: 'f32' },
  RAMIFY_KV_MEMORY: { form: 'auto, or megabytes from 1 to 9999999', fallback: 'auto' },
  RAMIFY_ENGINE_THREADS: { form: 'an integer from 1 to 256', fallback: THREADS },
  RAMIFY_TRAINER_THREADS: { form: 'an integer from 1 to 256', fallback: THREADS },
  RAMIFY_MIN_NEW_SCORED: { form: 'off, or an integer of at least 1', fallback: 'off' },
  RAMIFY_TASKS: { form: 'shipped or none', fallback: 'shipped' },
  RAMIFY_TOOLS: { form: 'off, or a JSON or YAML file that declares tools', fallback: 'off' },
  RAMIFY_EVERY_MINUTES: { form: 'off, or a number above 0', fallback: 'off' },
  RAMIFY_SCHEDULED_RUN: {
    form: 'a JSON object with algorithm, steps or settings, as of a retrain request',
    fallback: '{}',
  },
  RAMIFY_CANARY_SHARE: { form: 'off, or a share between 0 and 1', fallback: 'off' },
  RAMIFY_CANARY_CONVERSATIONS: { form: 'an integer from 1 to 1000', fallback: '50' },
  RAMIFY_CANARY_MINUTES: { form: 'off, or a number above 0', fallback: '1440' },
  RAMIFY_ROLLBACK_TOLERANCE: { form: 'off, or a number of at least 0', fallback: '0.02' },
  RAMIFY_POLICIES_KEPT: { form: 'an integer from 0 to 10000', fallback: '5' },
  RAMIFY_KEEP_DAYS: { form: 'off, or a number of days above 0', fallback: 'off' },
  RAMIFY_KEEP_GB: { form: 'off, or a number of gigabytes above 0', fallback: 'off' },
  RAMIFY_METRICS: {
    form: 'a JSON object of metric names, as {"stars": {"type": "number", "min": 1, "max": 5}}',
    fallback: '{}',
  },
  RAMIFY_LOG_LEVEL: { form: `one of ${LOG_LEVELS.join(', ')}`, fallback: 'info' },
} as const satisfies Record<string, Setting>;

type SettingName = keyof typeof SETTINGS;

/** @throws AppError config_invalid, one line that names the setting and its value. */
export function parseConfig(
  environment: Readonly<Record<string, string | undefined>>,
  flags: readonly string[],
): Config {
  const given = { ...fromEnvironment(environment), ...fromFlags(flags) };
  const text = (name: SettingName): string => given[name] ?? SETTINGS[name].fallback;
  const integer = (name: SettingName, min: number, max: number): number => {
    const value = /^\d{1,9}$/.test(text(name)) ? Number(text(name)) : NaN;
    return value >= min && value <= max ? value : refuse(name, text(name));
  };
  const choice = <T extends string>(name: SettingName, values: readonly T[]): T =>
    values.find((value) => value === text(name)) ?? refuse(name, text(name));
  const host = text('RAMIFY_HOST');
  if (!isHost(host)) refuse('RAMIFY_HOST', host);
  const toolsText = text('RAMIFY_TOOLS');
  const toolsFile = toolsText === 'off' ? null : folder('RAMIFY_TOOLS', toolsText);
  return {
    port: integer('RAMIFY_PORT', 0, 65_535),
    host,
    dataFolder: folder('RAMIFY_DATA', text('RAMIFY_DATA')),
    policyFolder: folder('RAMIFY_POLICY', text('RAMIFY_POLICY')),
    device: choice('RAMIFY_DEVICE', DEVICES),
    dtype: choice('RAMIFY_DTYPE', COMPUTE_TYPES),
    kvBytesMax:
      text('RAMIFY_KV_MEMORY') === 'auto'
        ? null
        : integer('RAMIFY_KV_MEMORY', 1, 9_999_999) * 1024 * 1024,
    engineThreads: integer('RAMIFY_ENGINE_THREADS', 1, 256),
    trainerThreads: integer('RAMIFY_TRAINER_THREADS', 1, 256),
    tasks: choice('RAMIFY_TASKS', ['shipped', 'none']),
    toolsFile,
    tools: toolsFile === null ? NO_TOOLS : readToolsFile(toolsFile, environment),
    schedule: {
      minNewScored:
        text('RAMIFY_MIN_NEW_SCORED') === 'off'
          ? null
          : integer('RAMIFY_MIN_NEW_SCORED', 1, 1_000_000),
      everyMinutes: numberOrOff('RAMIFY_EVERY_MINUTES', text('RAMIFY_EVERY_MINUTES')),
      run: scheduledRun(text('RAMIFY_SCHEDULED_RUN')),
    },
    release: releaseSettings(given, text, integer),
    policiesKept: integer('RAMIFY_POLICIES_KEPT', 0, 10_000),
    keep: {
      days: numberOrOff('RAMIFY_KEEP_DAYS', text('RAMIFY_KEEP_DAYS')),
      bytes: bytesOrOff('RAMIFY_KEEP_GB', text('RAMIFY_KEEP_GB')),
    },
    metrics: declaredMetrics(text('RAMIFY_METRICS')),
    logLevel: choice('RAMIFY_LOG_LEVEL', LOG_LEVELS),
  };
}

/** Names of this machine that never leave it: localhost, 127.0.0.0/8 and ::1. */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase();
  if (name === 'localhost' || name === '::1' || name === '[::1]') return true;
  const parts = /^127\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(name);
  return parts !== null && parts.slice(1).every((part) => Number(part) <= 255);
}

/** Whether it can be listened on by its form; keys are asked for in listen.ts. */
function isHost(host: string): boolean {
  const name = host.replace(/^\[(.*)\]$/, '$1');
  return isIP(name) !== 0 || /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/i.test(name);
}

function fromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Partial<Record<SettingName, string>> {
  const out: Partial<Record<SettingName, string>> = {};
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith('RAMIFY_') || value === undefined) continue;
    out[known(name, `${name}=${value}`)] = value;
  }
  return out;
}

function fromFlags(flags: readonly string[]): Partial<Record<SettingName, string>> {
  const out: Partial<Record<SettingName, string>> = {};
  for (let i = 0; i < flags.length; i++) {
    const flag = flags[i] as string;
    const match = /^--([a-z-]+)(?:=(.*))?$/s.exec(flag);
    const name = `RAMIFY_${(match?.[1] ?? '?').toUpperCase().replaceAll('-', '_')}`;
    const setting = known(name, flag);
    const value = match?.[2] ?? flags[++i];
    if (value === undefined) {
      throw new AppError('config_invalid', `${flag} needs a value: ${SETTINGS[setting].form}`);
    }
    out[setting] = value;
  }
  return out;
}

function known(name: string, asGiven: string): SettingName {
  if (Object.hasOwn(SETTINGS, name)) return name as SettingName;
  throw new AppError(
    'config_invalid',
    `${asGiven}: unknown setting; known are ${Object.keys(SETTINGS).join(', ')}`,
  );
}

function folder(name: SettingName, path: string): string {
  if (path.trim() === '' || path.includes('\0')) return refuse(name, path);
  return isAbsolute(path) ? path : resolve(path);
}

function releaseSettings(
  given: Partial<Record<SettingName, string>>,
  text: (name: SettingName) => string,
  integer: (name: SettingName, min: number, max: number) => number,
): ReleaseSettings {
  const toleranceText = text('RAMIFY_ROLLBACK_TOLERANCE');
  const rollbackTolerance = /^0(\.0+)?$/.test(toleranceText)
    ? 0
    : numberOrOff('RAMIFY_ROLLBACK_TOLERANCE', toleranceText);
  const share = numberOrOff('RAMIFY_CANARY_SHARE', text('RAMIFY_CANARY_SHARE'));
  if (share !== null && share >= 1) refuse('RAMIFY_CANARY_SHARE', String(share));
  for (const name of ['RAMIFY_CANARY_CONVERSATIONS', 'RAMIFY_CANARY_MINUTES'] as const) {
    if (share === null && given[name] !== undefined) {
      throw new AppError('config_invalid', `${name} does nothing without RAMIFY_CANARY_SHARE`);
    }
  }
  if (share !== null && rollbackTolerance === null) {
    throw new AppError(
      'config_invalid',
      'RAMIFY_ROLLBACK_TOLERANCE=off: a canary is useless when nothing is held against it',
    );
  }
  const canary: CanaryTerms | null =
    share === null
      ? null
      : {
          share,
          conversations: integer('RAMIFY_CANARY_CONVERSATIONS', 1, 1_000),
          minutes: numberOrOff('RAMIFY_CANARY_MINUTES', text('RAMIFY_CANARY_MINUTES')),
        };
  return { canary, rollbackTolerance };
}

/** A number above 0; null = off. */
function numberOrOff(name: SettingName, text: string): number | null {
  if (text === 'off') return null;
  const value = /^\d{1,6}(\.\d{1,6})?$/.test(text) ? Number(text) : 0;
  return value > 0 ? value : refuse(name, text);
}

/** Of gigabytes. */
function bytesOrOff(name: SettingName, text: string): number | null {
  const gigabytes = numberOrOff(name, text);
  return gigabytes === null ? null : Math.ceil(gigabytes * 1e9);
}

/** The settings are checked in full, so that a wrong one is known at the start. */
function scheduledRun(text: string): ScheduledRun {
  const name = 'RAMIFY_SCHEDULED_RUN';
  let run: unknown;
  try {
    run = JSON.parse(text);
  } catch {
    return refuse(name, text);
  }
  if (!isObject(run)) return refuse(name, text);
  const { algorithm = 'arpo', steps, settings = {}, ...others } = run;
  const stepsFit =
    steps === undefined ||
    (Number.isInteger(steps) && Number(steps) >= 1 && Number(steps) <= LIMITS.trainingStepsMax);
  const known = (algorithm === 'arpo' || algorithm === 'grpo') && stepsFit;
  if (!known || Object.keys(others).length > 0 || !isObject(settings)) return refuse(name, text);
  try {
    parseSettings(algorithm, settings, 'full', 'both');
  } catch (error) {
    throw new AppError('config_invalid', `${name}=${text}: ${toAppError(error).message}`);
  }
  return run;
}

function declaredMetrics(text: string): FeedbackMetrics {
  try {
    return parseMetrics(text);
  } catch (thrown) {
    throw new AppError('config_invalid', `RAMIFY_METRICS=${text}: ${toAppError(thrown).message}`);
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function refuse(name: SettingName, value: string): never {
  throw new AppError('config_invalid', `${name}=${value}: must be ${SETTINGS[name].form}`);
}
