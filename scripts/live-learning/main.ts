/**
 * `npm run live:learn`: what the server learns from live conversations with feedback alone, over
 * some seeds from `--first` on; with `--invert` what a poisoned stream does to it. Writes one JSON
 * file.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { mean } from '../../core/arpo/number.ts';
import { AppError, toAppError } from '../../core/errors.ts';
import { runSeed, type ExperimentOptions, type SeedResult } from './experiment.ts';

const FLAGS = {
  seeds: { type: 'string', default: '3' },
  first: { type: 'string', default: '1' },
  conversations: { type: 'string', default: '300' },
  parts: { type: 'string', default: '1' },
  questions: { type: 'string', default: '120' },
  steps: { type: 'string', default: '100' },
  settings: { type: 'string', default: '{}' },
  invert: { type: 'string', default: '0' },
  out: { type: 'string', default: 'docs/evidence/live-learning/live-learning.json' },
} as const;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: FLAGS, strict: true });
  const count = (
    name: 'seeds' | 'first' | 'conversations' | 'parts' | 'questions' | 'steps',
  ): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= 1) return value;
    throw new AppError('config_invalid', `--${name} ${values[name]}: must be a positive integer`);
  };
  const invert = Number(values.invert);
  if (!(invert >= 0 && invert <= 1)) {
    throw new AppError('config_invalid', `--invert ${values.invert}: must be a share from 0 to 1`);
  }
  const options: ExperimentOptions = {
    conversations: count('conversations'),
    parts: count('parts'),
    questions: count('questions'),
    run: {
      steps: count('steps'),
      settings: JSON.parse(values.settings) as Record<string, unknown>,
    },
    invert,
    say: (line) => void process.stdout.write(`${line}\n`),
  };
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () =>
      interrupt.abort(new AppError('request_cancelled', `stopped by ${name}`)),
    );
  }
  const results: SeedResult[] = [];
  const first = count('first');
  for (let seed = first; seed < first + count('seeds'); seed++) {
    results.push(await runSeed(seed, options, interrupt.signal));
  }
  const gain = (way: 'sampled' | 'greedy'): number =>
    mean(results.map(({ before, after }) => 100 * (after[way] - before[way])));
  const gains = { sampled: gain('sampled'), greedy: gain('greedy') };
  const path = resolve(values.out);
  mkdirSync(dirname(path), { recursive: true });
  const report = { options, pointsGained: gains, results };
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
  options.say(`points gained, mean of ${results.length}: ${JSON.stringify(gains)}; ${path}`);
}

main().then(
  () => process.exit(0),
  (thrown: unknown) => {
    process.stderr.write(`live-learning: ${toAppError(thrown).message}\n`);
    process.exit(1);
  },
);
