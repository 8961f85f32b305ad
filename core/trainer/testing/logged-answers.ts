/**
 * Live conversations as a log would have them, for tests: tasks are answered by a policy, and a
 * client that knows the truths rates each answer. The truths go no further.
 */
import type { EpisodeContext } from '../../agent/types.ts';
import { evaluateTasks } from '../../arpo/evaluate.ts';
import type { Sampler } from '../../ports.ts';
import type { LiveSample, Task } from '../../records.ts';

export interface LoggedAnswersOptions {
  sampler: Sampler;
  context: EpisodeContext;
  tasks: readonly Task[];
  seed: number;
  /** 1 for a right answer and 0 for a wrong one when left out. */
  rate?: (correct: boolean, index: number) => number;
  version?: number;
}

/** One conversation a task, in their order. */
export async function loggedAnswers(options: LoggedAnswersOptions): Promise<LiveSample[]> {
  const { sampler, context, tasks, seed, rate = Number, version = 1 } = options;
  const answered = await evaluateTasks({
    ...{ sampler, context, tasks, seed, version },
    limits: { maxToolCalls: 4, maxTokens: 40 },
    temperature: 1,
    runId: null,
  });
  return answered.map(({ record, steps, task, correct }, i) => ({
    trajectory: { ...record, source: 'live', taskId: null, reward: rate(correct, i) },
    steps,
    question: task.question,
    tools: task.tools,
    clientTools: false,
  }));
}

/** So many different questions, all answered by `colour`. */
export function numberedTasks(tasks: readonly Task[]): Task[] {
  return tasks.map((task, i) => ({ ...task, question: `${task.question} ${i}` }));
}
