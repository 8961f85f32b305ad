/**
 * What rollout settings mean together: combinations in which one would have no effect are refused.
 */
import type { BranchSettings, RolloutCommon, RolloutSettings } from './rollout-settings.ts';
import { refuse, type Overrides } from './setting-check.ts';

/** Throws invalid_request. */
export function checkRollout(settings: RolloutSettings, overrides: Overrides): void {
  if (settings.branch === 'none') {
    if (settings.settleEarly) checkStages(settings);
    return;
  }
  if (settings.maxToolCalls === 0) {
    const { branch } = settings;
    refuse('maxToolCalls', `maxToolCalls 0 leaves '${branch}' no tool result; use branch 'none'`);
  }
  checkSlots(settings);
  if (settings.branch === 'paper' || settings.branch === 'surprisal') {
    checkPaper(settings, overrides);
  } else if (settings.branch === 'random') {
    if (settings.alpha === 0) refuse('alpha', "alpha 0 never branches; use branch 'none'");
  } else if (settings.branch === 'released-code' || settings.branch === 'aepo') {
    const never = settings.branch === 'aepo' ? 1 : 0;
    if (settings.w === 0 && settings.p0 === never) {
      refuse('p0', `p0 ${never} with w 0 never branches; use branch 'none'`);
    }
  } else if (settings.branch === 'deferred' || settings.branch === 'uniform') {
    checkForks(settings);
  }
}

function checkSlots(settings: RolloutCommon & Exclude<BranchSettings, { branch: 'none' }>): void {
  const { groupSize, beamSize, branch } = settings;
  const roots = branch === 'aepo' ? 1 : settings.initialRollouts;
  if (roots >= groupSize) {
    refuse(
      'initialRollouts',
      `initialRollouts ${roots} leaves no slot of groupSize ${groupSize} to branch into; ` +
        "use fewer, or branch 'none'",
    );
  }
  if (beamSize - 1 > groupSize - roots) {
    refuse(
      'beamSize',
      `beamSize ${beamSize} opens ${beamSize - 1} siblings, but only ` +
        `${groupSize - roots} slots are left to branches`,
    );
  }
}

function checkPaper(
  settings: Extract<BranchSettings, { branch: 'paper' | 'surprisal' }>,
  overrides: Overrides,
): void {
  const { alpha, beta, branchThreshold } = settings;
  if (beta !== 0) return;
  if (branchThreshold !== null) {
    const blamed = 'branchThreshold' in overrides ? 'branchThreshold' : 'beta';
    refuse(blamed, 'branchThreshold with beta 0 compares a constant: the entropy has no effect');
  }
  if (alpha === 0) refuse('alpha', "alpha 0 with beta 0 never branches; use branch 'none'");
}

function checkForks(
  settings: RolloutCommon & Extract<BranchSettings, { branch: 'deferred' | 'uniform' }>,
): void {
  const { groupSize, initialRollouts, beamSize, forksPerPoint, waves, settleEarly } = settings;
  const slots = groupSize - initialRollouts;
  if (beamSize - 1 > forksPerPoint) {
    refuse(
      'beamSize',
      `beamSize ${beamSize} opens ${beamSize - 1} siblings, but forksPerPoint allows ` +
        `${forksPerPoint} at a point`,
    );
  }
  if (waves > slots) {
    refuse('waves', `waves ${waves} are more than the ${slots} slots that they fill`);
  }
  if (settleEarly) checkFirstStage(initialRollouts);
}

function checkStages({
  groupSize,
  initialRollouts,
}: {
  groupSize: number;
  initialRollouts: number;
}): void {
  checkFirstStage(initialRollouts);
  if (initialRollouts >= groupSize) {
    refuse(
      'initialRollouts',
      `initialRollouts ${initialRollouts} fills groupSize ${groupSize}: nothing is left to settle`,
    );
  }
}

function checkFirstStage(initialRollouts: number): void {
  if (initialRollouts === 1) {
    refuse('settleEarly', 'settleEarly with one initial rollout would never grow a group');
  }
}
