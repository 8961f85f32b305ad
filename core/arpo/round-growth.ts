/**
 * Growth in rounds, as the released codes of ARPO and AEPO have it: every active trajectory makes
 * one turn, and when all of them are done the branches are decided. Each of the beamSize - 1
 * siblings of a point has a draw of its own, while slots are free.
 *
 * Deviations from those codes: the points of a round come in an order that is drawn by key, so that
 * low indexes are not favoured; a group that gained nobody in a round always resets AEPO's counter
 * (there: only when another prompt of the batch gained somebody), so that groups do not depend on
 * each other; leftover slots are filled at the end, never with copies.
 */
import { assert } from '../assert.ts';
import { uniform } from '../prng.ts';
import { deltaAfter, type BranchRule } from './branch-rules.ts';
import { DRAWS, stepAt, type GroupMembers, type Member } from './group-members.ts';

export async function growInRounds(
  members: GroupMembers,
  roots: readonly Member[],
  settings: { beamSize: number },
  rule: BranchRule,
): Promise<void> {
  let active = [...roots];
  let consecutive = 0;
  await firstSteps(members, active);
  // Each round every member ends, uses up tool calls or goes over a point, all of them bounded.
  while (active.length > 0 && members.free.length > 0) {
    const opened = (await roundOf(members, active)).flatMap((point) =>
      decide(members, rule, { ...point, tries: settings.beamSize - 1, consecutive }),
    );
    consecutive = opened.length > 0 ? consecutive + 1 : 0;
    await firstSteps(members, opened);
    for (const member of active) if (members.isOver(member)) members.release(member);
    active = active.filter((member) => !members.isOver(member)).concat(opened);
  }
  await members.together(active, async (member) => {
    await members.finish(member);
    members.release(member);
  });
}

/**
 * The step after the prompt, or after the result at which a fork begins: then all are level, with
 * one call to run, and one that was finished before has all of its points to go over.
 */
async function firstSteps(members: GroupMembers, some: readonly Member[]): Promise<void> {
  const fresh = some.filter(({ episode }) => episode.endReason === null);
  await members.together(fresh, async (member) => {
    const at = await members.advance(member);
    assert(at === null, 'a first step follows no call of its own');
  });
}

interface Point {
  member: Member;
  at: number;
}

/** One turn of everybody, and the points that it led to, in an order drawn by key. */
async function roundOf(members: GroupMembers, active: readonly Member[]): Promise<Point[]> {
  const { seed, group } = members.options;
  const points: (Point & { place: number })[] = [];
  await members.together(active, async (member) => {
    const at = await members.advance(member);
    if (at === null) return;
    points.push({ member, at, place: uniform(seed, group, member.index, at, DRAWS.order) });
  });
  return points.sort((a, b) => a.place - b.place || a.member.index - b.member.index);
}

function decide(
  members: GroupMembers,
  rule: BranchRule,
  { member, at, tries, consecutive }: Point & { tries: number; consecutive: number },
): Member[] {
  if (members.free.length === 0) return [];
  const { seed, group } = members.options;
  const { steps } = member.episode;
  const signal = rule.signal(steps, at);
  const probability = rule.probability(signal, consecutive);
  const opened: Member[] = [];
  for (let i = 0; i < tries; i++) {
    const [slot] = members.free;
    const draw = uniform(seed, group, member.index, at, DRAWS.branch, i);
    if (slot !== undefined && rule.opens(probability, draw)) {
      opened.push(members.addFork(member, at, slot));
    }
  }
  members.decisions.push({
    rule: rule.name,
    trajectory: member.index,
    stepId: stepAt(member, at).id,
    deltaEntropy: deltaAfter(steps, at),
    signal,
    probability,
    siblings: opened.length,
  });
  return opened;
}
