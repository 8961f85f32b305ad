/**
 * What the records of one plan say, arm by arm, as the report and the README show it. An arm is
 * compared with others on the seeds that both have.
 *
 * Three ways of comparing, because one alone misleads: after the same number of steps, at the same
 * number of executed tool calls, and by the calls that it takes to reach the reference's final
 * accuracy.
 *
 * A run that broke is no run to leave out: an arm that diverges would be shown by its survivors. It
 * counts with the accuracy of its last point from there on. What it cost is another matter: costs
 * are of runs that went as far as the table says.
 */
import { mean } from '../../core/arpo/number.ts';
import { ARM_SETS, REFERENCE, START, type Arm } from './arms.ts';
import { planKey, type Plan, type Point, type PointScore, type RunRecord } from './plan.ts';
import {
  costRatio,
  estimate,
  interpolate,
  pairedDifference,
  type CostRatio,
  type Curve,
  type Estimate,
} from './statistics.ts';

export type Measure = keyof PointScore;

export interface ArmRuns {
  arm: Arm;
  runs: RunRecord[];
}

export interface PlanRuns {
  plan: Plan;
  /** Of the untrained policy; the left end of every curve. */
  start: RunRecord;
  /** In the order of the set; arms without runs are left out. */
  arms: ArmRuns[];
}

/** At the point after the plan's steps. */
export interface AfterSteps {
  sampled: Estimate;
  greedy: Estimate;
  passAtK: Estimate;
  formatErrors: Estimate;
  callsExecuted: Estimate;
  callsDistinct: Estimate;
  tokensSampled: Estimate;
  tokensForwarded: Estimate;
  /** Of training alone. */
  seconds: Estimate;
}

/** The runs of a set by the plan that has most of them; null without a start. */
export function planRuns(records: readonly RunRecord[], set: Plan['set']): PlanRuns | null {
  const plans = new Map<string, RunRecord[]>();
  for (const run of records.filter(({ plan }) => plan.set === set)) {
    const key = planKey(run.plan);
    plans.set(key, [...(plans.get(key) ?? []), run]);
  }
  const [runs] = [...plans.values()].sort((a, b) => b.length - a.length);
  const start = runs?.find(({ arm }) => arm === START.name);
  if (runs === undefined || start === undefined) return null;
  const arms = ARM_SETS[set].flatMap((arm) => {
    const own = runs.filter((run) => run.arm === arm.name).sort((a, b) => a.seed - b.seed);
    return own.length === 0 ? [] : [{ arm, runs: own }];
  });
  return { plan: start.plan, start, arms };
}

const broke = ({ failure }: RunRecord): boolean => failure !== null;
export const brokenRuns = ({ runs }: ArmRuns): number => runs.filter(broke).length;

const callsOf = (run: RunRecord): number => run.points.at(-1)?.cost.callsExecuted ?? 0;

/** Accuracy against executed calls, from the untrained policy on. */
function callCurve(
  { start }: Pick<PlanRuns, 'start'>,
  run: RunRecord,
  measure: Measure = 'sampled',
  family = 'all',
): Curve {
  const value = (point: Point | undefined): number => point?.scores[family]?.[measure] ?? NaN;
  return [
    { x: 0, y: value(start.points[0]) },
    ...run.points.map((point) => ({ x: point.cost.callsExecuted, y: value(point) })),
  ];
}

/** A curve for each run of an arm; of those that broke the last value is held. */
export function callCurves(
  data: PlanRuns,
  armRuns: ArmRuns,
  measure: Measure = 'sampled',
  family = 'all',
): Map<number, Curve> {
  const { runs } = armRuns;
  const end = commonEnd(data, runs);
  return new Map(
    runs.map((run) => {
      const curve = callCurve(data, run, measure, family);
      const last = curve.at(-1);
      const held = broke(run) && last !== undefined && last.x < end;
      return [run.seed, held ? [...curve, { x: end, y: last.y }] : curve] as const;
    }),
  );
}

/** The most calls of an arm's whole runs; where all broke, those of the reference. */
function commonEnd(data: PlanRuns, runs: readonly RunRecord[]): number {
  const whole = runs.filter((run) => !broke(run));
  return Math.max(...(whole.length > 0 ? whole : [...runs, ...referenceRuns(data)]).map(callsOf));
}

const referenceRuns = ({ arms }: PlanRuns): RunRecord[] =>
  arms.find(({ arm }) => arm.name === REFERENCE)?.runs ?? [];

/** Figures of an arm after the plan's steps, over the runs that came so far. */
export function afterSteps(data: PlanRuns, { runs }: ArmRuns, family = 'all'): AfterSteps {
  const { steps } = data.plan;
  const estimated = (values: readonly number[]): Estimate =>
    estimate(values) ?? { mean: NaN, low: NaN, high: NaN, seeds: 0 };
  const whole = runs.flatMap(({ points }) => points.filter(({ step }) => step === steps));
  const over = (value: (point: Point) => number): Estimate => estimated(whole.map(value));
  const reached = runs.flatMap((run) => pointAfter(data, run, steps) ?? []);
  const score = (measure: Measure): Estimate =>
    estimated(reached.map(({ scores }) => scores[family]?.[measure] ?? NaN));
  return {
    sampled: score('sampled'),
    greedy: score('greedy'),
    passAtK: score('passAtK'),
    formatErrors: score('formatErrors'),
    callsExecuted: over(({ cost }) => cost.callsExecuted),
    callsDistinct: over(({ cost }) => cost.callsDistinct),
    tokensSampled: over(({ cost }) => cost.tokensSampled),
    tokensForwarded: over(({ cost }) => cost.tokensForwarded),
    seconds: over(({ cost }) => (cost.rolloutMs + cost.updateMs + cost.reloadMs) / 1000),
  };
}

/** The point after so many steps; of a run that broke before, the last one that it has. */
function pointAfter({ start }: PlanRuns, run: RunRecord, steps: number): Point | undefined {
  const point = run.points.find(({ step }) => step === steps);
  if (point !== undefined || !broke(run)) return point;
  return [...start.points, ...run.points].findLast(({ step }) => step < steps);
}

/**
 * Half of what the reference executes in the whole: where arms are compared at equal calls. Null
 * when no run of it came to its end.
 */
export function equalCalls(data: PlanRuns): number | null {
  const whole = referenceRuns(data).filter((run) => !broke(run));
  return whole.length === 0 ? null : Math.round(mean(whole.map(callsOf)) / 2);
}

/** By seed: the value at so many calls, of the runs that made as many or broke before. */
function atCalls(
  data: PlanRuns,
  arm: ArmRuns,
  calls: number,
  measure: Measure = 'sampled',
  family = 'all',
): Map<number, number> {
  return new Map(
    [...callCurves(data, arm, measure, family)].flatMap(([seed, curve]) => {
      const value = interpolate(curve, calls);
      return value === null ? [] : [[seed, value] as const];
    }),
  );
}

export interface EqualCalls {
  value: Estimate | null;
  /** Arm minus control, by the control's name. */
  minus: Record<string, Estimate | null>;
}

export function comparedAtCalls(
  data: PlanRuns,
  arm: ArmRuns,
  controls: readonly string[],
  calls: number,
  { measure = 'sampled', family = 'all' }: { measure?: Measure; family?: string } = {},
): EqualCalls {
  const own = atCalls(data, arm, calls, measure, family);
  const minus = controls.map((name) => {
    const control = data.arms.find((other) => other.arm.name === name);
    const other = control && atCalls(data, control, calls, measure, family);
    return [name, other === undefined ? null : pairedDifference(own, other)] as const;
  });
  return { value: estimate([...own.values()]), minus: Object.fromEntries(minus) };
}

/** Calls to reach the reference's final accuracy, over all of its calls. */
export function callsToReach(
  data: PlanRuns,
  arm: ArmRuns,
  { measure = 'sampled', family = 'all' }: { measure?: Measure; family?: string } = {},
): CostRatio | null {
  const reference = data.arms.find((other) => other.arm.name === REFERENCE);
  if (reference === undefined) return null;
  const others = callCurves(data, reference, measure, family);
  return costRatio(
    [...callCurves(data, arm, measure, family)].flatMap(([seed, curve]) => {
      const other = others.get(seed);
      return other === undefined ? [] : [{ arm: curve, reference: other }];
    }),
  );
}
