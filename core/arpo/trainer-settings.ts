/**
 * Settings of the update, the gate, of what is trained (arpo.md section 8), and of which tasks a
 * run draws and for how long.
 */
import { LIMITS } from '../limits.ts';
import { PROJECTIONS } from '../model/lora-targets.ts';
import type { Source } from './loss-settings.ts';
import { given, refuse, refuseGiven, type Overrides } from './setting-check.ts';
import { choice, integer, number, onOff, pair, type SettingSpec } from './setting-specs.ts';

export interface TrainerCommon {
  promptsPerStep: number;
  learningRate: number;
  warmupSteps: number;
  /** The share of the learning rate that is left at a run's end; it falls linearly. */
  finalRateRatio: number;
  /** Updates in one pass over a step's groups; a mini-batch holds whole groups. */
  miniBatches: number;
  /** Passes over a step's groups. */
  epochs: number;
  /** A step's rollouts come from the weights of so many steps before its own. */
  rolloutLag: number;
  /** How rows are forwarded: prefixes that they share once, or in every row, or by cost. */
  packing: 'auto' | 'flat' | 'packed';
  gradientClip: number;
  weightDecay: number;
  /** AdamW's decay rates of the two moments. */
  betas: [number, number];
  /** Held-out tasks that the gate compares on. */
  gateTasks: number;
  /** Sampled answers to each of them; from two on pass@k is reported too. */
  gateSamples: number;
  /** Whether each is answered greedily as well, for the report: the decision is on the samples. */
  gateGreedy: boolean;
  /** How far the lower bound of the accuracy difference may lie below 0. */
  tolerance: number;
  /** Steps between checkpoints. */
  checkpointEvery: number;
}

/** Which tasks are drawn, and when a run ends; what another choice would leave idle is absent. */
export interface Scheduling {
  /** Whether groups that teach nothing are replaced by groups of other tasks. */
  dynamicSampling?: boolean;
  /** Replacements drawn in a step at most. */
  maxResample?: number;
  /**
   * `solved-share`: by p (1 - p) + floor, where p is the share lately solved of a family, then of a
   * task in it. `off`: all alike.
   */
  curriculum?: 'off' | 'solved-share';
  curriculumFloor?: number;
  /**
   * `target`: once the mean reward of the last `stopWindow` steps is at least `targetReward`.
   * `plateau`: once that mean has reached no new best for `stopPatience` steps.
   */
  earlyStop: 'off' | 'plateau' | 'target';
  stopWindow?: number;
  stopPatience?: number;
  targetReward?: number;
}

/** All weights are trained. */
export interface FullTraining {
  training: 'full';
}

/** A new adapter is trained over the base, which stays as it is. */
export interface LoraTraining {
  training: 'lora';
  loraRank: number;
  /** The update counts alpha / rank times, with rsLora alpha / sqrt(rank) times. */
  loraAlpha: number;
  /** Names of projections, or every projection. */
  loraTargets: 'all-linear' | readonly string[];
  rsLora: boolean;
}

/** The base is an adapter: it is trained on, with the rank and targets that it has. */
export interface ContinuedLora {
  training: 'lora';
  loraRank?: never;
}

export type TrainedWeights = FullTraining | LoraTraining | ContinuedLora;
export type TrainerSettings = TrainerCommon & TrainedWeights & Scheduling;

export const TRAINER_SPECS = {
  promptsPerStep: integer(1, LIMITS.sequencesMax),
  learningRate: number(0, 1, { above: 0 }),
  warmupSteps: integer(0, LIMITS.trainingStepsMax),
  finalRateRatio: number(0, 1),
  miniBatches: integer(1, LIMITS.sequencesMax),
  epochs: integer(1, 64),
  rolloutLag: integer(0, LIMITS.rolloutLagMax),
  packing: choice('auto', 'flat', 'packed'),
  gradientClip: number(0, 1_000, { above: 0 }),
  weightDecay: number(0, 1),
  betas: pair(0, 1, { below: 1 }),
  training: choice('full', 'lora'),
  loraRank: integer(1, LIMITS.loraRankMax),
  loraAlpha: number(0, 10_000, { above: 0 }),
  loraTargets: { kind: 'names', names: PROJECTIONS, words: ['all-linear'] },
  rsLora: onOff,
  // Of fewer the gate would pass nothing.
  gateTasks: integer(LIMITS.gateTasksMin, 10_000),
  gateSamples: integer(1, 64),
  gateGreedy: onOff,
  tolerance: number(0, 1),
  checkpointEvery: integer(1, LIMITS.trainingStepsMax),
  dynamicSampling: onOff,
  maxResample: integer(1, LIMITS.sequencesMax),
  curriculum: choice('off', 'solved-share'),
  curriculumFloor: number(0, 1, { above: 0 }),
  earlyStop: choice('off', 'plateau', 'target'),
  stopWindow: integer(1, LIMITS.trainingStepsMax),
  stopPatience: integer(1, LIMITS.trainingStepsMax),
  targetReward: number(-1_000, 1_000),
} as const satisfies Record<string, SettingSpec>;

const DEFAULTS: TrainerCommon = {
  promptsPerStep: 8,
  learningRate: 1e-4,
  warmupSteps: 5,
  finalRateRatio: 1,
  miniBatches: 1,
  epochs: 1,
  rolloutLag: 0,
  packing: 'auto',
  gradientClip: 1,
  weightDecay: 0.01,
  betas: [0.9, 0.999],
  gateTasks: 120,
  gateSamples: 1,
  gateGreedy: false,
  tolerance: 0.02,
  checkpointEvery: 10,
};

const SCHEDULING = { dynamicSampling: false, curriculum: 'off', earlyStop: 'off' } as const;
const SWITCHES = ['dynamicSampling', 'curriculum', 'earlyStop'] as const;
/** What only the drawing of tasks reads: questions are dealt evenly (live-source.ts). */
const OF_TASKS = ['dynamicSampling', 'maxResample', 'curriculum', 'curriculumFloor'] as const;

/** Defaults of what only one choice of a switch reads; `targetReward` has none. */
const IDLE: Partial<Record<Idle, number>> = {
  maxResample: 8,
  curriculumFloor: 0.05,
  stopWindow: 10,
  stopPatience: 20,
};
type Idle = Exclude<keyof Scheduling, (typeof SWITCHES)[number]>;

const LORA_DEFAULTS: LoraTraining = {
  training: 'lora',
  loraRank: 16,
  loraAlpha: 32,
  loraTargets: 'all-linear',
  rsLora: false,
};

const NAMES = Object.keys(DEFAULTS) as (keyof TrainerCommon)[];
const LORA_NAMES = ['loraRank', 'loraAlpha', 'loraTargets', 'rsLora'] as const;

/** Defaults, overrides (whose values were checked one by one), and what they mean together. */
export function trainerSettings(
  overrides: Overrides,
  base: 'full' | 'lora',
  source: Source,
): TrainerSettings {
  const common = { ...DEFAULTS, ...given(overrides, NAMES) } as TrainerCommon;
  const [first, second] = common.betas;
  if (common.miniBatches > common.promptsPerStep) {
    refuse(
      'miniBatches',
      `miniBatches ${common.miniBatches} is more than promptsPerStep ${common.promptsPerStep}; ` +
        'a mini-batch holds whole groups',
    );
  }
  if (source === 'both' && common.promptsPerStep < 2) {
    refuse(
      'promptsPerStep',
      "promptsPerStep 1 with source 'both' leaves tasks no prompt; use 2, or source 'live'",
    );
  }
  return {
    ...common,
    betas: [first, second],
    ...trainedWeights(overrides, base),
    ...scheduling(overrides, source),
  };
}

function scheduling(overrides: Overrides, source: Source): Scheduling {
  const switches = { ...SCHEDULING, ...given(overrides, SWITCHES) } as Required<Scheduling>;
  const settings: Scheduling = source === 'live' ? { earlyStop: switches.earlyStop } : switches;
  if (source === 'live') {
    refuseGiven(overrides, OF_TASKS, "with source 'live', whose questions are dealt evenly");
  }
  const use = (names: readonly Idle[], used: boolean, otherwise: string): void => {
    if (used) Object.assign(settings, defaultsOf(names), given(overrides, names));
    else refuseGiven(overrides, names, otherwise);
  };
  const { dynamicSampling, curriculum, earlyStop } = switches;
  use(['maxResample'], dynamicSampling, 'without dynamicSampling');
  use(['curriculumFloor'], curriculum === 'solved-share', "with curriculum 'off'");
  const off = `with earlyStop '${earlyStop}'`;
  use(['stopWindow'], earlyStop !== 'off', off);
  use(['stopPatience'], earlyStop === 'plateau', off);
  use(['targetReward'], earlyStop === 'target', off);
  if (earlyStop === 'target' && settings.targetReward === undefined) {
    refuse('targetReward', "earlyStop 'target' needs a targetReward");
  }
  return settings;
}

const defaultsOf = (names: readonly Idle[]) =>
  Object.fromEntries(names.flatMap((name) => (name in IDLE ? [[name, IDLE[name]]] : [])));

/** What is trained: the overrides about it and the defaults of the rest. */
function trainedWeights(overrides: Overrides, base: 'full' | 'lora'): TrainedWeights {
  const training = (overrides.training ?? base) as 'full' | 'lora';
  if (base === 'lora') {
    if (training === 'full') {
      refuse('training', "training 'full' of a base that is an adapter is not offered; use 'lora'");
    }
    refuseGiven(overrides, LORA_NAMES, ': the base is an adapter and is trained on as it is');
    return { training };
  }
  if (training === 'full') {
    refuseGiven(overrides, LORA_NAMES, "with training 'full'");
    return { training };
  }
  const lora = { ...LORA_DEFAULTS, ...given(overrides, LORA_NAMES) } as LoraTraining;
  if (lora.rsLora && lora.loraRank === 1) {
    refuse('rsLora', 'rsLora has no effect with loraRank 1, whose square root is 1');
  }
  return lora;
}
