/**
 * Where a finished trajectory can be forked, and how much each place is worth (arpo.md section 3.2,
 * `deferred`). A point is a tool result with what followed it; several members pass one that was
 * forked before.
 *
 * - by entropy: weight exp(H / tau), H the mean step entropy of the steps that followed.
 * - by value: what a fork is expected to teach for what it costs. Outcomes u are the rewards moved
 *   to [0, 1] within the group. A point's estimate p is the mean outcome of the n members below it,
 *   drawn towards the estimate of the point before it on the path: p = (sum u + p') / (n + 1),
 *   where p' before the first point is the group's mean. A new leaf there has an outcome of
 *   variance up to p (1 - p), and makes as many calls as those below still made: weight p (1 - p) /
 *   (1 + mean calls after the point).
 * - evenly: weight 1.
 *
 * Pure but for the members that it reads; the caller draws.
 */
import { must } from '../assert.ts';
import { stepAt, type GroupMembers, type Member } from './group-members.ts';
import { mean } from './number.ts';
import type { DeferredSettings, UniformSettings } from './rollout-settings.ts';

export interface ForkPoint {
  member: Member;
  /** Its tool step. */
  at: number;
  /** How many further forks may begin here. */
  capacity: number;
  /** H of the steps that followed, mean. */
  entropy: number;
  /** p (1 - p). */
  variance: number;
  /** Calls that members below made after the point, mean. */
  callsAfter: number;
}

export interface WeighedPoint {
  /** H, or the value, or null when points are drawn evenly. */
  signal: number | null;
  /** Only differences count; -Infinity: never drawn while another can be. */
  logWeight: number;
}

/** Points with room for a fork, ordered by member and depth. All members must have ended. */
export function forkPoints(members: GroupMembers, forksPerPoint: number): ForkPoint[] {
  const { all } = members;
  const outcomes = outcomesOf(members);
  const estimates = new Map<string, number>();
  const points: ForkPoint[] = [];
  // A fork stands behind its parent in this order, so the estimates above it are there.
  for (const member of all) {
    let before = mean([...outcomes.values()]);
    const { steps } = member.episode;
    steps.forEach((step, at) => {
      if (step.kind !== 'tool' || steps[at + 1]?.kind !== 'policy') return;
      const known = estimates.get(step.id);
      if (known !== undefined) return void (before = known);
      const below = all.filter(({ episode }) => episode.steps[at] === step);
      const sum = below.reduce((total, other) => total + must(outcomes.get(other), 'outcome'), 0);
      const p = (sum + before) / (below.length + 1);
      estimates.set(step.id, p);
      before = p;
      const forks = below.filter(({ branch }) => branch?.stepId === step.id).length;
      if (!member.points.includes(at) || forks >= forksPerPoint) return;
      points.push({
        member,
        at,
        capacity: forksPerPoint - forks,
        entropy: mean(followers(below, at).map(({ stepEntropy }) => stepEntropy ?? 0)),
        variance: p * (1 - p),
        callsAfter: mean(below.map(({ episode }) => callsIn(episode.steps, at + 1))),
      });
    });
  }
  return points;
}

/** The steps that followed a result, each once. */
function followers(below: readonly Member[], at: number) {
  const own = below.filter(({ episode }) => episode.steps[at + 1] !== undefined);
  return [...new Set(own.map((member) => stepAt(member, at + 1)))];
}

/** Rewards moved to [0, 1] within the group; all 0 when they are equal. */
function outcomesOf(members: GroupMembers): Map<Member, number> {
  const rewards = members.all.map((member) => members.score(member).reward);
  const low = Math.min(...rewards);
  const range = Math.max(...rewards) - low;
  return new Map(
    members.all.map((member, i) => [
      member,
      range === 0 ? 0 : ((rewards[i] as number) - low) / range,
    ]),
  );
}

function callsIn(steps: readonly { kind: string }[], from: number): number {
  return steps.slice(from).filter(({ kind }) => kind === 'tool').length;
}

/** How likely each point is to be drawn. */
export function weighPoints(
  points: readonly ForkPoint[],
  settings: DeferredSettings | UniformSettings,
): WeighedPoint[] {
  return points.map(({ entropy, variance, callsAfter }) => {
    if (settings.branch === 'uniform') return { signal: null, logWeight: 0 };
    if (settings.forkBy === 'entropy') {
      return { signal: entropy, logWeight: entropy / settings.tau };
    }
    const value = variance / (1 + callsAfter);
    return { signal: value, logWeight: Math.log(value) };
  });
}

/** Each point's share in a draw among them; even when none can be told from another. */
export function sharesOf(points: readonly WeighedPoint[]): number[] {
  const top = Math.max(...points.map(({ logWeight }) => logWeight));
  if (top === -Infinity) return points.map(() => 1 / points.length);
  // Against the largest, so that no weight overflows and one at least is 1.
  const weights = points.map(({ logWeight }) => Math.exp(logWeight - top));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/**
 * Draws points by weight until `count` forks are given out or no point has room; returns the forks
 * of each point. A point opens `beam` at once. None comes a second time before every other had its
 * turn, so that forks spread. `draw(k)` is the kth draw from (0, 1).
 */
export function drawForks(
  points: readonly Pick<ForkPoint, 'capacity'>[],
  weights: readonly WeighedPoint[],
  { count, beam, draw }: { count: number; beam: number; draw: (k: number) => number },
): number[] {
  const forks = points.map(() => 0);
  const times = points.map(() => 0);
  let left = count;
  for (let k = 0; left > 0; k++) {
    const open = [...points.keys()].filter((i) => must(points[i], 'point').capacity > at(forks, i));
    if (open.length === 0) break;
    const least = Math.min(...open.map((i) => at(times, i)));
    const fresh = open.filter((i) => at(times, i) === least);
    const i = pick(fresh, sharesOf(fresh.map((j) => must(weights[j], 'weight'))), draw(k));
    const siblings = Math.min(beam, left, must(points[i], 'point').capacity - at(forks, i));
    forks[i] = at(forks, i) + siblings;
    times[i] = at(times, i) + 1;
    left -= siblings;
  }
  return forks;
}

const at = (list: readonly number[], i: number): number => list[i] as number;

/** The item at which the running sum of shares passes `draw`. */
function pick(items: readonly number[], shares: readonly number[], draw: number): number {
  let left = draw;
  for (let i = 0; i < items.length; i++) {
    left -= shares[i] as number;
    if (left < 0) return items[i] as number;
  }
  return items.at(-1) as number;
}
