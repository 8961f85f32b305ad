/**
 * How a group grows, by its branch rule (arpo.md section 3): freely, in rounds, or from the
 * finished roots. What is common to them is here: the roots, and the draws.
 *
 * Deviations from the released codes: slots are never handed out by the order of indexes, and only
 * the rules that reproduce turn-synchronous codes keep a barrier between turns.
 */
import { assert } from '../assert.ts';
import { mean } from './number.ts';
import { aepoRootCount } from './branching.ts';
import { branchRule, type Measure } from './branch-rules.ts';
import { growDeferred, isSettled } from './deferred-growth.ts';
import { growFreely } from './free-growth.ts';
import type { GroupMembers } from './group-members.ts';
import { startRoots } from './group-members.ts';
import { growInRounds } from './round-growth.ts';
import { entropySettings, type RolloutSettings } from './rollout-settings.ts';

/**
 * Adds members by the rule, each sampled to its end. Slots may stay free: they are for fresh roots,
 * unless the group is `settled`, which shall stay as it is.
 */
export async function growGroup(
  members: GroupMembers,
  settings: RolloutSettings,
  model: Omit<Measure, 'entropy'>,
): Promise<{ settled: boolean }> {
  const measure = { ...model, entropy: entropySettings(settings) };
  switch (settings.branch) {
    case 'none':
      if (settings.settleEarly) return settleRoots(members, settings.initialRollouts);
      break;
    case 'paper':
    case 'random':
    case 'surprisal':
      await growFreely(members, settings, branchRule(settings, measure));
      break;
    case 'released-code': {
      const roots = startRoots(members, settings.initialRollouts);
      await growInRounds(members, roots, settings, branchRule(settings, measure));
      break;
    }
    case 'aepo': {
      const roots = startRoots(members, await monitoredRoots(members));
      await growInRounds(members, roots, settings, branchRule(settings, measure));
      break;
    }
    case 'deferred':
    case 'uniform':
      return growDeferred(members, settings);
  }
  return { settled: false };
}

/** Plain groups in two stages: the second is spared where the first leaves nothing to learn. */
async function settleRoots(members: GroupMembers, count: number): Promise<{ settled: boolean }> {
  const roots = startRoots(members, count).filter(({ given }) => !given);
  await members.together(roots, (member) => members.finish(member));
  return { settled: isSettled(members) };
}

/**
 * AEPO's split: the first rollout is sampled to its end, and its entropy before and after tool
 * results says how many roots the group gets. It stays a member, and the rounds pass its points.
 * Deviation: H_tool is over the steps after results, as in the paper; the code averages all steps.
 */
async function monitoredRoots(members: GroupMembers): Promise<number> {
  const [first] = startRoots(members, 1);
  assert(first !== undefined, 'a group has a first member');
  await members.together([first], (member) => members.finish(member));
  const { steps } = first.episode;
  const after = first.points.map((at) => steps[at + 1]?.stepEntropy ?? 0);
  const rootMinusTool = after.length === 0 ? 0 : (first.episode.initialEntropy ?? 0) - mean(after);
  return aepoRootCount(members.options.size, rootMinusTool);
}
