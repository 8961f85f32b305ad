/**
 * Deferred growth (ours; arpo.md section 3.2): the roots are sampled to their end first, so that
 * the choice of forks sees all of their tool results; then forks are drawn from the points of the
 * whole group (fork-points.ts), in waves, again over the grown forest, until the group is full or
 * no point takes a further fork. `uniform` is its control: points drawn evenly.
 *
 * With `settleEarly` a group whose finished trajectories all have the same reward is left as it is:
 * it is dropped for want of variance anyway, and further calls would mostly teach that again.
 */
import { uniform } from '../prng.ts';
import { isZeroVariance } from './advantage.ts';
import { deltaAfter } from './branch-rules.ts';
import {
  drawForks,
  forkPoints,
  sharesOf,
  weighPoints,
  type ForkPoint,
  type WeighedPoint,
} from './fork-points.ts';
import { DRAWS, startRoots, stepAt, type GroupMembers, type Member } from './group-members.ts';
import type { DeferredSettings, UniformSettings } from './rollout-settings.ts';

export async function growDeferred(
  members: GroupMembers,
  settings: DeferredSettings | UniformSettings,
): Promise<{ settled: boolean }> {
  const { seed, group } = members.options;
  const sample = (some: readonly Member[]): Promise<void> =>
    members.together(some, (member) => members.finish(member));
  await sample(startRoots(members, settings.initialRollouts).filter(({ given }) => !given));
  // Each wave adds at least one member, or is the last.
  for (let wave = 1; members.free.length > 0; wave++) {
    if (settings.settleEarly && isSettled(members)) return { settled: true };
    const { free } = members;
    const points = forkPoints(members, settings.forksPerPoint);
    if (points.length === 0) break;
    const weights = weighPoints(points, settings);
    const chosen = drawForks(points, weights, {
      count: Math.ceil(free.length / Math.max(1, settings.waves - wave + 1)),
      beam: settings.beamSize - 1,
      draw: (k) => uniform(seed, group, wave, k, DRAWS.fork),
    });
    note(members, settings.branch, points, { weights, chosen });
    const forks = points.flatMap((point, i) =>
      Array.from({ length: chosen[i] ?? 0 }, () =>
        members.addFork(point.member, point.at, free.shift() as number),
      ),
    );
    await sample(forks);
  }
  return { settled: settings.settleEarly && members.free.length > 0 && isSettled(members) };
}

/** Every finished trajectory has the same reward. */
export function isSettled(members: GroupMembers): boolean {
  return isZeroVariance(members.all.map((member) => members.score(member).reward));
}

/** Every point that could have been drawn is on record, with its share in the draw. */
function note(
  members: GroupMembers,
  rule: string,
  points: readonly ForkPoint[],
  { weights, chosen }: { weights: readonly WeighedPoint[]; chosen: readonly number[] },
): void {
  const shares = sharesOf(weights);
  points.forEach(({ member, at }, i) => {
    members.decisions.push({
      rule,
      trajectory: member.index,
      stepId: stepAt(member, at).id,
      deltaEntropy: deltaAfter(member.episode.steps, at),
      signal: weights[i]?.signal ?? null,
      probability: shares[i] ?? 0,
      siblings: chosen[i] ?? 0,
    });
  });
}
