/**
 * npm run bench:arpo: what the branch rules buy. Trains every arm with every seed from the same
 * weights and records accuracy against executed tool calls; docs/experiments.md says what came out.
 * Ends by itself; Ctrl-C ends it sooner, and what is finished stays.
 */
import { toAppError } from '../../core/errors.ts';
import { missingRuns, runExperiment, type Experiment } from './experiment.ts';
import { weightsSha256 } from './facts.ts';
import { parseOptions, USAGE, type ExperimentOptions } from './options.ts';
import { START_POLICY } from './training-run.ts';

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options === null) return console.log(USAGE);
  const experiment = experimentOf(options);
  if (options.list) return list(experiment);
  const abort = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => abort.abort());
  const started = performance.now();
  const failures = await runExperiment(experiment, abort.signal, (line) => {
    const minutes = Math.floor((performance.now() - started) / 60_000);
    console.log(`${String(minutes).padStart(4)} min  ${line}`);
  });
  if (failures.length > 0) process.exitCode = 1;
}

function experimentOf({ plan, arms, seeds, jobs, out, minutes }: ExperimentOptions): Experiment {
  const startSha256 = weightsSha256(START_POLICY);
  return { plan: { ...plan, startSha256 }, arms, seeds, jobs, out, minutes };
}

function list(experiment: Experiment): void {
  const missing = missingRuns(experiment);
  for (const arm of experiment.arms) {
    const seeds = missing.filter((run) => run.arm.name === arm.name).map(({ seed }) => seed);
    const left = seeds.length === 0 ? 'done' : `seeds ${seeds.join(', ')} are missing`;
    console.log(`${arm.name.padEnd(24)} ${arm.about}: ${left}`);
  }
}

try {
  await main();
} catch (error) {
  console.error(toAppError(error).message);
  process.exitCode = 1;
}
