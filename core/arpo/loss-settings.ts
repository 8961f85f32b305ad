/**
 * Settings of rewards, advantages and the loss (arpo.md sections 4 to 6). Whether one of them has
 * an effect depends on two facts above all: whether the ratio of a token moves away from 1 (only
 * from the second update of a step on, or against another behaviour), and whether anything that is
 * trained on is off-policy.
 */
import { LIMITS } from '../limits.ts';
import type { ClipRule } from '../model/policy-loss.ts';
import type { LossSettings as LossTerms } from '../model/types.ts';
import type { Normalise } from './advantage.ts';
import type { Aggregate } from './aggregate.ts';
import { MULTI_TOOL_BONUS } from './reward.ts';
import { given, refuse, refuseGiven, type Overrides } from './setting-check.ts';
import { choice, integer, number, pair, type SettingSpec } from './setting-specs.ts';
import type { Attribution } from './token-advantage.ts';

export interface LossSettings {
  normalise: Normalise;
  attribution: Attribution;
  /** How much a token's entropy, as z in its group, weighs in its advantage. */
  entropyAdvantage: number;
  aggregate: Aggregate;
  clip: ClipRule;
  epsLow: number;
  epsHigh: number;
  /** Only rules `ppo` and `entropy-balanced` have it. */
  dualClip?: number;
  /** Absent where nothing is off-policy, or the clip rule weighs by itself. */
  importance?: 'none' | 'token' | 'sequence';
  importanceCap?: number;
  /** Sequences whose geometric mean of old / behaviour lies outside are left out; null: none. */
  geometricMask?: [number, number] | null;
  /** Policy versions between the one that is trained and any token of a logged conversation. */
  maxStaleness?: number;
  /** Of the divergence from the base policy; 0: not in the loss. */
  klCoefficient: number;
  /** Of the entropy of the predictions; above 0 a bonus, below 0 a price; 0: not in the loss. */
  entropyCoefficient: number;
  /**
   * Absent where no task is trained on (ratings are the rewards of conversations), and where a
   * trajectory has no two calls.
   */
  multiToolBonus?: number;
}

export const LOSS_SPECS = {
  normalise: choice('std', 'mean', 'leave-one-out'),
  attribution: choice('soft', 'hard', 'tree', 'dedup'),
  // Below 1/3, so that an advantage keeps its sign: z is at least -3.
  entropyAdvantage: number(0, 0.33),
  aggregate: choice('token-mean', 'sequence-mean', 'constant'),
  clip: choice('ppo', 'entropy-balanced', 'gspo', 'cispo'),
  epsLow: number(0, 1, { above: 0 }),
  epsHigh: number(0, 100, { above: 0 }),
  dualClip: number(1, 1_000, { above: 1 }),
  importance: choice('none', 'token', 'sequence'),
  importanceCap: number(1, 1_000),
  geometricMask: pair(0, 1_000, { nullable: true }),
  maxStaleness: integer(0, LIMITS.liveStalenessMax),
  klCoefficient: number(0, 100),
  entropyCoefficient: number(-100, 100),
  multiToolBonus: number(0, 1),
} as const satisfies Record<keyof LossSettings, SettingSpec>;

const COMMON = {
  normalise: 'std',
  attribution: 'soft',
  klCoefficient: 0,
  entropyCoefficient: 0,
} as const satisfies Partial<LossSettings>;

type RuleSettings = Pick<
  LossSettings,
  'entropyAdvantage' | 'aggregate' | 'epsLow' | 'epsHigh' | 'dualClip'
>;

const PPO_DEFAULTS: RuleSettings = {
  entropyAdvantage: 0,
  aggregate: 'token-mean',
  epsLow: 0.2,
  epsHigh: 0.2,
  dualClip: 3,
};

/** Defaults of what a rule reads, each as its own paper or code has it. */
const RULES: Record<ClipRule, RuleSettings> = {
  ppo: PPO_DEFAULTS,
  'entropy-balanced': { ...PPO_DEFAULTS, entropyAdvantage: 0.2 },
  gspo: { entropyAdvantage: 0, aggregate: 'sequence-mean', epsLow: 3e-4, epsHigh: 4e-4 },
  // The ratio is cut to [0, 5].
  cispo: { entropyAdvantage: 0, aggregate: 'token-mean', epsLow: 1, epsHigh: 4 },
};

const STALENESS = 4;
const CLIP_NAMES = ['epsLow', 'epsHigh', 'dualClip'] as const;
const OFF_POLICY_NAMES = ['importance', 'importanceCap', 'geometricMask'] as const;

/** What a run trains on: tasks with verifiers, rated conversations. */
export type Source = 'tasks' | 'live' | 'both';

/** What the loss settings depend on of the others. */
export interface LossSurroundings {
  /** Updates with one set of rollouts; at the first the ratio to the start of the update is 1. */
  updatesPerStep: number;
  /** Whether trajectories of a group can share steps that the policy sampled. */
  branches: boolean;
  temperature: number;
  groupSize: number;
  maxToolCalls: number;
  /** Steps by which the rollouts lag behind the update. */
  rolloutLag: number;
  source: Source;
}

/** Defaults, overrides (whose values were checked one by one), and what they mean together. */
export function lossSettings(overrides: Overrides, around: LossSurroundings): LossSettings {
  const clip = (overrides.clip ?? 'ppo') as ClipRule;
  const rule = RULES[clip];
  const ruleNames = Object.keys(rule) as (keyof RuleSettings)[];
  const settings: LossSettings = {
    ...COMMON,
    ...given(overrides, Object.keys(COMMON) as (keyof typeof COMMON)[]),
    clip,
    ...rule,
    ...given(overrides, ruleNames),
    ...offPolicySettings(overrides, clip, around),
    ...rewardSettings(overrides, around),
  } as LossSettings;
  if (!('dualClip' in rule)) refuseGiven(overrides, ['dualClip'], `with clip '${clip}'`);
  checkClip(settings, overrides, around);
  checkAttribution(settings, around);
  return settings;
}

/** The terms of the loss that the model computes; the divisor is added for each mini-batch. */
export function lossTerms(settings: LossSettings): Omit<LossTerms, 'weightSum'> {
  const { clip, epsLow, epsHigh, dualClip, klCoefficient, entropyCoefficient } = settings;
  // A rule without a dual clip does not read it.
  return { clip, epsLow, epsHigh, dualClip: dualClip ?? 0, klCoefficient, entropyCoefficient };
}

/** Whether tokens can come from another distribution than that of the policy that is updated. */
const isOffPolicy = (around: LossSurroundings): boolean =>
  around.temperature !== 1 || around.rolloutLag > 0 || hasLogged(around);

/** Whether logged tokens are trained on: a quarter of a group at most is (rebuilt-group.ts). */
const hasLogged = ({ source, groupSize }: LossSurroundings): boolean =>
  source !== 'tasks' && groupSize >= 4;

function rewardSettings(
  overrides: Overrides,
  { source, maxToolCalls }: LossSurroundings,
): Partial<LossSettings> {
  if (maxToolCalls < 2) {
    const why = `with maxToolCalls ${maxToolCalls}: two tools take two calls`;
    refuseGiven(overrides, ['multiToolBonus'], why);
    return {};
  }
  if (source === 'live') {
    const why = "with source 'live': the rewards of conversations are their ratings";
    refuseGiven(overrides, ['multiToolBonus'], why);
    return {};
  }
  const settings: Partial<LossSettings> = { multiToolBonus: MULTI_TOOL_BONUS };
  return Object.assign(settings, given(overrides, ['multiToolBonus']));
}

function offPolicySettings(
  overrides: Overrides,
  clip: ClipRule,
  around: LossSurroundings,
): Partial<LossSettings> {
  const settings: Partial<LossSettings> = {};
  if (hasLogged(around)) {
    Object.assign(settings, { maxStaleness: STALENESS }, given(overrides, ['maxStaleness']));
  } else {
    refuseGiven(overrides, ['maxStaleness'], withoutLogged(around));
  }
  if (!isOffPolicy(around)) {
    refuseGiven(overrides, OFF_POLICY_NAMES, 'where the policy itself samples at temperature 1');
    return settings;
  }
  Object.assign(settings, { geometricMask: null }, given(overrides, ['geometricMask']));
  const mask = settings.geometricMask;
  if (mask && mask[0] >= mask[1]) {
    refuse('geometricMask', `geometricMask ${mask.join(' to ')} lets no sequence through`);
  }
  if (clip === 'cispo') {
    const why = "with clip 'cispo', whose ratio is to the behaviour already";
    refuseGiven(overrides, ['importance', 'importanceCap'], why);
    return settings;
  }
  Object.assign(settings, { importance: 'token' }, given(overrides, ['importance']));
  if (settings.importance === 'none') {
    refuseGiven(overrides, ['importanceCap'], "with importance 'none'");
    return settings;
  }
  return Object.assign(settings, { importanceCap: 2 }, given(overrides, ['importanceCap']));
}

const withoutLogged = ({ source, groupSize }: LossSurroundings): string =>
  source === 'tasks'
    ? 'without logged conversations to train on'
    : `with groupSize ${groupSize}, of which no quarter is left to logged conversations`;

function checkClip(settings: LossSettings, overrides: Overrides, around: LossSurroundings): void {
  const { clip, epsHigh, dualClip, entropyAdvantage } = settings;
  if (!ratioMoves(settings, around)) {
    const why = 'the only update of a step starts at ratio 1, where nothing is clipped';
    for (const name of CLIP_NAMES) {
      if (settings[name] === RULES[clip][name]) continue;
      refuse(name, `${name} has no effect with miniBatches 1 and epochs 1: ${why}`);
    }
    if (clip !== 'ppo' && !(clip === 'entropy-balanced' && entropyAdvantage > 0)) {
      refuse('clip', `clip '${clip}' does what 'ppo' does with miniBatches 1 and epochs 1: ${why}`);
    }
  }
  if (dualClip !== undefined && dualClip <= 1 + epsHigh) {
    const blamed = 'dualClip' in overrides ? 'dualClip' : 'epsHigh';
    refuse(blamed, `dualClip ${dualClip} must be above 1 + epsHigh ${epsHigh}`);
  }
}

/** Whether the ratio that is clipped is anything but 1. */
function ratioMoves({ clip }: LossSettings, around: LossSurroundings): boolean {
  return around.updatesPerStep > 1 || (clip === 'cispo' && isOffPolicy(around));
}

function checkAttribution(settings: LossSettings, around: LossSurroundings): void {
  const { attribution, aggregate, clip } = settings;
  if (attribution === 'soft') return;
  if (!around.branches) {
    refuse(
      'attribution',
      `attribution '${attribution}' has no effect with branch 'none': trajectories share no token ` +
        'that the policy sampled',
    );
  }
  // Where a token's weight is the same in every row and the objective is linear in the advantage,
  // it makes no difference whether the advantages are averaged first.
  const weighsRows =
    aggregate === 'sequence-mean' || settings.importance === 'sequence' || settings.geometricMask;
  const linear = clip === 'cispo' || around.updatesPerStep === 1;
  if (attribution === 'hard' && linear && !weighsRows) {
    refuse(
      'attribution',
      "attribution 'hard' has the gradient of 'soft' here: no ratio is clipped, and every row that " +
        'shares a token weighs it alike',
    );
  }
}
