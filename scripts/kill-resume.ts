/**
 * `npm run bench:resume [-- --kills 20 --steps 60 --seed 1]`: trains the shipped policy once
 * undisturbed and once with the trainer's process killed at seeded moments, and compares the two
 * candidates byte by byte (sha256 of the directory). Prints each kill and what it cost.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { killedRun, wholeRun } from '../api/testing/killed-run.ts';
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
    gateTasks: 12,
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
  const startedAt = performance.now();
  const whole = await wholeRun(job);
  const wholeMs = performance.now() - startedAt;
  console.log(`undisturbed: ${(wholeMs / 1_000).toFixed(1)} s, sha256 ${whole.sha256}`);

  const killed = await killedRun(
    {
      ...job,
      candidateDirectory: join(root, 'killed', '2'),
      checkpointDirectory: join(root, 'checkpoints'),
    },
    {
      kills: Number(flags.kills),
      seed: Number(flags.seed),
      delayMsMax: (2 * wholeMs) / job.steps,
    },
  );
  killed.kills.forEach((kill, i) => {
    const lost = kill.step - kill.resumedAt;
    console.log(
      `kill ${i + 1}, ${kill.moment}: last event ${kill.event}, step ${kill.step} done; ` +
        `went on after step ${kill.resumedAt} (${lost} done again)`,
    );
  });
  const same = killed.candidate.sha256 === whole.sha256;
  console.log(`${killed.kills.length} kills: sha256 ${killed.candidate.sha256}`);
  console.log(same ? 'the same weights, bit for bit' : 'DIFFERENT weights');
  process.exitCode = same && killed.kills.length === Number(flags.kills) ? 0 : 1;
} finally {
  rmSync(root, { recursive: true, force: true });
}
