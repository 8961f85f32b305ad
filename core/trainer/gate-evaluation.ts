/**
 * A policy's answers to the held-out tasks of the gate, and their form in a checkpoint. Sample k of
 * every task draws by (gate seed, k, task), so base and candidate meet the same luck.
 */
import { evaluateTasks } from '../arpo/evaluate.ts';
import { episodeLimits, type ArpoSettings } from '../arpo/settings.ts';
import type { EpisodeContext } from '../agent/types.ts';
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { Weights } from '../model/types.ts';
import type { Sampler } from '../ports.ts';
import { mix } from '../prng.ts';
import type { Task } from '../records.ts';
import type { GateAnswers, GateOutcome } from './gate.ts';
import { SEEDS } from './run-seeds.ts';
import type { TrainingJob } from './types.ts';

export interface GateOptions {
  job: TrainingJob;
  settings: ArpoSettings;
  sampler: Sampler;
  context: EpisodeContext;
  tasks: readonly Task[];
  signal: AbortSignal;
}

/** Answers every task `gateSamples` times, and once greedily where `gateGreedy` asks for it. */
export async function answerGateTasks(options: GateOptions): Promise<GateAnswers> {
  const { job, settings, sampler, context, tasks, signal } = options;
  const answer = async (seed: number, temperature: number): Promise<GateOutcome[]> => {
    const answered = await evaluateTasks({
      sampler,
      context,
      tasks,
      version: job.baseVersion,
      limits: episodeLimits(settings),
      temperature,
      seed,
      runId: job.runId,
      signal,
    });
    // What the gate does not read (every token of every answer) is not held.
    return answered.map(({ task, correct, formatOk, toolCalls }) => ({
      task,
      correct,
      formatOk,
      toolCalls,
    }));
  };
  const sampled: GateOutcome[][] = [];
  for (let k = 0; k < settings.gateSamples; k++) {
    const seed = k === 0 ? mix(job.seed, SEEDS.gate) : mix(job.seed, SEEDS.gate, k);
    sampled.push(await answer(seed, settings.temperature));
  }
  const greedy = settings.gateGreedy ? await answer(mix(job.seed, SEEDS.gate), 0) : null;
  return { sampled, greedy };
}

/** Numbers kept of an outcome: right, well formed, calls. */
const WIDTH = 3;

/** As arrays of a checkpoint. */
export function packAnswers({ sampled, greedy }: GateAnswers): Weights {
  const pack = (lists: readonly (readonly GateOutcome[])[]) => ({
    shape: [lists.length, lists[0]?.length ?? 0, WIDTH],
    data: Float32Array.from(
      lists.flat().flatMap((o) => [Number(o.correct), Number(o.formatOk), o.toolCalls]),
    ),
  });
  return new Map([
    ['sampled', pack(sampled)],
    ['greedy', pack(greedy === null ? [] : [greedy])],
  ]);
}

/** The answers again, for the same tasks. Throws storage_failed when they are not of these. */
export function unpackAnswers(arrays: Weights, tasks: readonly Task[]): GateAnswers {
  const unpack = (name: string): GateOutcome[][] => {
    const { shape, data } = must(arrays.get(name), name);
    const [lists = 0, count = 0] = shape;
    if (lists > 0 && (count !== tasks.length || shape[2] !== WIDTH)) {
      throw new AppError('storage_failed', `answers to ${count} gate tasks, not ${tasks.length}`);
    }
    return Array.from({ length: lists }, (_, k) =>
      tasks.map((task, i) => {
        const at = (k * tasks.length + i) * WIDTH;
        const [correct, formatOk, toolCalls] = data.subarray(at, at + WIDTH);
        return {
          task,
          correct: correct === 1,
          formatOk: formatOk === 1,
          toolCalls: toolCalls ?? 0,
        };
      }),
    );
  };
  return { sampled: unpack('sampled'), greedy: unpack('greedy')[0] ?? null };
}
