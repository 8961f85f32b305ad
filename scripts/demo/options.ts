/** The command line of the demo. A wrong flag or value is refused before anything starts. */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { AppError } from '../../core/errors.ts';

export interface DemoOptions {
  /** Keys every draw: the choice of questions, their sampling, the training run. */
  seed: number;
  /** Held-out questions asked before and after, spread evenly over the families. */
  questions: number;
  /** Training steps. */
  steps: number;
  algorithm: 'arpo' | 'grpo';
  /** Overrides of training settings, by arpo.md's names. */
  settings: Record<string, unknown>;
  /** Absolute; the learning curve. A summary in JSON is written beside it. */
  svgPath: string;
  summaryPath: string;
  /** Print the summary as JSON and nothing else on stdout. */
  json: boolean;
  /** Leave the server's data folder behind. */
  keep: boolean;
}

export const USAGE = `Usage: npm run demo -- [flags]
  --seed N           key of every random draw (default 1)
  --questions N      held-out questions asked before and after (default 60, at most 600)
  --steps N          training steps (default 100)
  --algorithm NAME   arpo or grpo (default arpo)
  --setting NAME=V   override a training setting, V in JSON; may be repeated
  --out FILE.svg     the learning curve; a summary is written beside it as FILE.json
                     (default data/demo/learning-curve-seed-N.svg)
  --json             print only the summary, as JSON
  --keep             keep the server's data folder and say where it is
  --help             this text
The policy is that of RAMIFY_POLICY, or the embedded one.`;

const FLAGS = {
  seed: { type: 'string', default: '1' },
  questions: { type: 'string', default: '60' },
  steps: { type: 'string', default: '100' },
  algorithm: { type: 'string', default: 'arpo' },
  setting: { type: 'string', multiple: true, default: [] as string[] },
  out: { type: 'string' },
  json: { type: 'boolean', default: false },
  keep: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

/** `null`: help was asked for. @throws AppError config_invalid, naming the flag and its value. */
export function parseOptions(args: readonly string[]): DemoOptions | null {
  const values = readFlags(args);
  if (values.help) return null;
  const seed = integer('--seed', values.seed, 0, 2 ** 31 - 1);
  const { algorithm } = values;
  if (algorithm !== 'arpo' && algorithm !== 'grpo') {
    throw refused(`--algorithm ${algorithm}: must be arpo or grpo`);
  }
  const svgPath = resolve(values.out ?? `data/demo/learning-curve-seed-${seed}.svg`);
  if (!svgPath.endsWith('.svg')) throw refused(`--out ${svgPath}: must end in .svg`);
  return {
    seed,
    questions: integer('--questions', values.questions, 1, 600),
    steps: integer('--steps', values.steps, 1, 10_000),
    algorithm,
    settings: Object.fromEntries(values.setting.map(setting)),
    svgPath,
    summaryPath: svgPath.replace(/\.svg$/, '.json'),
    json: values.json,
    keep: values.keep,
  };
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
  throw refused(`${flag} ${text}: must be an integer from ${min} to ${max}`);
}

function setting(text: string): [string, unknown] {
  const at = text.indexOf('=');
  const name = text.slice(0, Math.max(0, at));
  try {
    if (name !== '') return [name, JSON.parse(text.slice(at + 1)) as unknown];
  } catch {
    // Told below, with the form that was expected.
  }
  throw refused(`--setting ${text}: must be NAME=VALUE with the value in JSON`);
}

function refused(message: string): AppError {
  return new AppError('config_invalid', message);
}
