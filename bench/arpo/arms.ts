/**
 * The arms of the experiments: named settings that are compared, each with the question that it
 * answers. Whatever an arm of ours is said to gain must hold against its controls: the same tree
 * without entropy, plain groups that are smaller, and plain groups with the same way of stopping.
 *
 * Knows nothing of seeds, steps or tasks: those are the plan's, equal for all.
 */
import { AppError } from '../../core/errors.ts';

export type ArmSet = 'rules' | 'off-policy';

export interface Arm {
  name: string;
  algorithm: 'arpo' | 'grpo';
  /** Overrides of the defaults. */
  settings: Readonly<Record<string, unknown>>;
  /** For the legend of tables and figures. */
  about: string;
  /**
   * Times as many steps as the plan has. Small plain groups are the cheapest rival at equal calls:
   * they get the calls that the large ones use, not only as many steps.
   */
  stretch?: number;
}

/** What the untrained start is called in records: a run of no steps. */
export const START: Arm = {
  name: 'start',
  algorithm: 'grpo',
  settings: {},
  about: 'untrained',
  stretch: 0,
};

/** The arm whose final accuracy and calls the others are measured by. */
export const REFERENCE = 'grpo-16';
/** What an arm must be ahead of at equal calls, beside the reference. */
export const CONTROLS = ['grpo-8', 'random'] as const;

const deferred = (
  initialRollouts: number,
  by: 'entropy' | 'value',
  more: Arm['settings'] = {},
): Pick<Arm, 'algorithm' | 'settings'> => ({
  algorithm: 'arpo',
  settings: { branch: 'deferred', forkBy: by, initialRollouts, ...more },
});

const uniform = (
  initialRollouts: number,
  more: Arm['settings'] = {},
): Pick<Arm, 'algorithm' | 'settings'> => ({
  algorithm: 'arpo',
  settings: { branch: 'uniform', initialRollouts, ...more },
});

/** As many calls a group as plain groups of 4 to 5. */
const SMALL_TREES = { groupSize: 8, attribution: 'tree' } as const;

/** So that arms of few calls have made half of the reference's by their end, on every seed. */
const LONGER = 1.25;

/** For arms whose rate falls: they end where they have made half of the reference's calls. */
const HALF = 0.525;
const FALLING = { promptsPerStep: 12, epochs: 2, finalRateRatio: 0.2 } as const;

/** What is right under the mode becomes right when it is sampled. */
const SHARP = { entropyCoefficient: -0.3 } as const;

const RULES: readonly Arm[] = [
  {
    name: 'grpo-16',
    algorithm: 'grpo',
    settings: { groupSize: 16 },
    about: 'plain groups of 16: the reference',
  },
  {
    name: 'grpo-8',
    algorithm: 'grpo',
    settings: { groupSize: 8 },
    about: 'plain groups of 8, for more steps',
    stretch: LONGER,
  },
  {
    name: 'grpo-4',
    algorithm: 'grpo',
    settings: { groupSize: 4 },
    about: 'plain groups of 4, for twice the steps',
    stretch: 2,
  },
  {
    name: 'random',
    algorithm: 'arpo',
    settings: { branch: 'random' },
    about: 'branches at half of the results, whatever the entropy',
  },
  { name: 'paper', algorithm: 'arpo', settings: { branch: 'paper' }, about: "the paper's rule" },
  {
    name: 'released-code',
    algorithm: 'arpo',
    settings: { branch: 'released-code' },
    about: "the authors' code: entropy from before the result",
  },
  { name: 'aepo', algorithm: 'arpo', settings: { branch: 'aepo' }, about: 'AEPO' },
  {
    name: 'surprisal',
    algorithm: 'arpo',
    settings: { branch: 'surprisal' },
    about: "the paper's rule on -ln p of the sampled tokens",
  },
  { name: 'uniform-8', ...uniform(8), about: 'deferred from 8 roots, points drawn evenly' },
  { name: 'entropy-8', ...deferred(8, 'entropy'), about: 'deferred from 8 roots by entropy' },
  {
    name: 'uniform-3-of-8-tree',
    stretch: 2,
    ...uniform(3, SMALL_TREES),
    about: 'groups of 8 deferred from 3 roots, points drawn evenly, advantages within the tree',
  },
  {
    name: 'value-3-of-8-tree',
    stretch: 2,
    ...deferred(3, 'value', SMALL_TREES),
    about: 'groups of 8 deferred from 3 roots by value, advantages within the tree',
  },
  {
    name: 'grpo-4-wide',
    stretch: LONGER,
    algorithm: 'grpo',
    settings: { groupSize: 4, promptsPerStep: 12 },
    about: 'plain groups of 4 of twice the prompts',
  },
  {
    name: 'value-2-of-8-tree-wide',
    stretch: LONGER,
    ...deferred(2, 'value', { ...SMALL_TREES, promptsPerStep: 14 }),
    about: 'groups of 8 deferred from 2 roots by value, of 14 prompts, advantages within the tree',
  },
  {
    name: 'value-3-of-16-tree-wide',
    stretch: LONGER,
    ...deferred(3, 'value', { groupSize: 16, attribution: 'tree', promptsPerStep: 8 }),
    about: 'groups of 16 deferred from 3 roots by value, of 8 prompts, advantages within the tree',
  },
  {
    name: 'uniform-3-of-16-tree-wide',
    stretch: LONGER,
    ...uniform(3, { groupSize: 16, attribution: 'tree', promptsPerStep: 8 }),
    about: 'the same, points drawn evenly',
  },
  {
    name: 'uniform-3-of-16-tree-twice',
    ...uniform(3, { groupSize: 16, attribution: 'tree', promptsPerStep: 8, epochs: 2 }),
    about: 'the same, and each group is used for two updates',
  },
  {
    name: 'grpo-8-twice',
    algorithm: 'grpo',
    settings: { groupSize: 8, promptsPerStep: 8, epochs: 2 },
    about: 'plain groups of 8 of as many calls a step, each used for two updates',
  },
  {
    name: 'uniform-3-of-16-tree-falling',
    stretch: HALF,
    ...uniform(3, { groupSize: 16, attribution: 'tree', ...FALLING }),
    about: 'the trees of 12 prompts, used twice at a rate that falls to a fifth, half of the calls',
  },
  {
    name: 'grpo-8-falling',
    stretch: HALF,
    algorithm: 'grpo',
    settings: { groupSize: 8, ...FALLING },
    about: 'plain groups of 8 in the same way',
  },
  {
    name: 'uniform-3-of-16-tree-sharp',
    ...uniform(3, { groupSize: 16, attribution: 'tree', promptsPerStep: 8, ...SHARP }),
    about: 'the trees of 8 prompts, used once, with a price on entropy',
  },
  {
    name: 'grpo-8-sharp',
    algorithm: 'grpo',
    settings: { groupSize: 8, promptsPerStep: 8, ...SHARP },
    about: 'plain groups of 8 of as many calls a step, with a price on entropy',
  },
  {
    name: 'grpo-16-sharp',
    algorithm: 'grpo',
    settings: { groupSize: 16, ...SHARP },
    about: 'the reference with a price on entropy',
  },
];

/** Two updates a step, so that ratios move, even those of fresh rollouts. */
const OLD_DATA = { miniBatches: 2 } as const;

const OFF_POLICY: readonly Arm[] = [
  {
    name: 'fresh',
    algorithm: 'grpo',
    settings: OLD_DATA,
    about: 'rollouts of the weights that are updated',
  },
  {
    name: 'old-uncorrected',
    algorithm: 'grpo',
    settings: { ...OLD_DATA, rolloutLag: 4, importance: 'none' },
    about: 'rollouts 4 steps old, nothing corrected',
  },
  {
    name: 'old-token',
    algorithm: 'grpo',
    settings: { ...OLD_DATA, rolloutLag: 4, importance: 'token' },
    about: '4 steps old, importance weights by token',
  },
  {
    name: 'old-sequence',
    algorithm: 'grpo',
    settings: { ...OLD_DATA, rolloutLag: 4, importance: 'sequence' },
    about: '4 steps old, importance weights by sequence',
  },
  {
    name: 'old-token-masked',
    algorithm: 'grpo',
    settings: { ...OLD_DATA, rolloutLag: 4, importance: 'token', geometricMask: [0.9, 1.1] },
    about: '4 steps old, by token, sequences of another kind left out',
  },
];

export const ARM_SETS: Readonly<Record<ArmSet, readonly Arm[]>> = {
  rules: RULES,
  'off-policy': OFF_POLICY,
};

/** The arms named, in the order of the set; all when none is. Throws config_invalid. */
export function chooseArms(set: ArmSet, names: readonly string[] | null): Arm[] {
  const arms = ARM_SETS[set];
  for (const name of names ?? []) {
    if (arms.some((arm) => arm.name === name)) continue;
    const known = arms.map((arm) => arm.name).join(', ');
    throw new AppError('config_invalid', `--arms: no arm '${name}' in ${set}; known: ${known}`);
  }
  return arms.filter((arm) => names === null || names.includes(arm.name));
}
