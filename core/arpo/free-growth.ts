/**
 * Growth without a turn barrier: each trajectory goes on as soon as its own tool result is there,
 * and a branch is decided when its step after the result is sampled.
 *
 * Deviation from arpo.md: fair allocation of slots (branch-slots.ts) in the place of first come,
 * first served. A tree has only its own share, so a root that ends early leaves slots to nobody;
 * they become fresh roots in the end. That makes the forest independent of timing.
 */
import { mix, uniform } from '../prng.ts';
import { deltaAfter, type BranchRule } from './branch-rules.ts';
import { beamsOf, deal, type Beam } from './branch-slots.ts';
import { Crew } from './concurrency.ts';
import { DRAWS, startRoots, stepAt, type GroupMembers, type Member } from './group-members.ts';
import { throwIfAborted } from './task-episode.ts';

export async function growFreely(
  members: GroupMembers,
  settings: { initialRollouts: number; beamSize: number },
  rule: BranchRule,
): Promise<void> {
  const { seed, group, deadline } = members.options;
  const crew = new Crew(deadline.fail);
  const live = async (member: Member, share: readonly Beam[]): Promise<void> => {
    let beams = share;
    // Each pass goes over a point, ends the episode or uses up tool calls; all are bounded.
    while (!members.isOver(member)) {
      const at = await members.advance(member);
      const [beam, ...rest] = beams;
      if (at === null || beam === undefined) continue;
      if (!decide(members, rule, { member, at, siblings: beam.length })) continue;
      const siblings = beam.map((index) => members.addFork(member, at, index));
      const hands = deal(rest, siblings.length + 1, mix(seed, group, member.index, at, DRAWS.deal));
      beams = hands[0] ?? [];
      siblings.forEach((sibling, i) => crew.start(() => live(sibling, hands[i + 1] ?? [])));
    }
    members.release(member);
  };
  const roots = startRoots(members, settings.initialRollouts);
  const beams = beamsOf(members.free, settings.beamSize - 1);
  const shares = deal(beams, roots.length, mix(seed, group, DRAWS.deal));
  roots.forEach((root, i) => crew.start(() => live(root, shares[i] ?? [])));
  await crew.ended();
  throwIfAborted(deadline, 'rollouts');
  members.sortDecisions();
}

function decide(
  members: GroupMembers,
  rule: BranchRule,
  point: { member: Member; at: number; siblings: number },
): boolean {
  const { member, at } = point;
  const { seed, group } = members.options;
  const { steps } = member.episode;
  const signal = rule.signal(steps, at);
  const probability = rule.probability(signal, 0);
  const opens = rule.opens(probability, uniform(seed, group, member.index, at, DRAWS.branch));
  members.decisions.push({
    rule: rule.name,
    trajectory: member.index,
    stepId: stepAt(member, at).id,
    deltaEntropy: deltaAfter(steps, at),
    signal,
    probability,
    siblings: opens ? point.siblings : 0,
  });
  return opens;
}
