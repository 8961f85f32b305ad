/** Settings of the update, the gate, and of what is trained (arpo.md section 8). */
import { LIMITS } from '../limits.ts';
import { PROJECTIONS } from '../model/lora-targets.ts';
import { given, refuse, refuseGiven, type Overrides } from './setting-check.ts';
import { choice, integer, number, onOff, pair, type SettingSpec } from './setting-specs.ts';

export interface TrainerCommon {
  promptsPerStep: number;
  learningRate: number;
  warmupSteps: number;
  /** Updates a step; a mini-batch holds whole groups. */
  miniBatches: number;
  gradientClip: number;
  weightDecay: number;
  /** AdamW's decay rates of the two moments. */
  betas: [number, number];
  /** Held-out tasks that the gate compares on. */
  gateTasks: number;
  /** How far the lower bound of the accuracy difference may lie below 0. */
  tolerance: number;
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
export type TrainerSettings = TrainerCommon & TrainedWeights;

export const TRAINER_SPECS = {
  promptsPerStep: integer(1, LIMITS.sequencesMax),
  learningRate: number(0, 1, { above: 0 }),
  warmupSteps: integer(0, LIMITS.trainingStepsMax),
  miniBatches: integer(1, LIMITS.sequencesMax),
  gradientClip: number(0, 1_000, { above: 0 }),
  weightDecay: number(0, 1),
  betas: pair(0, 1, { below: 1 }),
  training: choice('full', 'lora'),
  loraRank: integer(1, LIMITS.loraRankMax),
  loraAlpha: number(0, 10_000, { above: 0 }),
  loraTargets: { kind: 'names', names: PROJECTIONS, words: ['all-linear'] },
  rsLora: onOff,
  gateTasks: integer(1, 10_000),
  tolerance: number(0, 1),
} as const satisfies Record<string, SettingSpec>;

const DEFAULTS: TrainerCommon = {
  promptsPerStep: 8,
  learningRate: 1e-4,
  warmupSteps: 5,
  miniBatches: 1,
  gradientClip: 1,
  weightDecay: 0.01,
  betas: [0.9, 0.999],
  gateTasks: 120,
  tolerance: 0.02,
};

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
export function trainerSettings(overrides: Overrides, base: 'full' | 'lora'): TrainerSettings {
  const common = { ...DEFAULTS, ...given(overrides, NAMES) } as TrainerCommon;
  const [first, second] = common.betas;
  if (common.miniBatches > common.promptsPerStep) {
    refuse(
      'miniBatches',
      `miniBatches ${common.miniBatches} is more than promptsPerStep ${common.promptsPerStep}; ` +
        'a mini-batch holds whole groups',
    );
  }
  return { ...common, betas: [first, second], ...trainedWeights(overrides, base) };
}

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
  return { ...LORA_DEFAULTS, ...given(overrides, LORA_NAMES) } as LoraTraining;
}
