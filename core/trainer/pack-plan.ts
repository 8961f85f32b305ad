/**
 * Divides the rows of a mini-batch into runs that fit in memory, and chooses for each whether its
 * rows are forwarded flat or packed (arpo.md section 7), by estimated cost.
 *
 * Sorted by their tokens, rows that share a prefix stand together, whatever group they come from. A
 * run is an interval of that order, so a tree that is too large for one run is cut between leaves,
 * and what lies above the cut is forwarded once more. Where to cut is the shortest path over all
 * intervals. The alternative is flat runs of rows of like length; the cheaper of the two plans is
 * taken. Any division gives the same loss and gradients up to rounding, because the caller divides
 * by the sum of weights of the whole mini-batch.
 */
import { assert, must } from '../assert.ts';
import { packedSizes, segmentsOf, sortRows, type SortedRows } from '../model/packed-layout.ts';
import type { ModelConfig, RowForm } from '../model/types.ts';
import { predictionsPerRun } from './memory-budget.ts';
import { runCost, type RunCost } from './pack-cost.ts';

/**
 * Rows of one packed run, and cuts that are weighed for each of its ends: so planning stays short.
 */
const ROWS_MAX = 256;
const CUTS_MAX = 12;
/**
 * A row longer than the budget takes its memory in any plan; rows that share its prompt may make it
 * a quarter more. Without that each would be a run of its own, and so long a prompt never shared.
 */
const LONG_ROW_ROOM = 1.25;

export type Packing = 'auto' | RowForm;

export interface PlannedRun {
  /** Indices of the rows. */
  rows: number[];
  form: RowForm;
}

/** A row as the planner sees it. */
export interface PlannedRow {
  tokens: Uint32Array;
  /** How many first tokens are forwarded. */
  used: number;
  /** Predictions that are wanted of it. */
  predictions: number;
}

export interface PlanOptions {
  config: ModelConfig;
  packing: Packing;
  /**
   * Tokens of one run, padding included. A row that is longer is in a run of its own, or in a
   * packed one that is at most a quarter longer.
   */
  tokenBudget: number;
}

/** What a run of several rows may hold. */
interface Budget {
  tokens: number;
  predictions: number;
}

/**
 * Every row of which something is wanted is in exactly one run; the largest runs come first. A run
 * of several rows also keeps to `predictionsPerRun`.
 */
export function planRuns(rows: readonly PlannedRow[], options: PlanOptions): PlannedRun[] {
  const { config, packing, tokenBudget } = options;
  assert(tokenBudget >= 1, `a token budget of ${tokenBudget} holds nothing`);
  const budget = { tokens: tokenBudget, predictions: predictionsPerRun(config) };
  const kept = rows.flatMap(({ used }, i) => (used > 0 ? [i] : []));
  const cost = runCost(config);
  const flat = packing === 'packed' ? null : flatPlan(rows, kept, budget, cost);
  if (packing === 'flat') return must(flat, 'a flat plan').runs;
  const packed = packedPlan(rows, kept, budget, { cost, packing });
  return flat !== null && flat.cost <= packed.cost ? flat.runs : packed.runs;
}

interface Plan {
  runs: PlannedRun[];
  cost: number;
}

/** Longest rows first: short ones are not padded to the longest of the mini-batch. */
function flatPlan(
  rows: readonly PlannedRow[],
  kept: readonly number[],
  budget: Budget,
  cost: RunCost,
): Plan {
  const used = (index: number) => (rows[index] as PlannedRow).used;
  const order = [...kept].sort((a, b) => used(b) - used(a) || a - b);
  const runs: PlannedRun[] = [];
  for (const index of order) {
    const last = runs.at(-1);
    if (last !== undefined && fitsFlat(rows, [...last.rows, index], budget)) last.rows.push(index);
    else runs.push({ rows: [index], form: 'flat' });
  }
  return { runs, cost: runs.reduce((sum, run) => sum + flatCost(rows, run.rows, cost), 0) };
}

/** What a flat run forwards and predicts. */
function flatShape(rows: readonly PlannedRow[], run: readonly number[]) {
  let [longest, predictions] = [0, 0];
  for (const index of run) {
    const row = rows[index] as PlannedRow;
    longest = Math.max(longest, row.used);
    predictions += row.predictions;
  }
  return { rows: run.length, longest, predictions };
}

function fitsFlat(rows: readonly PlannedRow[], run: readonly number[], budget: Budget): boolean {
  const { longest, predictions } = flatShape(rows, run);
  return run.length * longest <= budget.tokens && predictions <= budget.predictions;
}

function flatCost(rows: readonly PlannedRow[], run: readonly number[], cost: RunCost): number {
  return cost.flat(flatShape(rows, run));
}

/** The cheapest division of the sorted rows into intervals, each in its cheaper form. */
function packedPlan(
  rows: readonly PlannedRow[],
  kept: readonly number[],
  budget: Budget,
  { cost, packing }: { cost: RunCost; packing: Packing },
): Plan {
  const sorted = sortRows(
    kept.map((index) => (rows[index] as PlannedRow).tokens),
    kept.map((index) => (rows[index] as PlannedRow).used),
  );
  const order = sorted.order.map((at) => kept[at] as number);
  const predictions = order.map((index) => (rows[index] as PlannedRow).predictions);
  // best[n]: the cheapest plan of the first n rows, and the first row of its last run.
  const best: { cost: number; from: number; form: RowForm }[] = [
    { cost: 0, from: 0, form: 'flat' },
  ];
  for (let end = 1; end <= order.length; end++) {
    let found = { cost: Infinity, from: end - 1, form: 'packed' as RowForm };
    for (const from of cutsBefore(sorted, predictions, end, budget)) {
      const run = order.slice(from, end);
      const before = (best[from] as { cost: number }).cost;
      const packed = before + packedCost(rows, run, { sorted, from, end, cost });
      if (packed < found.cost) found = { cost: packed, from, form: 'packed' };
      const fits = run.length === 1 || fitsFlat(rows, run, budget);
      if (packing === 'packed' || !fits) continue;
      const flat = before + flatCost(rows, run, cost);
      if (flat < found.cost) found = { cost: flat, from, form: 'flat' };
    }
    best.push(found);
  }
  const runs: PlannedRun[] = [];
  for (let end = order.length; end > 0;) {
    const { from, form } = best[end] as { from: number; form: RowForm };
    runs.push({ rows: order.slice(from, end), form });
    end = from;
  }
  const size = ({ rows: run }: PlannedRun) => run.length * flatShape(rows, run).longest;
  runs.sort((a, b) => size(b) - size(a));
  return { runs, cost: (best.at(-1) as { cost: number }).cost };
}

/**
 * Where the last run of the first `end` rows may begin: of the places from which its unique tokens
 * fit, those between rows that have least in common, and of these the furthest.
 */
function cutsBefore(
  { lengths, shared }: SortedRows,
  predictions: readonly number[],
  end: number,
  budget: Budget,
): number[] {
  const cuts: number[] = [];
  let [below, wanted, longest] = [0, 0, 0];
  for (let from = end - 1; from >= Math.max(0, end - ROWS_MAX); from--) {
    const length = lengths[from] as number;
    wanted += predictions[from] as number;
    longest = Math.max(longest, length);
    const room = longest > budget.tokens ? LONG_ROW_ROOM * longest : budget.tokens;
    const fits = below + length <= room && wanted <= budget.predictions;
    if (from < end - 1 && !fits) break;
    below += length - (shared[from] as number);
    cuts.push(from);
  }
  cuts.sort((a, b) => (shared[a] as number) - (shared[b] as number) || a - b);
  return cuts.slice(0, CUTS_MAX);
}

function packedCost(
  rows: readonly PlannedRow[],
  run: readonly number[],
  { sorted, from, end, cost }: { sorted: SortedRows; from: number; end: number; cost: RunCost },
): number {
  const shared = sorted.shared.slice(from, end);
  shared[0] = 0;
  const sizes = packedSizes(segmentsOf(sorted.lengths.slice(from, end), shared));
  // A prediction that rows share is counted for each of them: too many, by what they share.
  const predictions = run.reduce((sum, index) => sum + (rows[index] as PlannedRow).predictions, 0);
  return cost.packed(sizes, Math.min(predictions, sizes.tokens + run.length));
}
