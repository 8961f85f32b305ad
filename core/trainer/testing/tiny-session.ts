/**
 * A real transformer of a few thousand random parameters over the colour task's vocabulary, with
 * its training session: for tests of what is computed on groups that another policy sampled.
 */
import { TINY_CONFIGS, tinyWeights } from '../../model/testing/tiny-models.ts';
import { createTrainingSession } from '../../model/training-session.ts';
import type { ModelConfig, TrainingSession } from '../../model/types.ts';
import { Prng } from '../../prng.ts';
import type { ColourSetting } from './colour-task.ts';

/** The same weights at each call. */
export function createTinySession({ config: { vocabulary } }: ColourSetting): TrainingSession {
  const config = { ...(TINY_CONFIGS['qwen2'] as ModelConfig), vocabulary };
  const weights = tinyWeights(config, new Prng(8));
  return createTrainingSession(config, weights, { device: 'cpu', threads: 1 });
}
