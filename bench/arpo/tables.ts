/** The tables and sentences of the report, in Markdown; nothing here is chosen by hand. */
import { CONTROLS, REFERENCE } from './arms.ts';
import type { RunRecord } from './plan.ts';
import { forkDepths } from './figures.ts';
import type { CostRatio, Estimate } from './statistics.ts';
import {
  afterSteps,
  brokenRuns,
  callsToReach,
  comparedAtCalls,
  equalCalls,
  type ArmRuns,
  type Measure,
  type PlanRuns,
} from './summary.ts';

const NONE = '–';

const percent = (share: number): string =>
  Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : NONE;
const points = (share: number): string => `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)}`;
const whole = (value: number): string =>
  Number.isFinite(value) ? Math.round(value).toLocaleString('en') : NONE;

/** ` (n = 5)` where a cell is not of all runs of its arm. */
const of = (seeds: number, { runs }: ArmRuns): string =>
  seeds === runs.length ? '' : ` (n = ${seeds})`;

/** `60.1 % [58.0, 62.3]` */
function share(estimate: Estimate | null, arm: ArmRuns): string {
  if (estimate === null || !Number.isFinite(estimate.mean)) return NONE;
  const { mean, low, high, seeds } = estimate;
  return `${percent(mean)} [${(100 * low).toFixed(1)}, ${(100 * high).toFixed(1)}]${of(seeds, arm)}`;
}

/** `+2.3 [0.4, 4.1]`, in points of a hundred. */
function difference(estimate: Estimate | null | undefined, arm: ArmRuns): string {
  if (estimate === null || estimate === undefined || !Number.isFinite(estimate.mean)) return NONE;
  const { mean, low, high, seeds } = estimate;
  return `${points(mean)} [${points(low)}, ${points(high)}]${of(seeds, arm)}`;
}

/** A cost: of runs that came as far. */
const cost = ({ mean, seeds }: Estimate, arm: ArmRuns): string =>
  Number.isFinite(mean) ? `${whole(mean)}${of(seeds, arm)}` : NONE;

function reach(ratio: CostRatio | null, arm: ArmRuns): string {
  if (ratio === null) return NONE;
  const interval = `[${(100 * ratio.low).toFixed(0)}, ${(100 * ratio.high).toFixed(0)}]`;
  const share = `${(100 * ratio.ratio).toFixed(0)} %`;
  return (ratio.reached ? `${share} ${interval}` : `not within ${share}`) + of(ratio.seeds, arm);
}

/** `8`, or `8, 2 broke`. */
function runCount(arm: ArmRuns): string {
  const broken = brokenRuns(arm);
  return String(arm.runs.length) + (broken === 0 ? '' : `, ${broken} broke`);
}

/** A Markdown table; cells that hold a bar are escaped. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** What was done, in one paragraph. */
export function planText({ plan, arms }: PlanRuns): string {
  const seeds = [...new Set(arms.flatMap(({ runs }) => runs.map(({ seed }) => seed)))].sort(
    (a, b) => a - b,
  );
  const runs = arms.flatMap((arm) => arm.runs);
  const machines = [...new Set(runs.map(({ machine }) => machine.cpu))].join(', ');
  const broken = arms.some((arm) => brokenRuns(arm) > 0)
    ? 'A run that broke counts with the accuracy of its last point from there on, and not in costs. '
    : '';
  const commits = [...new Set(runs.map(({ code }) => code.commit))].join(', ');
  return (
    `${plan.steps} training steps of ${plan.promptsPerStep} prompts (where an arm's description does ` +
    `not say otherwise) over three families of tasks, ` +
    `learning rate ${plan.learningRate}, seeds ${seeds.join(', ')}; ${plan.tasks} held-out tasks, ` +
    `each answered ${plan.samples} times at temperature 1 and once greedily, every ` +
    `${plan.evaluateEvery} steps, with the same draws for all. No cassette: every call of every ` +
    `trajectory counts, but those of a shared prefix only once. Brackets are 95 % bootstrap ` +
    `intervals over seeds; n is given where a figure is not of all runs of its arm. ${broken}Made on ${machines} by ${commits}.`
  );
}

/** After the plan's steps: accuracy and cost of every arm. */
export function stepsTable(data: PlanRuns, family = 'all'): string {
  const start = data.start.points[0]?.scores[family];
  const untrained = [
    'start',
    percent(start?.sampled ?? NaN),
    percent(start?.greedy ?? NaN),
    percent(start?.passAtK ?? NaN),
    percent(start?.formatErrors ?? NaN),
    '0',
    NONE,
    NONE,
  ];
  const rows = data.arms.map((arm) => {
    const figures = afterSteps(data, arm, family);
    return [
      arm.arm.name,
      share(figures.sampled, arm),
      share(figures.greedy, arm),
      share(figures.passAtK, arm),
      percent(figures.formatErrors.mean),
      cost(figures.callsExecuted, arm),
      cost(figures.callsDistinct, arm),
      runCount(arm),
    ];
  });
  const head = [
    `after ${data.plan.steps} steps`,
    'sampled',
    'greedy',
    `pass@${data.plan.samples}`,
    'format errors',
    'calls',
    'distinct calls',
    'runs',
  ];
  return table(head, [untrained, ...rows]);
}

/** What the steps cost besides calls. */
export function costTable(data: PlanRuns): string {
  const rows = data.arms.map((arm) => {
    const figures = afterSteps(data, arm);
    return [
      arm.arm.name,
      arm.arm.about,
      runCount(arm),
      cost(figures.tokensSampled, arm),
      cost(figures.tokensForwarded, arm),
      cost(figures.seconds, arm),
    ];
  });
  const head = ['arm', 'what', 'runs', 'tokens sampled', 'tokens forwarded', 'seconds'];
  return table(head, rows);
}

/** At equal calls, and the calls to reach the reference's final accuracy. */
export function callsTable(
  data: PlanRuns,
  { measure = 'sampled', family = 'all' }: { measure?: Measure; family?: string } = {},
): string {
  const calls = equalCalls(data);
  if (calls === null) return `No whole run of ${REFERENCE} yet.`;
  const controls = [REFERENCE, ...CONTROLS];
  const rows = data.arms.map((arm) => {
    const { value, minus } = comparedAtCalls(data, arm, controls, calls, { measure, family });
    return [
      arm.arm.name,
      share(value, arm),
      ...controls.map((name) => (name === arm.arm.name ? NONE : difference(minus[name], arm))),
      reach(callsToReach(data, arm, { measure, family }), arm),
      runCount(arm),
    ];
  });
  const head = [
    `at ${whole(calls)} calls`,
    measure === 'sampled' ? 'sampled' : measure,
    ...controls.map((name) => `minus ${name}`),
    `calls to ${REFERENCE}'s end`,
    'runs',
  ];
  return table(head, rows);
}

/** Forks by depth with their dH. */
export function forksTable({ arms }: PlanRuns): string {
  const rows = arms.flatMap(({ arm, runs }) => {
    const depths = forkDepths(runs);
    const all = depths.reduce((sum, { forks }) => sum + forks, 0);
    if (all === 0) return [];
    const cell = (results: number): string => {
      const found = depths.find((depth) => depth.results === results);
      if (found === undefined) return NONE;
      return `${percent(found.forks / all)}, dH ${found.deltaEntropy.toFixed(4)}`;
    };
    return [[arm.name, whole(all / runs.length), cell(1), cell(2), cell(3)]];
  });
  return table(['arm', 'forks a run', 'after result 1', 'after 2', 'after 3'], rows);
}

/** Runs that did not end well. */
export function failureLines(runs: readonly RunRecord[]): string[] {
  return runs.flatMap(({ arm, seed, failure, series, steps }) =>
    failure === null
      ? []
      : [`- ${arm}, seed ${seed}: step ${series.accuracy.length + 1} of ${steps}: ${failure}`],
  );
}

/**
 * The claim of the experiment, arm by arm: which hold and which do not. An arm is ahead when the
 * whole interval of the paired difference is above 0; a single pair has no interval. Arms that
 * broke are said to, rivals too.
 */
export function verdictLines(data: PlanRuns): string[] {
  const calls = equalCalls(data);
  if (calls === null) return [];
  const rivals = [REFERENCE, ...CONTROLS];
  const isRival = ({ arm }: ArmRuns): boolean => rivals.includes(arm.name);
  const verdicts = data.arms
    .filter((arm) => !isRival(arm))
    .map((arm) => {
      const { minus } = comparedAtCalls(data, arm, rivals, calls);
      const differs = (name: string): number => {
        const { low, high, seeds } = minus[name] ?? { low: 0, high: 0, seeds: 0 };
        return seeds > 1 ? Number(low > 0) - Number(high < 0) : 0;
      };
      const ahead = rivals.filter((name) => differs(name) > 0);
      const behind = rivals.filter((name) => differs(name) < 0);
      return (
        `- \`${arm.arm.name}\` at ${whole(calls)} calls: ahead of ${named(ahead)}, behind ` +
        `${named(behind)}; calls to the final accuracy of ` +
        `\`${REFERENCE}\`: ${reach(callsToReach(data, arm), arm)}` +
        (brokenRuns(arm) > 0 ? `; ${brokeText(arm)}.` : '.')
      );
    });
  const broken = data.arms.filter((arm) => isRival(arm) && brokenRuns(arm) > 0);
  return [...verdicts, ...broken.map((arm) => `- \`${arm.arm.name}\`: ${brokeText(arm)}.`)];
}

const brokeText = (arm: ArmRuns): string => `${brokenRuns(arm)} of ${arm.runs.length} runs broke`;

const named = (names: readonly string[]): string =>
  names.length === 0 ? 'none' : names.map((name) => `\`${name}\``).join(', ');
