/**
 * The figures of the report: which data goes where. Bands are 95 % bootstrap intervals over seeds.
 * Curves end where the first seed of an arm ends, so that every point is a mean of the same seeds.
 */
import { mean } from '../../core/arpo/number.ts';
import { REFERENCE } from './arms.ts';
import { COLOURS, GREY, type ChartSpec } from './chart.ts';
import type { EntropyProfile, RunRecord } from './plan.ts';
import { callCurves, type ArmRuns, type PlanRuns } from './summary.ts';
import { estimate, interpolate } from './statistics.ts';

const percent = { format: '.0%' } as const;
const POSITIONS = 25;

type Values = readonly Readonly<Record<string, string | number | null>>[];

/** Mean and interval of an arm along its calls. */
function band(data: PlanRuns, armRuns: ArmRuns, family: string): Values {
  const { arm } = armRuns;
  const curves = [...callCurves(data, armRuns, 'sampled', family).values()];
  const end = Math.min(...curves.map((curve) => curve.at(-1)?.x ?? 0));
  return Array.from({ length: POSITIONS }, (_, i) => {
    const calls = (end * i) / (POSITIONS - 1);
    const values = curves.map((curve) => interpolate(curve, calls) ?? NaN);
    const { mean, low, high } = estimate(values) ?? { mean: NaN, low: NaN, high: NaN };
    return { arm: arm.name, family, calls, accuracy: mean, low, high };
  });
}

/** A legend of bands and lines shows the colours of the lines. */
const SOLID = { symbolOpacity: 1 } as const;

const bandLayers = (colour: unknown): readonly ChartSpec[] => [
  {
    mark: { type: 'area', opacity: 0.16 },
    encoding: { y: { field: 'low', type: 'quantitative' }, y2: { field: 'high' }, color: colour },
  },
  {
    mark: { type: 'line', strokeWidth: 2 },
    encoding: {
      y: {
        field: 'accuracy',
        type: 'quantitative',
        title: 'held-out accuracy, sampled',
        axis: percent,
        scale: { zero: false },
      },
      color: colour,
    },
  },
];

const callsAxis = { field: 'calls', type: 'quantitative', title: 'executed tool calls' } as const;

/** Arms of interest in one picture, all families together or one panel a family. */
export function accuracyFigure(
  data: PlanRuns,
  names: readonly string[],
  families: readonly string[],
): ChartSpec {
  const shown = data.arms.filter(({ arm }) => names.includes(arm.name));
  const domain = shown.map(({ arm }) => arm.name);
  const colour = {
    field: 'arm',
    type: 'nominal',
    title: null,
    legend: SOLID,
    scale: { domain, range: domain.map((_, i) => COLOURS[i % COLOURS.length]) },
  };
  const values = families.flatMap((family) => shown.flatMap((arm) => band(data, arm, family)));
  const panel = {
    width: families.length === 1 ? 620 : 280,
    height: families.length === 1 ? 360 : 240,
    encoding: { x: callsAxis },
    layer: bandLayers(colour),
  };
  return {
    title: {
      text: 'Accuracy against executed tool calls',
      subtitle: `mean and 95 % interval over ${seedCount(shown)} seeds, ${data.plan.steps} steps`,
    },
    data: { values },
    ...(families.length === 1
      ? panel
      : { facet: { field: 'family', title: null, sort: families }, columns: 3, spec: panel }),
  };
}

/** Every arm in a panel of its own, over the reference in grey. */
export function armsFigure(data: PlanRuns): ChartSpec {
  const reference = data.arms.find(({ arm }) => arm.name === REFERENCE);
  const others = data.arms.filter(({ arm }) => arm.name !== REFERENCE);
  const grey = reference === undefined ? [] : band(data, reference, 'all');
  const values = others.flatMap((arm) => [
    ...grey.map((point) => ({ ...point, panel: arm.arm.name, role: REFERENCE })),
    ...band(data, arm, 'all').map((point) => ({
      ...point,
      panel: arm.arm.name,
      role: 'the arm of the panel',
    })),
  ]);
  const colour = {
    field: 'role',
    type: 'nominal',
    title: null,
    legend: SOLID,
    scale: { domain: [REFERENCE, 'the arm of the panel'], range: [GREY, COLOURS[0]] },
  };
  return {
    title: {
      text: `Every arm against ${REFERENCE}`,
      subtitle: `mean and 95 % interval over ${seedCount(data.arms)} seeds`,
    },
    data: { values },
    facet: { field: 'panel', title: null, sort: others.map(({ arm }) => arm.name) },
    columns: 4,
    spec: { width: 200, height: 150, encoding: { x: callsAxis }, layer: bandLayers(colour) },
  };
}

function seedCount(arms: readonly ArmRuns[]): string {
  const counts = arms.map(({ runs }) => runs.length);
  const [low, high] = [Math.min(...counts), Math.max(...counts)];
  return low === high ? String(low) : `${low} to ${high}`;
}

/** Mean token entropy before and after a tool result, untrained and trained. */
export function entropyFigure(data: PlanRuns, names: readonly string[]): ChartSpec {
  const profiles: [string, EntropyProfile[]][] = [
    ['untrained', data.start.points.map(({ entropy }) => entropy)],
    ...data.arms
      .filter(({ arm }) => names.includes(arm.name))
      .map(({ arm, runs }): [string, EntropyProfile[]] => [
        `after ${arm.name}`,
        runs.flatMap((run) => run.points.at(-1)?.entropy ?? []),
      ]),
  ];
  const values = profiles.flatMap(([policy, of]) => {
    const { before, after } = meanProfile(of);
    const side = (list: readonly number[], part: string, first: number) =>
      list.map((entropy, i) => ({ policy, part, token: first + i, entropy }));
    return [...side(before, 'call', -before.length), ...side(after, 'next step', 1)];
  });
  const domain = profiles.map(([policy]) => policy);
  const colour = {
    field: 'policy',
    type: 'nominal',
    title: null,
    scale: { domain, range: domain.map((_, i) => COLOURS[i % COLOURS.length]) },
  };
  return {
    title: {
      text: 'Token entropy around a tool result',
      subtitle: 'means over sampled held-out answers; the result itself lies at 0',
    },
    width: 620,
    height: 320,
    data: { values },
    layer: [
      {
        mark: { type: 'rule', color: GREY, strokeDash: [4, 4] },
        encoding: { x: { datum: 0, type: 'quantitative' } },
      },
      {
        mark: { type: 'line', point: true, strokeWidth: 2 },
        encoding: {
          x: { field: 'token', type: 'quantitative', title: 'tokens from the tool result' },
          y: { field: 'entropy', type: 'quantitative', title: 'entropy (nats)' },
          color: colour,
          detail: { field: 'part' },
        },
      },
    ],
  };
}

function meanProfile(
  profiles: readonly EntropyProfile[],
): Pick<EntropyProfile, 'before' | 'after'> {
  const over = (lists: readonly (readonly number[])[]): number[] => {
    const length = Math.min(...lists.map((list) => list.length));
    return Array.from({ length: lists.length === 0 ? 0 : length }, (_, i) =>
      mean(lists.map((list) => list[i] ?? 0)),
    );
  };
  return {
    before: over(profiles.map(({ before }) => before)),
    after: over(profiles.map(({ after }) => after)),
  };
}

/** After how many tool results siblings leave, as shares of an arm's forks. */
export function forksFigure(data: PlanRuns): ChartSpec {
  const values = data.arms.flatMap(({ arm, runs }) => {
    const depths = forkDepths(runs);
    const all = depths.reduce((sum, { forks }) => sum + forks, 0);
    return depths.map(({ results, forks }) => ({
      arm: arm.name,
      results: results < 4 ? `result ${results}` : 'later',
      share: forks / Math.max(1, all),
    }));
  });
  const order = ['result 1', 'result 2', 'result 3', 'later'];
  return {
    title: {
      text: 'Where branches fall',
      subtitle: 'share of forks by the tool result they follow',
    },
    width: 520,
    height: { step: 22 },
    data: { values },
    mark: 'bar',
    encoding: {
      y: { field: 'arm', type: 'nominal', title: null, sort: data.arms.map(({ arm }) => arm.name) },
      x: { field: 'share', type: 'quantitative', aggregate: 'sum', title: 'share', axis: percent },
      color: {
        field: 'results',
        type: 'nominal',
        title: 'after',
        scale: { domain: order, range: COLOURS.slice(0, order.length) },
      },
      order: { field: 'results' },
    },
  };
}

/** Forks of whole runs by depth, with their mean dH. */
export function forkDepths(
  runs: readonly RunRecord[],
): { results: number; forks: number; deltaEntropy: number }[] {
  const depths = new Map<number, { forks: number; delta: number }>();
  for (const fork of runs.flatMap(({ points }) => points.flatMap(({ forks }) => forks))) {
    const held = depths.get(fork.results) ?? { forks: 0, delta: 0 };
    held.forks += fork.forks;
    held.delta += (fork.deltaEntropy ?? 0) * fork.forks;
    depths.set(fork.results, held);
  }
  return [...depths]
    .sort(([a], [b]) => a - b)
    .map(([results, { forks, delta }]) => ({ results, forks, deltaEntropy: delta / forks }));
}
