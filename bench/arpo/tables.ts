/** The tables and sentences of the report, in Markdown; nothing here is chosen by hand. */
import { CONTROLS, REFERENCE } from './arms.ts';
import type { RunRecord } from './plan.ts';
import { forkDepths } from './figures.ts';
import type { CostRatio, Estimate } from './statistics.ts';
import {
  afterSteps,
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

/** `60.1 % [58.0, 62.3]` */
function share(of: Estimate | null): string {
  if (of === null || !Number.isFinite(of.mean)) return NONE;
  return `${percent(of.mean)} [${(100 * of.low).toFixed(1)}, ${(100 * of.high).toFixed(1)}]`;
}

/** `+2.3 [0.4, 4.1]`, in points of a hundred. */
function difference(of: Estimate | null | undefined): string {
  if (of === null || of === undefined || !Number.isFinite(of.mean)) return NONE;
  return `${points(of.mean)} [${points(of.low)}, ${points(of.high)}]`;
}

function reach(of: CostRatio | null): string {
  if (of === null) return NONE;
  const interval = `[${(100 * of.low).toFixed(0)}, ${(100 * of.high).toFixed(0)}]`;
  if (of.reached) return `${(100 * of.ratio).toFixed(0)} % ${interval}`;
  return `not within ${(100 * of.ratio).toFixed(0)} %`;
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
  const commits = [...new Set(runs.map(({ code }) => code.commit))].join(', ');
  return (
    `${plan.steps} training steps of ${plan.promptsPerStep} prompts over three families of tasks, ` +
    `learning rate ${plan.learningRate}, seeds ${seeds.join(', ')}; ${plan.tasks} held-out tasks, ` +
    `each answered ${plan.samples} times at temperature 1 and once greedily, every ` +
    `${plan.evaluateEvery} steps, with the same draws for all. No cassette: every call of every ` +
    `trajectory counts, but those of a shared prefix only once. Brackets are 95 % bootstrap ` +
    `intervals over seeds. Made on ${machines} by ${commits}.`
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
  ];
  const rows = data.arms.map((arm) => {
    const figures = afterSteps(data, arm, family);
    return [
      arm.arm.name,
      share(figures.sampled),
      share(figures.greedy),
      share(figures.passAtK),
      percent(figures.formatErrors.mean),
      whole(figures.callsExecuted.mean),
      whole(figures.callsDistinct.mean),
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
      String(arm.runs.length),
      whole(figures.tokensSampled.mean),
      whole(figures.tokensForwarded.mean),
      whole(figures.seconds.mean),
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
  if (calls === null) return `No run of ${REFERENCE} yet.`;
  const controls = [REFERENCE, ...CONTROLS];
  const rows = data.arms.map((arm) => {
    const { value, minus } = comparedAtCalls(data, arm, controls, calls, { measure, family });
    return [
      arm.arm.name,
      share(value),
      ...controls.map((name) => (name === arm.arm.name ? NONE : difference(minus[name]))),
      reach(callsToReach(data, arm, { measure, family })),
    ];
  });
  const head = [
    `at ${whole(calls)} calls`,
    measure === 'sampled' ? 'sampled' : measure,
    ...controls.map((name) => `minus ${name}`),
    `calls to ${REFERENCE}'s end`,
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
 * whole interval of the paired difference is above 0.
 */
export function verdictLines(data: PlanRuns): string[] {
  const calls = equalCalls(data);
  if (calls === null) return [];
  const rivals = [REFERENCE, ...CONTROLS];
  const isControl = ({ arm }: ArmRuns): boolean => rivals.includes(arm.name);
  return data.arms
    .filter((arm) => !isControl(arm))
    .map((arm) => {
      const { minus } = comparedAtCalls(data, arm, rivals, calls);
      const ahead = rivals.filter((name) => (minus[name]?.low ?? 0) > 0);
      const behind = rivals.filter((name) => (minus[name]?.high ?? 0) < 0);
      const ratio = callsToReach(data, arm);
      return (
        `- \`${arm.arm.name}\` at ${whole(calls)} calls: ahead of ${named(ahead)}, behind ` +
        `${named(behind)}; calls to the final accuracy of \`${REFERENCE}\`: ${reach(ratio)}.`
      );
    });
}

const named = (names: readonly string[]): string =>
  names.length === 0 ? 'none' : names.map((name) => `\`${name}\``).join(', ');
