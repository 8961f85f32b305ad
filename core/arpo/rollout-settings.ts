/**
 * Settings of the rollout (arpo.md sections 2 and 3): group size, branch rule, entropy, limits of a
 * trajectory. A rule has only the settings that it reads; those of another rule are refused.
 */
import { LIMITS } from '../limits.ts';
import type { EpisodeLimits } from '../agent/types.ts';
import type { EntropySettings } from './entropy.ts';
import { given, refuse, refuseGiven, type Overrides } from './setting-check.ts';
import { choice, integer, number, type SettingSpec } from './setting-specs.ts';

export type Algorithm = 'arpo' | 'grpo';

export interface RolloutCommon {
  /** M: trajectories of one prompt in one training step. */
  groupSize: number;
  /** How H is measured: the mean of a step's first token entropies, or the largest. */
  entropy: 'full' | 'max';
  /** k: the tokens that H looks at. */
  entropyTokens: number;
  maxToolCalls: number;
  /** Sampled tokens of one trajectory. */
  maxTokens: number;
  temperature: number;
}

/** Plain GRPO: every trajectory is a root rollout. */
export interface PlainSettings {
  branch: 'none';
}

export interface PaperSettings {
  branch: 'paper';
  /** N < M: root rollouts sampled first. */
  initialRollouts: number;
  alpha: number;
  beta: number;
  /** Set: branch iff P is above it; null: branch with probability P. */
  branchThreshold: number | null;
  /** A branch opens beamSize - 1 siblings. */
  beamSize: number;
}

export type BranchSettings = PlainSettings | PaperSettings;
export type RolloutSettings = RolloutCommon & BranchSettings;

export const ROLLOUT_SPECS = {
  groupSize: integer(2, LIMITS.sampleQueueMax),
  initialRollouts: integer(1, LIMITS.sampleQueueMax),
  branch: choice('paper', 'none'),
  alpha: number(0, 1),
  beta: number(-1_000, 1_000),
  branchThreshold: number(0, 1, { nullable: true, below: 1 }),
  beamSize: integer(2, LIMITS.sampleQueueMax),
  entropy: choice('full', 'max'),
  entropyTokens: integer(1, 1_000),
  maxToolCalls: integer(0, LIMITS.toolCallsMax),
  maxTokens: integer(1, 65_536),
  temperature: number(0, 2, { above: 0 }),
} as const satisfies Record<string, SettingSpec>;

const COMMON_DEFAULTS: RolloutCommon = {
  groupSize: 16,
  entropy: 'full',
  entropyTokens: 20,
  maxToolCalls: LIMITS.toolCallsDefault,
  maxTokens: 256,
  temperature: 1,
};

const COMMON_NAMES = Object.keys(COMMON_DEFAULTS) as (keyof RolloutCommon)[];

/** Defaults of each rule: also the list of the settings that it reads. N is half the group. */
const RULES: { [R in BranchSettings['branch']]: (groupSize: number) => object } = {
  none: () => ({}),
  paper: (groupSize) => ({
    initialRollouts: Math.floor(groupSize / 2),
    alpha: 0.5,
    beta: 2,
    branchThreshold: null,
    beamSize: 2,
  }),
};

const RULE_NAMES = Object.keys(ROLLOUT_SPECS).filter(
  (name) => name !== 'branch' && !(COMMON_NAMES as string[]).includes(name),
);

/** Defaults, overrides (whose values were checked one by one), and what they mean together. */
export function rolloutSettings(algorithm: Algorithm, overrides: Overrides): RolloutSettings {
  const branch = (overrides.branch ??
    (algorithm === 'grpo' ? 'none' : 'paper')) as BranchSettings['branch'];
  if (algorithm === 'grpo' && branch !== 'none') {
    refuse('branch', `algorithm grpo never branches, but branch is '${branch}'; use arpo`);
  }
  const common = { ...COMMON_DEFAULTS, ...given(overrides, COMMON_NAMES) } as RolloutCommon;
  const defaults = RULES[branch](common.groupSize);
  const read = Object.keys(defaults);
  const unread = RULE_NAMES.filter((name) => !read.includes(name));
  refuseGiven(overrides, unread, branch === 'none' ? 'when nothing branches' : `with '${branch}'`);
  const settings = { ...common, branch, ...defaults, ...given(overrides, read) } as RolloutSettings;
  if (settings.branch !== 'none') checkBranching(settings);
  if (settings.branch === 'paper') checkPaper(settings, overrides);
  return settings;
}

/** Limits of one trajectory under these settings. */
export function episodeLimits(settings: RolloutCommon): EpisodeLimits {
  return { maxToolCalls: settings.maxToolCalls, maxTokens: settings.maxTokens };
}

/** How H is measured under these settings. */
export function entropySettings(settings: RolloutCommon): EntropySettings {
  return { mode: settings.entropy, tokens: settings.entropyTokens };
}

function checkBranching(settings: RolloutCommon & PaperSettings): void {
  const { groupSize, initialRollouts, beamSize, branch } = settings;
  if (initialRollouts >= groupSize) {
    refuse(
      'initialRollouts',
      `initialRollouts ${initialRollouts} leaves no slot of groupSize ${groupSize} to branch into; ` +
        "use fewer, or branch 'none'",
    );
  }
  if (settings.maxToolCalls === 0) {
    refuse('maxToolCalls', `maxToolCalls 0 leaves '${branch}' no tool result; use branch 'none'`);
  }
  if (beamSize - 1 > groupSize - initialRollouts) {
    refuse(
      'beamSize',
      `beamSize ${beamSize} opens ${beamSize - 1} siblings, but only ` +
        `${groupSize - initialRollouts} slots are left to branches`,
    );
  }
}

function checkPaper({ alpha, beta, branchThreshold }: PaperSettings, overrides: Overrides): void {
  if (beta !== 0) return;
  if (branchThreshold !== null) {
    const blamed = 'branchThreshold' in overrides ? 'branchThreshold' : 'beta';
    refuse(blamed, 'branchThreshold with beta 0 compares a constant: the entropy has no effect');
  }
  if (alpha === 0) refuse('alpha', "alpha 0 with beta 0 never branches; use branch 'none'");
}
