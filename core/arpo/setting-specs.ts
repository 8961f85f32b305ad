/**
 * Type and range of every training setting, as data; settings.ts gives them meaning. Also the names
 * of arpo.md that this version knows but does not offer, so that they are refused as what they are.
 */
import { LIMITS } from '../limits.ts';
import { PROJECTIONS } from '../model/lora-targets.ts';

interface Range {
  min: number;
  max: number;
  /** Exclusive bounds, in the place of min or max. */
  above?: number;
  below?: number;
}

export type RangeSpec = { kind: 'integer' | 'number' | 'pair'; nullable?: boolean } & Range;

export type SettingSpec =
  | RangeSpec
  | { kind: 'choice'; values: readonly (string | boolean)[]; notOffered?: readonly string[] }
  /** One of `words`, or a list of some of `names`. */
  | { kind: 'names'; names: readonly string[]; words: readonly string[] };

const integer = (min: number, max: number): SettingSpec => ({ kind: 'integer', min, max });
const number = (min: number, max: number, open: Partial<Range> = {}): SettingSpec => ({
  kind: 'number',
  min,
  max,
  ...open,
});

export const SPECS = {
  groupSize: integer(2, LIMITS.sampleQueueMax),
  initialRollouts: integer(1, LIMITS.sampleQueueMax),
  branch: {
    kind: 'choice',
    values: ['paper', 'none'],
    notOffered: ['released-code', 'aepo', 'deferred', 'random', 'surprisal'],
  },
  alpha: number(0, 1),
  beta: number(-1_000, 1_000),
  branchThreshold: { kind: 'number', nullable: true, min: 0, max: 1, below: 1 },
  beamSize: integer(2, LIMITS.sampleQueueMax),
  entropy: { kind: 'choice', values: ['full', 'max'], notOffered: ['released-code'] },
  entropyTokens: integer(1, 1_000),
  maxToolCalls: integer(0, LIMITS.toolCallsMax),
  maxTokens: integer(1, 65_536),
  temperature: number(0, 2, { above: 0 }),
  promptsPerStep: integer(1, LIMITS.sequencesMax),
  learningRate: number(0, 1, { above: 0 }),
  warmupSteps: integer(0, LIMITS.trainingStepsMax),
  miniBatches: integer(1, LIMITS.sequencesMax),
  gradientClip: number(0, 1_000, { above: 0 }),
  weightDecay: number(0, 1),
  betas: { kind: 'pair', min: 0, max: 1, below: 1 },
  epsLow: number(0, 1, { above: 0, below: 1 }),
  epsHigh: number(0, 100, { above: 0 }),
  dualClip: number(1, 1_000, { above: 1 }),
  normalise: { kind: 'choice', values: ['std', 'mean'] },
  attribution: { kind: 'choice', values: ['soft'], notOffered: ['hard', 'tree'] },
  multiToolBonus: number(0, 1),
  training: { kind: 'choice', values: ['full', 'lora'] },
  loraRank: integer(1, LIMITS.loraRankMax),
  loraAlpha: number(0, 10_000, { above: 0 }),
  loraTargets: { kind: 'names', names: PROJECTIONS, words: ['all-linear'] },
  rsLora: { kind: 'choice', values: [true, false] },
  gateTasks: integer(1, 10_000),
  tolerance: number(0, 1),
} as const satisfies Record<string, SettingSpec>;

export type SettingName = keyof typeof SPECS;

/** Settings of arpo.md that exist in the method but not here yet. */
export const NOT_OFFERED: ReadonlySet<string> = new Set([
  'forksPerPoint',
  'tau',
  'w',
  'p0',
  'aggregate',
  'clip',
  'dynamicSampling',
  'maxResample',
  'maxStaleness',
]);
