/**
 * The real trainer process with the shipped policy, killed (SIGKILL) and started again: it must end
 * with the same weights as one that was left alone. The long form is `npm run bench:resume`.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packageRoot } from '../core/paths.ts';
import type { Task } from '../core/records.ts';
import type { TrainingJob } from '../core/trainer/types.ts';
import { killedRun, wholeRun } from './testing/killed-run.ts';

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'ramify-resume-'));
});
afterAll(() => rmSync(root, { recursive: true }));

function tasks(split: Task['split']): Task[] {
  const text = readFileSync(join(packageRoot, 'corpus', 'tasks', `${split}.jsonl`), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Task);
}

it('ends with the same weights, bit for bit, after three kills', { timeout: 120_000 }, async () => {
  const job: TrainingJob = {
    runId: 'trn_resume',
    algorithm: 'arpo',
    steps: 4,
    settings: {
      groupSize: 4,
      promptsPerStep: 2,
      learningRate: 1e-3,
      gateTasks: 4,
      checkpointEvery: 1,
    },
    seed: 1,
    baseVersion: 1,
    baseDirectory: join(packageRoot, 'policies', 'embedded'),
    candidateDirectory: join(root, 'whole'),
    trainTasks: tasks('train'),
    gateTasks: tasks('gate'),
    threads: 2,
  };
  const whole = await wholeRun(job);
  const checkpointDirectory = join(root, 'checkpoints');
  const { candidate, kills } = await killedRun(
    { ...job, candidateDirectory: join(root, 'killed'), checkpointDirectory },
    { kills: 3, seed: 2, delayMsMax: 500 },
  );
  expect(kills.length).toBe(3);
  expect(candidate.sha256).toBe(whole.sha256);
  expect(candidate.gate).toEqual(whole.gate);
  // It did go on and not start over, and the steps learned something to lose.
  expect(kills.at(-1)?.resumedAt).toBeGreaterThan(0);
  const weights = (folder: string) => readFileSync(join(folder, 'model.safetensors'));
  expect(weights(candidate.directory).equals(weights(job.baseDirectory))).toBe(false);
  expect(readdirSync(checkpointDirectory)).toEqual(['step-000003', 'step-000004']);
  expect(existsSync(join(root, '.killed.partial'))).toBe(false);
});
