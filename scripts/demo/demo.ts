/**
 * `npm run demo`: the whole of ramify in one command. Starts the real server on an empty data
 * folder, asks held-out questions, posts rewards, retrains, keeps asking while the better policy is
 * swapped in, asks again, and shows what changed. Exit code 0: no request failed and the accuracy
 * rose; 1: it did not go well; 130: interrupted.
 *
 * Everything goes through HTTP, as for any client. Nothing it starts outlives it.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { AppError, toAppError } from '../../core/errors.ts';
import { openAsker } from './asker.ts';
import { learningCurveSvg } from './chart-svg.ts';
import { textChart } from './chart-text.ts';
import { runExperiment } from './experiment.ts';
import { parseOptions, USAGE, type DemoOptions } from './options.ts';
import { startServerProcess } from './server-process.ts';
import { accuracyOf, type Summary } from './summary.ts';
import { resultText } from './table.ts';

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options === null) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const interrupt = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void =>
    interrupt.abort(new AppError('request_cancelled', `stopped by ${signal}`));
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    const summary = await withServer(options, interrupt.signal);
    writeFiles(summary, options);
    show(summary, options);
    return summary.problems.length === 0 ? 0 : 1;
  } catch (thrown) {
    if (!interrupt.signal.aborted) throw thrown;
    process.stderr.write(`demo: ${toAppError(interrupt.signal.reason).message}\n`);
    return 130;
  }
}

/** Runs the experiment against a server of its own, which is gone afterwards, whatever happens. */
async function withServer(options: DemoOptions, interrupted: AbortSignal): Promise<Summary> {
  const say = (line: string): void => {
    (options.json ? process.stderr : process.stdout).write(`${line}\n`);
  };
  const dataFolder = mkdtempSync(join(tmpdir(), 'ramify-demo-'));
  try {
    const server = await startServerProcess(dataFolder, interrupted);
    try {
      say(`server ready at ${server.url}, data in ${dataFolder}`);
      const signal = AbortSignal.any([interrupted, server.died]);
      const asker = openAsker(server.url, signal);
      try {
        return await runExperiment({ options, asker, say, signal });
      } catch (thrown) {
        // Requests fail in many words when the server dies; its own are the cause.
        throw signal.aborted ? signal.reason : thrown;
      } finally {
        await asker.close();
      }
    } finally {
      await server.stop();
    }
  } finally {
    if (options.keep) say(`data folder kept: ${dataFolder}`);
    else rmSync(dataFolder, { recursive: true, force: true });
  }
}

function writeFiles(summary: Summary, { svgPath, summaryPath }: DemoOptions): void {
  mkdirSync(dirname(svgPath), { recursive: true });
  const { training, questions, seed } = summary;
  const svg = learningCurveSvg({
    title: `ramify learns its tools: ${training.algorithm}, ${summary.curve.length} steps`,
    subtitle:
      `seed ${seed}, ${questions} held-out questions as agent runs, ` +
      `${summary.trainingSeconds.toFixed(0)} s of training`,
    points: summary.curve,
    heldOut: {
      before: accuracyOf(summary.before, 'agent'),
      after: accuracyOf(summary.after, 'agent'),
    },
  });
  writeFileSync(svgPath, svg);
  writeFileSync(summaryPath, `${JSON.stringify(summary, null, 2)}\n`);
}

function show(summary: Summary, options: DemoOptions): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify(summary, null, 2)}\n`);
    return;
  }
  const { curve, problems, requests } = summary;
  const charts = [
    textChart({ title: 'accuracy of the rollouts', values: curve.map((point) => point.accuracy) }),
    textChart({ title: 'mean reward', values: curve.map((point) => point.rewardMean) }),
  ];
  const failures = requests.failures.map(
    ({ way, taskId, message }) => `failed: ${way} ${taskId}: ${message}`,
  );
  const verdict =
    problems.length === 0 ? ['The policy got better, and no request failed.'] : problems;
  const files = [options.svgPath, options.summaryPath].map((path) => relative('.', path));
  const parts = [...charts, resultText(summary), ...failures, verdict.join('\n')];
  process.stdout.write(`\n${parts.join('\n\n')}\n\nwritten: ${files.join(', ')}\n`);
}

main().then(
  (code) => process.exit(code),
  (thrown: unknown) => {
    const { code, message, stack } = toAppError(thrown);
    process.stderr.write(`demo: ${code === 'internal' ? (stack ?? message) : message}\n`);
    process.exit(1);
  },
);
