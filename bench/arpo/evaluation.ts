/**
 * One point of evaluation: the held-out tasks answered greedily once and sampled several times,
 * with the same draws at every point of every run, so that differences are paired; and the entropy
 * of the sampled answers around tool results.
 */
import type { EpisodeContext } from '../../core/agent/types.ts';
import { evalScores, evaluateTasks, type EvaluatedTask } from '../../core/arpo/evaluate.ts';
import type { ArpoSettings } from '../../core/arpo/settings.ts';
import { episodeLimits } from '../../core/arpo/settings.ts';
import { must } from '../../core/assert.ts';
import type { Sampler } from '../../core/ports.ts';
import { mix } from '../../core/prng.ts';
import type { StepRecord, Task } from '../../core/records.ts';
import type { EntropyProfile, PointScore } from './plan.ts';
import { rounded } from './run-tally.ts';

export interface EvaluationOptions {
  sampler: Sampler;
  context: EpisodeContext;
  settings: ArpoSettings;
  version: number;
  tasks: readonly Task[];
  samples: number;
  signal: AbortSignal;
}

/** Not the run's seed: every run is examined with the same luck. */
const EXAMINATION = 0x65786d;
/** Tokens looked at on either side of a tool result. */
const WINDOW = { before: 8, after: 20 };
/** Results after which steps are no longer told apart. */
const RESULTS_MAX = 4;

export async function evaluatePoint(
  options: EvaluationOptions,
): Promise<{ scores: Record<string, PointScore>; entropy: EntropyProfile }> {
  const answer = (temperature: number, seed: number): Promise<EvaluatedTask[]> =>
    evaluateTasks({
      sampler: options.sampler,
      context: options.context,
      tasks: options.tasks,
      version: options.version,
      limits: episodeLimits(options.settings),
      temperature,
      seed,
      runId: null,
      signal: options.signal,
    });
  const greedy = await answer(0, EXAMINATION);
  const sampled: EvaluatedTask[][] = [];
  for (let k = 0; k < options.samples; k++) sampled.push(await answer(1, mix(EXAMINATION, k)));
  return { scores: pointScores(greedy, sampled), entropy: entropyProfile(sampled.flat()) };
}

function pointScores(
  greedy: readonly EvaluatedTask[],
  sampled: readonly (readonly EvaluatedTask[])[],
): Record<string, PointScore> {
  const best = evalScores(greedy);
  const all = evalScores(sampled.flat());
  return Object.fromEntries(
    Object.entries(all).map(([family, score]) => [
      family,
      {
        sampled: rounded(score.accuracy),
        greedy: rounded(must(best[family], `greedy answers of ${family}`).accuracy),
        passAtK: rounded(passShare(sampled, family)),
        formatErrors: rounded(score.formatErrors),
        callsPerTask: rounded(score.toolCallsPerTask),
      },
    ]),
  );
}

/** Share of a family's tasks that at least one sample answered right. */
function passShare(sampled: readonly (readonly EvaluatedTask[])[], family: string): number {
  const passed = new Map<string, boolean>();
  for (const { task, correct } of sampled.flat()) {
    if (family !== 'all' && task.family !== family) continue;
    passed.set(task.id, (passed.get(task.id) ?? false) || correct);
  }
  return [...passed.values()].filter((right) => right).length / Math.max(1, passed.size);
}

/** Means over all answers; a position that no answer reached is left out. */
export function entropyProfile(answers: readonly { steps: StepRecord[] }[]): EntropyProfile {
  const before = new Means();
  const after = new Means();
  const byResults = new Means();
  for (const { steps } of answers) {
    let results = 0;
    for (const [i, step] of steps.entries()) {
      if (step.kind === 'tool') results++;
      if (step.kind !== 'policy' || step.entropies === null) continue;
      if (step.stepEntropy !== null)
        byResults.add(Math.min(results, RESULTS_MAX), step.stepEntropy);
      const { entropies } = step;
      if (steps[i - 1]?.kind === 'tool') {
        entropies.subarray(0, WINDOW.after).forEach((entropy, at) => after.add(at, entropy));
      }
      if (steps[i + 1]?.kind === 'tool') {
        const tail = entropies.subarray(-WINDOW.before);
        tail.forEach((entropy, at) => before.add(at + WINDOW.before - tail.length, entropy));
      }
    }
  }
  return {
    before: before.values(),
    after: after.values(),
    stepEntropy: byResults.values(),
    stepCount: byResults.counts(),
  };
}

/** A mean at each of a few positions. */
class Means {
  private readonly sums: number[] = [];
  private readonly sizes: number[] = [];

  add(at: number, value: number): void {
    this.sums[at] = (this.sums[at] ?? 0) + value;
    this.sizes[at] = (this.sizes[at] ?? 0) + 1;
  }

  values(): number[] {
    return this.sums.flatMap((sum, at) => rounded(sum / must(this.sizes[at], 'as many sizes')));
  }

  counts(): number[] {
    return this.sizes.flat();
  }
}
