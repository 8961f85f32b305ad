/**
 * The typed settings of a training run, by the names of arpo.md, with defaults for the embedded
 * policy. Overrides are checked in full before a run starts: an unknown name, a wrong type, a value
 * out of range, and a setting that would do nothing in the chosen combination are refused by name,
 * because a setting that is silently ignored makes a wrong experiment.
 *
 * What parseSettings returns holds only settings that are in force, so it can be stored as the
 * run's record and parsed again (by the trainer process) to the same object. The settings stand by
 * part: rollout-settings.ts, loss-settings.ts, trainer-settings.ts.
 */
import { LIMITS } from '../limits.ts';
import { lossSettings, LOSS_SPECS, type LossSettings, type Source } from './loss-settings.ts';
import {
  rolloutSettings,
  ROLLOUT_SPECS,
  type Algorithm,
  type RolloutSettings,
} from './rollout-settings.ts';
import { checkValue, refuse, type Overrides } from './setting-check.ts';
import type { SettingSpec } from './setting-specs.ts';
import { trainerSettings, TRAINER_SPECS, type TrainerSettings } from './trainer-settings.ts';

export { entropySettings, episodeLimits, type Algorithm } from './rollout-settings.ts';

export type ArpoSettings = RolloutSettings & LossSettings & TrainerSettings;

/** Every setting that there is. */
export const SPECS: Readonly<Record<string, SettingSpec>> = {
  ...ROLLOUT_SPECS,
  ...LOSS_SPECS,
  ...TRAINER_SPECS,
};

/**
 * The settings in force for an algorithm: defaults and overrides. `arpo` branches by the paper's
 * rule unless told otherwise; `grpo` is branch `none` with every rollout from the prompt. A base
 * that is an adapter (`lora`) is trained on as one. Throws invalid_request; `param` is
 * `settings.NAME`.
 */
export function parseSettings(
  algorithm: Algorithm,
  overrides: Overrides = {},
  base: 'full' | 'lora' = 'full',
  source: Source = 'tasks',
): ArpoSettings {
  for (const [name, value] of Object.entries(overrides)) checkOne(name, value);
  const rollout = rolloutSettings(algorithm, overrides);
  if (source !== 'tasks' && rollout.entropy === 'released-code') {
    refuse(
      'entropy',
      "entropy 'released-code' is not measured when logged conversations are scored anew; use " +
        "'full' or 'max' with them",
    );
  }
  const trainer = trainerSettings(overrides, base, source);
  const loss = lossSettings(overrides, {
    updatesPerStep: trainer.miniBatches * trainer.epochs,
    branches: rollout.branch !== 'none',
    temperature: rollout.temperature,
    groupSize: rollout.groupSize,
    maxToolCalls: rollout.maxToolCalls,
    rolloutLag: trainer.rolloutLag,
    source,
  });
  const open = rollout.groupSize * trainer.promptsPerStep;
  if (open > LIMITS.sequencesMax) {
    refuse(
      'groupSize' in overrides ? 'groupSize' : 'promptsPerStep',
      `groupSize ${rollout.groupSize} times promptsPerStep ${trainer.promptsPerStep} is ${open} ` +
        `trajectories a step; at most ${LIMITS.sequencesMax} fit`,
    );
  }
  return { ...rollout, ...loss, ...trainer };
}

function checkOne(name: string, value: unknown): void {
  const spec = Object.hasOwn(SPECS, name) ? SPECS[name] : undefined;
  if (spec === undefined) {
    refuse(name, `unknown setting '${name}'; known: ${Object.keys(SPECS).join(', ')}`);
  }
  checkValue(name, value, spec);
}
