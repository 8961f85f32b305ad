/**
 * The typed settings of a training run, by the names of arpo.md, with defaults for the embedded
 * policy. Overrides are checked in full before a run starts: an unknown name, a wrong type, a value
 * out of range, and a setting that would do nothing in the chosen combination are refused by name,
 * because a setting that is silently ignored makes a wrong experiment.
 *
 * What parseSettings returns holds only settings that are in force, so it can be stored as the
 * run's record and parsed again (by the trainer process) to the same object.
 */
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { EpisodeLimits } from '../agent/types.ts';
import type { EntropySettings } from './entropy.ts';
import { NOT_OFFERED, SPECS } from './setting-specs.ts';
import type { RangeSpec, SettingName, SettingSpec } from './setting-specs.ts';

export type Algorithm = 'arpo' | 'grpo';

export interface CommonSettings {
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
  promptsPerStep: number;
  learningRate: number;
  warmupSteps: number;
  /** Updates a step; a mini-batch holds whole groups. */
  miniBatches: number;
  gradientClip: number;
  weightDecay: number;
  /** AdamW's decay rates of the two moments. */
  betas: [number, number];
  epsLow: number;
  epsHigh: number;
  dualClip: number;
  normalise: 'std' | 'mean';
  attribution: 'soft';
  multiToolBonus: number;
  /** Held-out tasks that the gate compares on. */
  gateTasks: number;
  /** How far the lower bound of the accuracy difference may lie below 0. */
  tolerance: number;
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

export type ArpoSettings = CommonSettings &
  (PlainSettings | PaperSettings) &
  (FullTraining | LoraTraining | ContinuedLora);

const COMMON_DEFAULTS: CommonSettings = {
  groupSize: 16,
  entropy: 'full',
  entropyTokens: 20,
  maxToolCalls: LIMITS.toolCallsDefault,
  maxTokens: 256,
  temperature: 1,
  promptsPerStep: 8,
  learningRate: 1e-4,
  warmupSteps: 5,
  miniBatches: 1,
  gradientClip: 1,
  weightDecay: 0.01,
  betas: [0.9, 0.999],
  epsLow: 0.2,
  epsHigh: 0.2,
  dualClip: 3,
  normalise: 'std',
  attribution: 'soft',
  multiToolBonus: 0.1,
  gateTasks: 120,
  tolerance: 0.02,
};

/** Default N is half the group, as in the paper (8 of 16). */
function paperDefaults(groupSize: number): PaperSettings {
  return {
    branch: 'paper',
    initialRollouts: Math.floor(groupSize / 2),
    alpha: 0.5,
    beta: 2,
    branchThreshold: null,
    beamSize: 2,
  };
}

const LORA_DEFAULTS: LoraTraining = {
  training: 'lora',
  loraRank: 16,
  loraAlpha: 32,
  loraTargets: 'all-linear',
  rsLora: false,
};

const PAPER_ONLY = ['initialRollouts', 'alpha', 'beta', 'branchThreshold', 'beamSize'] as const;
const CLIP_NAMES = ['epsLow', 'epsHigh', 'dualClip'] as const;
const LORA_NAMES = ['loraRank', 'loraAlpha', 'loraTargets', 'rsLora'] as const;

/**
 * The settings in force for an algorithm: defaults and overrides. `arpo` branches by the paper's
 * rule unless told otherwise; `grpo` is branch `none` with every rollout from the prompt. A base
 * that is an adapter (`lora`) is trained on as one. Throws invalid_request or
 * unsupported_parameter; `param` is `settings.NAME`.
 */
export function parseSettings(
  algorithm: Algorithm,
  overrides: Readonly<Record<string, unknown>> = {},
  base: 'full' | 'lora' = 'full',
): ArpoSettings {
  for (const [name, value] of Object.entries(overrides)) checkOne(name, value);
  const branch = (overrides.branch ?? (algorithm === 'grpo' ? 'none' : 'paper')) as
    'none' | 'paper';
  if (algorithm === 'grpo' && branch !== 'none') {
    refuse('branch', `algorithm grpo never branches, but branch is '${branch}'; use arpo`);
  }
  if (branch === 'none') {
    for (const name of PAPER_ONLY) {
      if (name in overrides) refuse(name, `${name} has no effect when nothing branches`);
    }
  }
  const trained = trainedWeights(overrides, base);
  const common = { ...COMMON_DEFAULTS, ...overrides, betas: readBetas(overrides.betas) };
  const settings =
    branch === 'none'
      ? { ...common, ...trained, branch }
      : { ...paperDefaults(common.groupSize), ...common, ...trained, branch };
  checkTogether(settings, overrides);
  return settings;
}

/** Limits of one trajectory under these settings. */
export function episodeLimits(settings: CommonSettings): EpisodeLimits {
  return { maxToolCalls: settings.maxToolCalls, maxTokens: settings.maxTokens };
}

/** How H is measured under these settings. */
export function entropySettings(settings: CommonSettings): EntropySettings {
  return { mode: settings.entropy, tokens: settings.entropyTokens };
}

/** What is trained: the overrides about it and the defaults of the rest. */
function trainedWeights(
  overrides: Readonly<Record<string, unknown>>,
  base: 'full' | 'lora',
): FullTraining | LoraTraining | ContinuedLora {
  const training = (overrides.training ?? base) as 'full' | 'lora';
  const given = LORA_NAMES.filter((name) => name in overrides);
  if (base === 'lora') {
    if (training === 'full') {
      refuse('training', "training 'full' of a base that is an adapter is not offered; use 'lora'");
    }
    for (const name of given) {
      refuse(name, `${name} has no effect: the base is an adapter and is trained on as it is`);
    }
    return { training };
  }
  if (training === 'full') {
    for (const name of given) refuse(name, `${name} has no effect with training 'full'`);
    return { training };
  }
  const chosen = Object.fromEntries(given.map((name) => [name, overrides[name]]));
  return { ...LORA_DEFAULTS, ...chosen };
}

function readBetas(value: unknown): [number, number] {
  const [first, second] = (value ?? COMMON_DEFAULTS.betas) as [number, number];
  return [first, second];
}

function checkOne(name: string, value: unknown): void {
  if (NOT_OFFERED.has(name)) unsupported(name, `setting '${name}' is not offered`);
  if (!Object.hasOwn(SPECS, name)) {
    refuse(name, `unknown setting '${name}'; known: ${Object.keys(SPECS).join(', ')}`);
  }
  const spec: SettingSpec = SPECS[name as SettingName];
  if (spec.kind === 'choice') {
    if (typeof value === 'string' && spec.notOffered?.includes(value)) {
      unsupported(name, `${name} '${value}' is not offered; use ${spec.values.join(' or ')}`);
    }
    if (!(spec.values as readonly unknown[]).includes(value)) {
      refuse(name, `${name} must be ${spec.values.join(' or ')}, not ${show(value)}`);
    }
    return;
  }
  if (spec.kind === 'names') {
    const list = Array.isArray(value) && value.length > 0 ? (value as unknown[]) : null;
    const known = list?.every((item) => (spec.names as readonly unknown[]).includes(item));
    if (known !== true && !(spec.words as readonly unknown[]).includes(value)) {
      const names = `a list of ${spec.names.join(', ')}`;
      refuse(name, `${name} must be ${spec.words.join(' or ')} or ${names}, not ${show(value)}`);
    }
    return;
  }
  if (spec.kind === 'pair') {
    if (!Array.isArray(value) || value.length !== 2) {
      refuse(name, `${name} must be two numbers, not ${show(value)}`);
    }
    for (const item of value as unknown[]) checkNumber(name, item, spec);
    return;
  }
  if (!(value === null && spec.nullable)) checkNumber(name, value, spec);
}

function checkNumber(name: string, value: unknown, spec: RangeSpec) {
  const whole = spec.kind === 'integer';
  if (typeof value !== 'number' || !Number.isFinite(value) || (whole && !Number.isInteger(value))) {
    refuse(name, `${name} must be ${whole ? 'an integer' : 'a number'}, not ${show(value)}`);
  }
  const low = spec.above === undefined ? value >= spec.min : value > spec.above;
  const high = spec.below === undefined ? value <= spec.max : value < spec.below;
  if (!low || !high) {
    const from = spec.above === undefined ? `at least ${spec.min}` : `above ${spec.above}`;
    const to = spec.below === undefined ? `at most ${spec.max}` : `below ${spec.below}`;
    refuse(name, `${name} must be ${from} and ${to}, not ${value}`);
  }
}

function checkTogether(settings: ArpoSettings, overrides: Readonly<Record<string, unknown>>): void {
  const open = settings.groupSize * settings.promptsPerStep;
  if (open > LIMITS.sequencesMax) {
    const blamed = 'groupSize' in overrides ? 'groupSize' : 'promptsPerStep';
    refuse(
      blamed,
      `groupSize ${settings.groupSize} times promptsPerStep ${settings.promptsPerStep} is ${open} ` +
        `trajectories a step; at most ${LIMITS.sequencesMax} fit`,
    );
  }
  if (settings.miniBatches > settings.promptsPerStep) {
    refuse(
      'miniBatches',
      `miniBatches ${settings.miniBatches} is more than promptsPerStep ${settings.promptsPerStep}; ` +
        'a mini-batch holds whole groups',
    );
  }
  if (settings.miniBatches === 1) {
    for (const name of CLIP_NAMES) {
      if (settings[name] !== COMMON_DEFAULTS[name]) {
        refuse(
          name,
          `${name} has no effect with miniBatches 1: the only update of a step starts at ratio 1, ` +
            'where nothing is clipped',
        );
      }
    }
  }
  if (settings.dualClip <= 1 + settings.epsHigh) {
    const blamed = 'dualClip' in overrides ? 'dualClip' : 'epsHigh';
    refuse(blamed, `dualClip ${settings.dualClip} must be above 1 + epsHigh ${settings.epsHigh}`);
  }
  if (settings.branch === 'paper') checkPaper(settings, overrides);
}

function checkPaper(
  settings: CommonSettings & PaperSettings,
  overrides: Readonly<Record<string, unknown>>,
): void {
  const { groupSize, initialRollouts, alpha, beta, branchThreshold, beamSize } = settings;
  if (initialRollouts >= groupSize) {
    refuse(
      'initialRollouts',
      `initialRollouts ${initialRollouts} leaves no slot of groupSize ${groupSize} to branch into; ` +
        "use fewer, or branch 'none'",
    );
  }
  if (settings.maxToolCalls === 0) {
    refuse('maxToolCalls', "maxToolCalls 0 leaves no tool result to branch at; use branch 'none'");
  }
  if (beamSize - 1 > groupSize - initialRollouts) {
    refuse(
      'beamSize',
      `beamSize ${beamSize} opens ${beamSize - 1} siblings, but only ` +
        `${groupSize - initialRollouts} slots are left to branches`,
    );
  }
  if (beta !== 0) return;
  if (branchThreshold !== null) {
    const blamed = 'branchThreshold' in overrides ? 'branchThreshold' : 'beta';
    refuse(blamed, 'branchThreshold with beta 0 compares a constant: the entropy has no effect');
  }
  if (alpha === 0) refuse('alpha', "alpha 0 with beta 0 never branches; use branch 'none'");
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 100);
}

function refuse(name: string, message: string): never {
  throw new AppError('invalid_request', message, { param: `settings.${name}` });
}

function unsupported(name: string, message: string): never {
  throw new AppError('unsupported_parameter', message, { param: `settings.${name}` });
}
