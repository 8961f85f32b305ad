/** The command line of the experiments. A wrong flag or value is refused before anything starts. */
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { AppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';
import { ARM_SETS, chooseArms, type Arm, type ArmSet } from './arms.ts';
import type { Plan } from './plan.ts';

export const EVIDENCE = join(packageRoot, 'docs', 'evidence', 'arpo');

export interface ExperimentOptions {
  plan: Omit<Plan, 'startSha256'>;
  arms: Arm[];
  seeds: number[];
  /** Runs at once, each a process with one thread. */
  jobs: number;
  /** Where records are appended, and where finished runs are looked up. */
  out: string;
  /** No run is started that would probably not end within so many minutes; null: all are. */
  minutes: number | null;
  /** Only say what would be run. */
  list: boolean;
}

export const USAGE = `Usage: npm run bench:arpo -- [flags]
  --set NAME      rules (default) or off-policy
  --arms A,B      only these arms (default all of the set)
  --seeds S       a number N for 1 to N, a range A-B, or a list A,B,C (default 8; off-policy 3)
  --steps N       training steps (default 80; off-policy 40)
  --every N       steps between two points of evaluation (default 20)
  --tasks N       held-out tasks of a point, spread over the families (default 180)
  --samples N     sampled answers to each; one is greedy besides (default 2)
  --prompts N     prompts of a training step (default 6)
  --rate R        learning rate (default 1e-4; off-policy 2e-4)
  --jobs N        runs at once, one thread each (default: as many as cores)
  --minutes M     stop starting runs that would not end within M minutes
  --out FILE      records, one JSON line a run (default docs/evidence/arpo/SET.jsonl)
  --list          say what is done and what would be run, and end
  --help          this text
Runs that FILE already has for the same plan are not made again, so the whole can be spread over
sessions. npm run bench:arpo:report makes tables and figures of what is there.`;

/** Old data harms where weights move fast, and shows it early. */
const DEFAULTS: Readonly<Record<ArmSet, { seeds: string; steps: string; rate: string }>> = {
  rules: { seeds: '8', steps: '80', rate: '1e-4' },
  'off-policy': { seeds: '3', steps: '40', rate: '2e-4' },
};

const FLAGS = {
  set: { type: 'string', default: 'rules' },
  arms: { type: 'string' },
  seeds: { type: 'string' },
  steps: { type: 'string' },
  every: { type: 'string', default: '20' },
  tasks: { type: 'string', default: '180' },
  samples: { type: 'string', default: '2' },
  prompts: { type: 'string', default: '6' },
  rate: { type: 'string' },
  jobs: { type: 'string', default: String(availableParallelism()) },
  minutes: { type: 'string' },
  out: { type: 'string' },
  list: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

/** `null`: help was asked for. Throws config_invalid that names the flag and its value. */
export function parseOptions(args: readonly string[]): ExperimentOptions | null {
  const values = readFlags(args);
  if (values.help) return null;
  const set = armSet(values.set);
  const { seeds, steps, rate } = { ...DEFAULTS[set], ...values };
  return {
    plan: {
      set,
      steps: integer('--steps', steps, 1, 10_000),
      evaluateEvery: integer('--every', values.every, 1, 10_000),
      tasks: integer('--tasks', values.tasks, 1, 600),
      samples: integer('--samples', values.samples, 1, 64),
      promptsPerStep: integer('--prompts', values.prompts, 1, 512),
      learningRate: number('--rate', rate),
    },
    arms: chooseArms(set, values.arms?.split(',') ?? null),
    seeds: parseSeeds(seeds),
    jobs: integer('--jobs', values.jobs, 1, 64),
    out: resolve(values.out ?? join(EVIDENCE, `${set}.jsonl`)),
    minutes: values.minutes === undefined ? null : integer('--minutes', values.minutes, 1, 10_000),
    list: values.list,
  };
}

/** `8`: 1 to 8; `3-5`; `2,4,9`. Throws config_invalid. */
export function parseSeeds(text: string): number[] {
  const range = /^(\d{1,6})-(\d{1,6})$/.exec(text);
  const [first, last] = range === null ? [1, Number(text)] : [Number(range[1]), Number(range[2])];
  const seeds = /^\d+(,\d+)+$/.test(text)
    ? [...new Set(text.split(',').map(Number))]
    : Array.from({ length: Math.min(last - first + 1, 1_000) || 0 }, (_, i) => first + i);
  if (/^[\d,-]+$/.test(text) && seeds.length > 0 && !seeds.includes(0)) return seeds;
  throw refused(`--seeds ${text}: must be N, A-B or A,B,C of seeds from 1 on`);
}

function armSet(name: string): ArmSet {
  if (Object.hasOwn(ARM_SETS, name)) return name as ArmSet;
  throw refused(`--set ${name}: must be one of ${Object.keys(ARM_SETS).join(', ')}`);
}

function readFlags(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: FLAGS, strict: true }).values;
  } catch (cause) {
    throw refused(cause instanceof Error ? cause.message : String(cause));
  }
}

function integer(flag: string, text: string, min: number, max: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : NaN;
  if (value >= min && value <= max) return value;
  throw refused(`${flag} ${text}: must be a whole number from ${min} to ${max}`);
}

function number(flag: string, text: string): number {
  const value = Number(text);
  if (text !== '' && value > 0 && value < 1) return value;
  throw refused(`${flag} ${text}: must be a number between 0 and 1`);
}

const refused = (message: string): AppError => new AppError('config_invalid', message);
