/**
 * Arms that diverge, in the tables: what broke counts with its last accuracy, its costs do not, and
 * every table and verdict says how many runs it is of. Records by hand.
 */
import { describe, expect, it } from 'vitest';
import { ARM_SETS } from './arms.ts';
import { accuracyFigure } from './figures.ts';
import type { Plan, Point, RunRecord } from './plan.ts';
import {
  afterSteps,
  callsToReach,
  comparedAtCalls,
  equalCalls,
  planRuns,
  type ArmRuns,
  type PlanRuns,
} from './summary.ts';
import { callsTable, costTable, planText, stepsTable, verdictLines } from './tables.ts';

const PLAN: Plan = {
  ...{ set: 'rules', steps: 40, evaluateEvery: 20, tasks: 3, samples: 2, promptsPerStep: 6 },
  ...{ learningRate: 1e-4, startSha256: 'start' },
};

function point(step: number, calls: number, accuracy: number): Point {
  const score = { sampled: accuracy, greedy: accuracy, passAtK: accuracy };
  return {
    step,
    cost: {
      ...{ callsExecuted: calls, callsDistinct: calls, callsSaved: 0, rollouts: calls, forks: 0 },
      ...{ tokensSampled: calls, tokensTrained: calls, tokensForwarded: calls },
      ...{ rolloutMs: 1_000 * step, updateMs: 0, reloadMs: 0 },
    },
    scores: { all: { ...score, formatErrors: 0, callsPerTask: 1 } },
    entropy: { before: [], after: [], stepEntropy: [], stepCount: [] },
    forks: [],
    evaluationMs: 0,
  };
}

/** Of points at steps 20 and 40; fewer: it broke. */
function run(arm: string, seed: number, points: readonly [calls: number, accuracy: number][]) {
  return {
    ...{ plan: PLAN, arm, seed, algorithm: 'grpo', settings: {}, steps: 40 },
    failure: arm === 'start' || points.length === 2 ? null : 'the gradient norm is NaN',
    points: points.map(([calls, accuracy], i) =>
      point(arm === 'start' ? 0 : 20 * (i + 1), calls, accuracy),
    ),
    series: { accuracy: [], callsExecuted: [], zeroVariance: [], entropy: [], gradientNorm: [] },
    ...{ cpuSeconds: 1, wallSeconds: 1, date: '', code: { commit: 'c', version: '0' } },
    machine: { cpu: 'c', cores: 2, node: '20', onnxruntime: '1', load: 0 },
  } satisfies RunRecord as RunRecord;
}

const whole = (arm: string, seed: number, end: number): RunRecord =>
  run(arm, seed, [
    [100, end / 2],
    [200, end],
  ]);

/** `paper`: two runs that end well, one that broke after step 20, one before. */
const RUNS: RunRecord[] = [
  run('start', 0, [[0, 0]]),
  ...[1, 2, 3, 4].flatMap((seed) => [whole('grpo-16', seed, 0.4), whole('grpo-8', seed, 0.2)]),
  ...[whole('paper', 1, 0.8), whole('paper', 2, 0.8)],
  run('paper', 3, [[60, 0.2]]),
  run('paper', 4, []),
];

function dataOf(runs: readonly RunRecord[]): { data: PlanRuns; arm: (name: string) => ArmRuns } {
  const data = planRuns(runs, 'rules')!;
  return { data, arm: (name) => data.arms.find((one) => one.arm.name === name)! };
}
const rowOf = (text: string, name: string): string[] =>
  text
    .split('\n')
    .find((line) => line.startsWith(`| ${name} |`))!
    .split(' | ');

describe('a run that broke', () => {
  const { data, arm } = dataOf(RUNS);
  const paper = arm('paper');

  it('counts after the steps with its last accuracy, and not in what the steps cost', () => {
    const figures = afterSteps(data, paper);
    expect(figures.sampled.mean).toBeCloseTo((0.8 + 0.8 + 0.2 + 0) / 4, 12);
    expect(figures.sampled.seeds).toBe(4);
    expect(figures.callsExecuted).toMatchObject({ mean: 200, seeds: 2 });
    expect(figures.seconds).toMatchObject({ mean: 40, seeds: 2 });
  });

  it('counts at equal calls, against its own seed', () => {
    expect(equalCalls(data)).toBe(100);
    const { value, minus } = comparedAtCalls(data, paper, ['grpo-16'], 100);
    expect(value!.mean).toBeCloseTo((0.4 + 0.4 + 0.2 + 0) / 4, 12);
    expect(minus['grpo-16']).toMatchObject({ seeds: 4 });
    expect(minus['grpo-16']!.mean).toBeCloseTo(0.25 - 0.2, 12);
  });

  it("counts in the calls to reach the reference's end", () => {
    // At 175 calls the mean of the four is (0.7 + 0.7 + 0.2 + 0) / 4.
    const { ratio, reached, seeds } = callsToReach(data, paper)!;
    expect({ reached, seeds }).toEqual({ reached: true, seeds: 4 });
    expect(ratio).toBeCloseTo(175 / 200, 2);
  });

  it('counts in the curve of a figure', () => {
    const { values } = accuracyFigure(data, ['paper'], ['all'])['data'] as {
      values: { calls: number; accuracy: number }[];
    };
    expect(values.at(-1)).toMatchObject({ calls: 200 });
    expect(values.at(-1)!.accuracy).toBeCloseTo(0.45, 12);
  });

  it('is named, with how many runs a figure is of', () => {
    for (const table of [stepsTable(data), callsTable(data)]) {
      expect(rowOf(table, 'paper').at(-1)).toBe('4, 2 broke |');
      expect(rowOf(table, 'grpo-8').at(-1)).toBe('4 |');
    }
    expect(rowOf(stepsTable(data), 'paper')).toContain('200 (n = 2)');
    expect(rowOf(stepsTable(data), 'grpo-8')).toContain('200');
    expect(rowOf(costTable(data), 'paper').at(-1)).toBe('40 (n = 2) |');
    expect(planText(data)).toContain('A run that broke');
    expect(verdictLines(data)).toEqual([
      expect.stringMatching(/^- `paper`.*; 2 of 4 runs broke\.$/),
    ]);
  });

  it('is looked for in rivals too, and a reference gives its calls only when whole', () => {
    const broken = RUNS.map((one) =>
      one.seed === 4 && one.arm === 'grpo-16' ? run('grpo-16', 4, [[10, 0.1]]) : one,
    );
    const { data } = dataOf(broken);
    expect(equalCalls(data)).toBe(100);
    expect(verdictLines(data).at(-1)).toBe('- `grpo-16`: 1 of 4 runs broke.');
    const { data: none } = dataOf(broken.filter((one) => one.arm !== 'grpo-16' || one.seed === 4));
    expect(equalCalls(none)).toBeNull();
    expect(callsTable(none)).toBe('No whole run of grpo-16 yet.');
  });

  it('can be every run of an arm', () => {
    const { data, arm } = dataOf(RUNS.filter((one) => one.arm !== 'paper' || one.seed > 2));
    expect(afterSteps(data, arm('paper')).sampled.mean).toBeCloseTo(0.1, 12);
    expect(afterSteps(data, arm('paper')).callsExecuted.seeds).toBe(0);
    expect(callsToReach(data, arm('paper'))).toMatchObject({ ratio: 1, reached: false });
  });
});

describe('a whole run that made fewer calls', () => {
  const few = [
    [20, 0.4],
    [40, 0.5],
  ] as [number, number][];
  const { data, arm } = dataOf([
    ...RUNS.filter((one) => one.arm !== 'paper' || one.seed === 1),
    run('paper', 2, few),
  ]);

  it('says nothing of more calls, and the cell is of the others', () => {
    expect(comparedAtCalls(data, arm('paper'), [], 100).value).toMatchObject({ seeds: 1 });
    const row = rowOf(callsTable(data), 'paper');
    expect(row[1]).toBe('40.0 % [40.0, 40.0] (n = 1)');
    expect(row[2]).toBe('+20.0 [+20.0, +20.0] (n = 1)');
    expect(row.at(-1)).toBe('2 |');
  });

  it('leaves one pair, of which nothing is claimed', () => {
    expect(verdictLines(data)).toEqual([expect.stringContaining('ahead of none, behind none')]);
    const { data: whole } = dataOf(RUNS.filter((one) => one.arm !== 'paper' || one.seed < 3));
    expect(verdictLines(whole)[0]).toContain('ahead of `grpo-16`, `grpo-8`');
  });
});

it('the arms of these records are those of the set', () => {
  const names = ARM_SETS.rules.map((arm) => arm.name);
  for (const { arm } of RUNS.slice(1)) expect(names).toContain(arm);
});
