/** Jobs and tasks for tests: plain data with everything filled in. */
import type { Task } from '../../records.ts';
import type { TrainingJob } from '../types.ts';

/** A task that is answered by `yes`. */
export function testTask(change: Partial<Task> = {}): Task {
  return {
    id: 'task_1',
    family: 'math',
    split: 'train',
    question: 'Is it?',
    truths: ['yes'],
    verifier: 'exact',
    tools: [],
    metadata: {},
    ...change,
  };
}

/**
 * A job for tests of the process edge: those processes read `settings`, `steps` and `runId` only.
 */

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
