/**
 * `npm run bench:resume [-- --kills 20 --steps 60 --seed 1]`: trains the shipped policy once
 * undisturbed and once with the trainer's process killed at seeded moments, and compares the two
 * candidates byte by byte (sha256 of the directory). Prints each kill and what it cost.
 * `--training lora` trains an adapter; `--settings JSON` adds settings of the run.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { killedRun, seededMoments, wholeRun } from '../api/testing/killed-run.ts';
import { recordResults } from '../bench/report.ts';
import { packageRoot } from '../core/paths.ts';
import type { TrainingJob } from '../core/trainer/types.ts';
import { readTasks } from './policy/evaluation.ts';

const { values: flags } = parseArgs({
  options: {
    kills: { type: 'string', default: '20' },
    steps: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string', default: '2' },
    training: { type: 'string', default: 'full' },
    settings: { type: 'string', default: '{}' },
  },
});

const root = mkdtempSync(join(tmpdir(), 'ramify-resume-'));
const job: TrainingJob = {
  runId: 'trn_resume',
  algorithm: 'arpo',
  steps: Number(flags.steps),
  settings: {
    groupSize: 4,
    promptsPerStep: 4,
    learningRate: 1e-3,
    gateTasks: 20,
    checkpointEvery: 2,
    training: flags.training,
    ...(JSON.parse(flags.settings) as Record<string, unknown>),
  },
  seed: Number(flags.seed),
  baseVersion: 1,
  baseDirectory: join(packageRoot, 'policies', 'embedded'),
  candidateDirectory: join(root, 'whole', '2'),
  trainTasks: readTasks('train'),
  gateTasks: readTasks('gate'),
  threads: Number(flags.threads),
};

try {
  const wholeStart = performance.now();
  const whole = await wholeRun(job);
  const wholeMs = performance.now() - wholeStart;
  console.log(`undisturbed: ${(wholeMs / 1_000).toFixed(1)} s, sha256 ${whole.sha256}`);

  const killedStart = performance.now();
  const { candidate, kills } = await killedRun(
    {
      ...job,
      candidateDirectory: join(root, 'killed', '2'),
      checkpointDirectory: join(root, 'checkpoints'),
    },
    seededMoments({
      kills: Number(flags.kills),
      steps: job.steps,
      seed: Number(flags.seed),
      delayMsMax: (2 * wholeMs) / job.steps,
    }),
  );
  const killedMs = performance.now() - killedStart;
  kills.forEach((kill, i) => {
    const lost = kill.step - kill.resumedAt;
    const left = kill.halfWritten ? ', a checkpoint half written' : '';
    console.log(
      `kill ${i + 1}: last event ${kill.event}, step ${kill.step} done${left}; ` +
        `went on after step ${kill.resumedAt} (${lost} done again)`,
    );
  });
  const same = candidate.sha256 === whole.sha256;
  console.log(`${kills.length} kills: sha256 ${candidate.sha256}`);
  console.log(same ? 'the same weights, bit for bit' : 'DIFFERENT weights');
  recordResults('resume', { repeats: 1, threads: job.threads }, [
    {
      training: flags.training,
      settings: flags.settings,
      steps: job.steps,
      seed: job.seed,
      kills: kills.length,
      'checkpoints left half written': kills.filter(({ halfWritten }) => halfWritten).length,
      'steps done again': kills.reduce((sum, { step, resumedAt }) => sum + step - resumedAt, 0),
      'undisturbed s': wholeMs / 1_000,
      'killed s': killedMs / 1_000,
      'same bits': String(same),
    },
  ]);
  process.exitCode = same ? 0 : 1;
} finally {
  rmSync(root, { recursive: true, force: true });
}
