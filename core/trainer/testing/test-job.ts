/** A job for tests of the process edge; the process reads only `settings`, `steps` and `runId`. */
import type { TrainingJob } from '../types.ts';

export function testJob(settings: Record<string, unknown>, directory: string): TrainingJob {
  return {
    runId: 'trn_test',
    algorithm: 'grpo',
    steps: 10,
    settings,
    seed: 1,
    baseVersion: 1,
    baseDirectory: directory,
    candidateDirectory: directory,
    trainTasks: [],
    gateTasks: [],
    threads: 1,
  };
}
