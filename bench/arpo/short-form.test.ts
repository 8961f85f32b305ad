/**
 * The experiment in its short form, as `npm run bench:arpo` runs it: two arms, one seed, two steps,
 * child processes; then the report over it. What is held: a run that is there is not made again,
 * what the record counts adds up, and the report is a function of the records.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { chooseArms } from './arms.ts';
import { missingRuns, runExperiment, type Experiment } from './experiment.ts';
import { weightsSha256 } from './facts.ts';
import { readRuns, type RunRecord } from './plan.ts';
import { makeReport, writeReport } from './report.ts';
import { START_POLICY } from './training-run.ts';

const folder = mkdtempSync(join(tmpdir(), 'ramify-short-form-'));
const experiment: Experiment = {
  plan: {
    set: 'rules',
    steps: 2,
    evaluateEvery: 1,
    tasks: 3,
    samples: 2,
    promptsPerStep: 1,
    learningRate: 1e-4,
    startSha256: weightsSha256(START_POLICY),
  },
  arms: chooseArms('rules', ['grpo-16', 'paper']),
  seeds: [1],
  jobs: 2,
  out: join(folder, 'rules.jsonl'),
  minutes: null,
};
const said: string[] = [];
let runs: RunRecord[] = [];

beforeAll(async () => {
  const failures = await runExperiment(experiment, AbortSignal.timeout(110_000), (line) =>
    said.push(line),
  );
  expect(failures).toEqual([]);
  runs = readRuns(experiment.out);
}, 120_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('makes every run once', () => {
  expect(runs.map(({ arm, seed }) => `${arm} ${seed}`).sort()).toEqual([
    'grpo-16 1',
    'paper 1',
    'start 0',
  ]);
  const start = runs.find(({ arm }) => arm === 'start');
  expect(start).toMatchObject({ steps: 0, points: [{ step: 0, cost: { callsExecuted: 0 } }] });
  expect(missingRuns(experiment)).toEqual([]);
  expect(missingRuns({ ...experiment, seeds: [1, 2] }).map(({ seed }) => seed)).toEqual([2, 2]);
  // Another plan is another experiment.
  const longer = { ...experiment.plan, steps: 3 };
  expect(missingRuns({ ...experiment, plan: longer })).toHaveLength(3);
});

it('counts calls from the forest: a plain group shares none, a tree shares some', () => {
  for (const run of runs.filter(({ arm }) => arm !== 'start')) {
    expect(run.points.map(({ step }) => step)).toEqual([1, 2]);
    const [first, last] = run.points.map(({ cost }) => cost);
    expect(last!.callsExecuted).toBeGreaterThan(first!.callsExecuted);
    expect(last!.callsDistinct).toBeGreaterThan(0);
    expect(last!.callsDistinct).toBeLessThanOrEqual(last!.callsExecuted);
    expect(last!.rollouts).toBe(2 * 16);
    expect(run.series.callsExecuted.at(-1)).toBe(last!.callsExecuted);
    const forks = run.points.flatMap((point) => point.forks).map((fork) => fork.forks);
    expect(forks.reduce((sum, count) => sum + count, 0)).toBe(last!.forks);
    expect(last!.forks > 0).toBe(run.arm === 'paper');
    expect(last!.callsSaved > 0).toBe(run.arm === 'paper');
    expect(Object.keys(last!).every((name) => Number.isFinite(last![name as 'forks']))).toBe(true);
    expect(run.settings['cassette']).toBe(false);
  }
});

it('examines greedy and sampled answers by family', () => {
  for (const point of runs.flatMap((run) => run.points)) {
    expect(Object.keys(point.scores).sort()).toEqual(['all', 'deep-search', 'knowledge', 'math']);
    for (const score of Object.values(point.scores)) {
      expect(score.passAtK).toBeGreaterThanOrEqual(score.sampled);
      for (const name of ['sampled', 'greedy', 'formatErrors'] as const) {
        expect(score[name]).toBeGreaterThanOrEqual(0);
        expect(score[name]).toBeLessThanOrEqual(1);
      }
    }
    expect(point.entropy.stepCount[0]).toBe(3 * 2);
  }
});

it('reports the same text and pictures from the same records', async () => {
  const report = await makeReport(folder);
  expect(await makeReport(folder)).toEqual(report);
  expect([...report.files.keys()].sort()).toEqual([
    'accuracy-calls-families.svg',
    'accuracy-calls.svg',
    'arms.svg',
    'entropy-around-calls.svg',
    'forks.svg',
    'report.md',
  ]);
  expect(report.files.get('report.md')).toContain('paper');
  expect(report.block).toContain('`paper`');
  writeReport(folder, report);
  const png = readFileSync(join(folder, 'arms.png'));
  expect(png.subarray(1, 4).toString()).toBe('PNG');
  // Width and height, big-endian, of the first chunk.
  expect(Math.min(png.readUInt32BE(16), png.readUInt32BE(20))).toBeGreaterThan(200);
}, 30_000);
