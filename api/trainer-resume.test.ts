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
import type { TrainerEvent, TrainingJob } from '../core/trainer/types.ts';
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

const stepDone =
  (step: number) =>
  (event: TrainerEvent): boolean =>
    event.type === 'step' && event.step === step;

it('ends with the same weights, bit for bit, after four kills', { timeout: 240_000 }, async () => {
  const job: TrainingJob = {
    runId: 'trn_resume',
    algorithm: 'arpo',
    steps: 4,
    settings: {
      groupSize: 4,
      promptsPerStep: 2,
      learningRate: 1e-3,
      gateTasks: 20,
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
    [
      { due: (event) => event.type === 'rollouts' && event.step === 2 },
      // In the log, and not in a checkpoint yet.
      { due: stepDone(2) },
      { due: stepDone(2), inCheckpoint: true },
      { due: (event) => event.type === 'candidate' },
    ],
  );
  expect(kills).toMatchObject([
    { event: 'rollouts', step: 1, resumedAt: 1 },
    { event: 'step', step: 2, resumedAt: 1 },
    {},
    { event: 'candidate', step: 4, resumedAt: 4 },
  ]);
  // The third fell into the checkpoint of step 2 or soon after it; nothing before it is lost.
  expect(kills[2]?.resumedAt).toBeGreaterThanOrEqual(1);
  expect(candidate.sha256).toBe(whole.sha256);
  expect(candidate.gate).toEqual(whole.gate);
  // The steps learned something to lose.
  const weights = (folder: string) => readFileSync(join(folder, 'model.safetensors'));
  expect(weights(candidate.directory).equals(weights(job.baseDirectory))).toBe(false);
  expect(readdirSync(checkpointDirectory)).toEqual(['step-000003', 'step-000004']);
  expect(existsSync(join(root, '.killed.partial'))).toBe(false);
});
