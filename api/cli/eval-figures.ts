/**
 * What an evaluation is reported as: figures by task family and over all, with 95 % intervals from
 * a seeded bootstrap over tasks (core/trainer/gate.ts), because 0/1 scores of a hundred tasks are
 * far from normal. Pure.
 */
import type { EvaluatedTask } from '../../core/arpo/evaluate.ts';
import { bootstrapMean } from '../../core/trainer/gate.ts';
import { percent, table } from './text.ts';

/** What is kept of an answer. */
export type Outcome = Pick<EvaluatedTask, 'task' | 'correct' | 'formatOk' | 'toolCalls'>;

/** Index i of every list is the same task. */
export interface Answers {
  greedy: readonly Outcome[] | null;
  /** One list a sample; empty: nothing was sampled. */
  sampled: readonly (readonly Outcome[])[];
}

export interface Interval {
  mean: number;
  low: number;
  high: number;
}

export interface WayFigures {
  accuracy: Interval;
  formatErrors: Interval;
  toolCallsPerTask: Interval;
}

export interface FamilyFigures {
  /** `all` is every task. */
  family: string;
  tasks: number;
  greedy: WayFigures | null;
  /** Means over the samples of a task. */
  sampled: WayFigures | null;
  /** Share of tasks that any of the samples answered right. */
  passAtK: Interval | null;
}

/** `all` first, then families by name. Needs one answer at least. */
export function evalFigures({ greedy, sampled }: Answers, seed: number): FamilyFigures[] {
  const tasks = (greedy ?? sampled[0] ?? []).map(({ task }) => task);
  const families = [...new Set(tasks.map((task) => task.family))].sort();
  return ['all', ...families].map((family) => {
    const members = tasks.flatMap((task, i) =>
      family === 'all' || task.family === family ? [i] : [],
    );
    const ofTask = (lists: Answers['sampled'], i: number): Outcome[] =>
      lists.map((list) => list[i] as Outcome);
    const interval = (value: (i: number) => number): Interval =>
      bootstrapMean(members.map(value), { seed });
    const way = (lists: Answers['sampled']): WayFigures | null => {
      const over = (value: (outcome: Outcome) => number): Interval =>
        interval((i) => mean(ofTask(lists, i).map(value)));
      if (lists.length === 0) return null;
      return {
        accuracy: over(({ correct }) => Number(correct)),
        formatErrors: over(({ formatOk }) => Number(!formatOk)),
        toolCallsPerTask: over(({ toolCalls }) => toolCalls),
      };
    };
    const passed = (i: number): number => Number(ofTask(sampled, i).some(({ correct }) => correct));
    return {
      family,
      tasks: members.length,
      greedy: way(greedy === null ? [] : [greedy]),
      sampled: way(sampled),
      passAtK: sampled.length === 0 ? null : interval(passed),
    };
  });
}

/** One table a way of answering. */
export function figuresText(figures: readonly FamilyFigures[], samples: number): string {
  const lines: string[] = [];
  const shares = ({ mean, low, high }: Interval): string =>
    `${percent(mean)} [${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]`;
  const numbers = ({ mean, low, high }: Interval): string =>
    `${mean.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  for (const name of ['greedy', 'sampled'] as const) {
    const many = name === 'sampled' && samples > 1;
    const rows = figures.flatMap((row) => {
      const way = row[name];
      if (way === null) return [];
      const cells = [row.family, String(row.tasks), shares(way.accuracy)];
      if (many && row.passAtK !== null) cells.push(shares(row.passAtK));
      return [[...cells, shares(way.formatErrors), numbers(way.toolCallsPerTask)]];
    });
    if (rows.length === 0) continue;
    const pass = many ? [`pass@${samples}`] : [];
    const head = ['tasks', 'accuracy', ...pass, 'format errors', 'tool calls a task'];
    if (lines.length > 0) lines.push('');
    lines.push(...table([name, ...head], rows, true));
  }
  return lines.join('\n');
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
