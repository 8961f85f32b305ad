/** Settings of rewards, advantages and the loss (arpo.md sections 4 to 6). */
import { given, refuse, type Overrides } from './setting-check.ts';
import { choice, number, type SettingSpec } from './setting-specs.ts';

export interface LossSettings {
  normalise: 'std' | 'mean';
  attribution: 'soft';
  epsLow: number;
  epsHigh: number;
  dualClip: number;
  multiToolBonus: number;
}

export const LOSS_SPECS = {
  normalise: choice('std', 'mean'),
  attribution: choice('soft'),
  epsLow: number(0, 1, { above: 0, below: 1 }),
  epsHigh: number(0, 100, { above: 0 }),
  dualClip: number(1, 1_000, { above: 1 }),
  multiToolBonus: number(0, 1),
} as const satisfies Record<keyof LossSettings, SettingSpec>;

const DEFAULTS: LossSettings = {
  normalise: 'std',
  attribution: 'soft',
  epsLow: 0.2,
  epsHigh: 0.2,
  dualClip: 3,
  multiToolBonus: 0.1,
};

const NAMES = Object.keys(DEFAULTS) as (keyof LossSettings)[];
const CLIP_NAMES = ['epsLow', 'epsHigh', 'dualClip'] as const;

/** What the loss settings depend on of the others. */
export interface LossSurroundings {
  /** Updates with one set of rollouts; at the first the ratio is 1. */
  updatesPerStep: number;
}

/** Defaults, overrides (whose values were checked one by one), and what they mean together. */
export function lossSettings(overrides: Overrides, around: LossSurroundings): LossSettings {
  const settings = { ...DEFAULTS, ...given(overrides, NAMES) } as LossSettings;
  if (around.updatesPerStep === 1) {
    for (const name of CLIP_NAMES) {
      if (settings[name] !== DEFAULTS[name]) {
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
  return settings;
}
