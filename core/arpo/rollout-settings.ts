/**
 * Settings of the rollout (arpo.md sections 2 and 3): group size, branch rule, entropy, limits of a
 * trajectory. A rule has only the settings that it reads; those of another rule are refused. How
 * entropy is measured stays a setting under rules that do not look at it, because it is logged.
 */
import { LIMITS } from '../limits.ts';
import type { EpisodeLimits } from '../agent/types.ts';
import type { EntropySettings } from './entropy.ts';
import { checkRollout } from './rollout-checks.ts';
import { given, refuse, refuseGiven, type Overrides } from './setting-check.ts';
import { choice, integer, number, onOff, type SettingSpec } from './setting-specs.ts';

export type Algorithm = 'arpo' | 'grpo';

export interface RolloutCommon {
  /** M: trajectories of one prompt in one training step. */
  groupSize: number;
  /** How H is measured (entropy.ts). */
  entropy: EntropySettings['mode'];
  /** k: the tokens that H looks at. */
  entropyTokens: number;
  maxToolCalls: number;
  /** Sampled tokens of one trajectory. */
  maxTokens: number;
  temperature: number;
  /** Identical calls of a group run once (cassette.ts); absent when no tool is ever called. */
  cassette?: boolean;
}

/** Plain GRPO: every trajectory is a root rollout. */
export type PlainSettings = { branch: 'none' } & (
  | { settleEarly: false }
  // N first; when their rewards are all equal the group is not filled.
  | ({ settleEarly: true } & FixedRoots)
);

interface Branching {
  /** A branch opens beamSize - 1 siblings. */
  beamSize: number;
}

interface FixedRoots {
  /** N < M: root rollouts sampled first. */
  initialRollouts: number;
}

/** The paper's rule; `surprisal` is the same with -ln p of the sampled tokens in the place of H. */
export interface PaperSettings extends Branching, FixedRoots {
  branch: 'paper' | 'surprisal';
  alpha: number;
  beta: number;
  /** Set: branch iff P is above it; null: branch with probability P. */
  branchThreshold: number | null;
}

/** Control: branches with probability alpha, whatever the entropy. */
export interface RandomSettings extends Branching, FixedRoots {
  branch: 'random';
  alpha: number;
}

export interface ReleasedCodeSettings extends Branching, FixedRoots {
  branch: 'released-code';
  /** Weight of dH. */
  w: number;
  /** Probability of a branch at dH = 0. */
  p0: number;
}

/** AEPO; the number of roots comes from a monitored first rollout. */
export interface AepoSettings extends Branching {
  branch: 'aepo';
  w: number;
  p0: number;
}

/** Control of `deferred`: points drawn evenly. */
export interface UniformSettings extends Branching, FixedRoots {
  branch: 'uniform';
  /** Most forks that begin at one point. */
  forksPerPoint: number;
  /** Over so many waves the free slots are spread; later ones see the forks of earlier ones. */
  waves: number;
  /** A group whose finished trajectories all have the same reward is not grown further. */
  settleEarly: boolean;
}

export type DeferredSettings = Omit<UniformSettings, 'branch'> & {
  branch: 'deferred';
} & (
    | {
        forkBy: 'entropy';
        /** Points are drawn with weight exp(H / tau). */
        tau: number;
      }
    | { forkBy: 'value' }
  );

/** Rules that toss a coin at every result. */
export type CoinBranch = 'paper' | 'surprisal' | 'random' | 'released-code' | 'aepo';

export type BranchSettings =
  | PlainSettings
  | PaperSettings
  | RandomSettings
  | ReleasedCodeSettings
  | AepoSettings
  | UniformSettings
  | DeferredSettings;
export type RolloutSettings = RolloutCommon & BranchSettings;

export const ROLLOUT_SPECS = {
  groupSize: integer(2, LIMITS.sampleQueueMax),
  initialRollouts: integer(1, LIMITS.sampleQueueMax),
  branch: choice(
    'paper',
    'released-code',
    'aepo',
    'deferred',
    'uniform',
    'random',
    'surprisal',
    'none',
  ),
  alpha: number(0, 1),
  beta: number(-1_000, 1_000),
  branchThreshold: number(0, 1, { nullable: true, below: 1 }),
  w: number(-1_000, 1_000),
  p0: number(0, 1),
  forkBy: choice('entropy', 'value'),
  tau: number(0, 1_000, { above: 0 }),
  forksPerPoint: integer(1, LIMITS.sampleQueueMax),
  waves: integer(1, LIMITS.sampleQueueMax),
  settleEarly: onOff,
  beamSize: integer(2, LIMITS.sampleQueueMax),
  entropy: choice('full', 'max', 'released-code'),
  entropyTokens: integer(1, 1_000),
  maxToolCalls: integer(0, LIMITS.toolCallsMax),
  maxTokens: integer(1, 65_536),
  temperature: number(0, 2, { above: 0 }),
  cassette: onOff,
} as const satisfies Record<string, SettingSpec>;

const COMMON_DEFAULTS = {
  groupSize: 16,
  entropy: 'full',
  entropyTokens: 20,
  maxToolCalls: LIMITS.toolCallsDefault,
  maxTokens: 256,
  temperature: 1,
} as const satisfies RolloutCommon;

const COMMON_NAMES = [...Object.keys(COMMON_DEFAULTS), 'cassette'] as (keyof RolloutCommon)[];

/**
 * Defaults of each rule: also the list of the settings that it reads. N is half the group. The
 * released weight 0.2 of dH belongs to a sum over 20 tokens; a mean moves about a tenth as much, so
 * its weights are ten times as large, and its tau a tenth.
 */
function ruleDefaults(branch: BranchSettings['branch'], common: RolloutCommon, set: Overrides) {
  const roots = { initialRollouts: Math.floor(common.groupSize / 2) };
  const weight = common.entropy === 'released-code' ? 0.2 : 2;
  const forks = { ...roots, beamSize: 2, forksPerPoint: 2, waves: 1, settleEarly: false };
  const paper = { ...roots, alpha: 0.5, beta: weight, branchThreshold: null, beamSize: 2 };
  const rules: Record<BranchSettings['branch'], () => object> = {
    none: () =>
      set['settleEarly'] === true ? { ...roots, settleEarly: true } : { settleEarly: false },
    paper: () => paper,
    surprisal: () => paper,
    random: () => ({ ...roots, alpha: 0.5, beamSize: 2 }),
    'released-code': () => ({ ...roots, w: weight, p0: 0.5, beamSize: 2 }),
    aepo: () => ({ w: weight, p0: 0.5, beamSize: 2 }),
    uniform: () => forks,
    deferred: () =>
      set['forkBy'] === 'value'
        ? { ...forks, forkBy: 'value' }
        : { ...forks, forkBy: 'entropy', tau: common.entropy === 'full' ? 0.02 : 0.2 },
  };
  return rules[branch]();
}

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
  if (common.maxToolCalls > 0) common.cassette ??= true;
  else refuseGiven(overrides, ['cassette'], 'when no tool is ever called');
  const defaults = ruleDefaults(branch, common, overrides);
  const read = Object.keys(defaults);
  const unread = RULE_NAMES.filter((name) => !read.includes(name));
  refuseGiven(overrides, unread, whyUnread(branch, overrides));
  const settings = { ...common, branch, ...defaults, ...given(overrides, read) } as RolloutSettings;
  checkRollout(settings, overrides);
  return settings;
}

function whyUnread(branch: string, { forkBy }: Overrides): string {
  if (branch === 'none') return 'when nothing branches';
  return branch === 'deferred' && forkBy === 'value'
    ? `with '${branch}' by value`
    : `with '${branch}'`;
}

/** Limits of one trajectory under these settings. */
export function episodeLimits(settings: RolloutCommon): EpisodeLimits {
  return { maxToolCalls: settings.maxToolCalls, maxTokens: settings.maxTokens };
}

/** How H is measured under these settings. */
export function entropySettings(settings: RolloutCommon): EntropySettings {
  return { mode: settings.entropy, tokens: settings.entropyTokens };
}
