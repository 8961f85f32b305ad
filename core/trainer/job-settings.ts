/** The settings in force for a job: what its algorithm, base and data make of its overrides. */
import { parseSettings, type ArpoSettings } from '../arpo/settings.ts';
import type { TrainingJob } from './types.ts';

/** Throws invalid_request that names the setting. */
export function settingsOf(
  job: Pick<TrainingJob, 'algorithm' | 'settings' | 'baseKind' | 'liveSamples' | 'trainTasks'>,
): ArpoSettings {
  const { algorithm, settings, baseKind, liveSamples, trainTasks } = job;
  const both = trainTasks.length > 0 ? 'both' : 'live';
  return parseSettings(algorithm, settings, baseKind, liveSamples === undefined ? 'tasks' : both);
}
