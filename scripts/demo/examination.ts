/**
 * Asks a list of questions in both ways, some at a time, and posts each score as feedback. The seed
 * of a question depends on its place only, so two examinations with one seed are paired draw by
 * draw. A request that fails is counted and told, and the others go on.
 */
import { toAppError } from '../../core/errors.ts';
import { mapBounded } from '../../core/arpo/concurrency.ts';
import { mix } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import { WAYS, type Answer, type Way } from './answer.ts';
import type { Asker } from './asker.ts';

/** Questions under way at once. */
const CONCURRENCY = 8;

export interface Failure {
  way: Way | 'feedback';
  taskId: string;
  message: string;
}

export interface Examination {
  answers: Answer[];
  failures: Failure[];
}

/** `signal` ends it with what it was aborted with. */
export async function examine(
  asker: Asker,
  questions: readonly Task[],
  options: { seed: number; signal: AbortSignal },
): Promise<Examination> {
  const { seed, signal } = options;
  const result: Examination = { answers: [], failures: [] };
  const jobs = questions.flatMap((task, i) => WAYS.map((way) => ({ task, way, i })));
  await mapBounded(
    jobs,
    CONCURRENCY,
    async ({ task, way, i }) => {
      signal.throwIfAborted();
      const answer = await attempt(result.failures, { way, task, signal }, () =>
        asker.ask(way, task, mix(seed, i)),
      );
      if (answer === null) return;
      result.answers.push(answer);
      await attempt(result.failures, { way: 'feedback', task, signal }, () =>
        asker.client.createFeedback({
          trajectory_id: answer.trajectoryId,
          metric_name: 'reward',
          value: answer.reward,
          tags: { task: task.id, family: task.family },
        }),
      );
    },
    () => undefined,
  );
  return result;
}

/** The result, or null when it failed and was noted. An abort of the whole demo is no failure. */
export async function attempt<T>(
  failures: Failure[],
  { way, task, signal }: { way: Failure['way']; task: Task; signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T | null> {
  try {
    return await work();
  } catch (thrown) {
    signal.throwIfAborted();
    failures.push({ way, taskId: task.id, message: toAppError(thrown).message });
    return null;
  }
}
