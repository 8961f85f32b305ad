/**
 * Every loss in the packed form against the flat one, which is the definition: all clip rules, with
 * and without the divergence from a reference and the entropy bonus, through a whole model.
 */
import { expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import type { ClipRule } from './policy-loss.ts';
import { randomForest } from './testing/random-forests.ts';
import { TINY_CONFIGS, tinyWeights } from './testing/tiny-models.ts';
import { createTrainingSession } from './training-session.ts';
import type { LossSettings, ModelConfig } from './types.ts';

const SHAPE = { vocabulary: 37, rowsMax: 10, tokensMax: 24 };

const LOSSES = (['ppo', 'entropy-balanced', 'gspo', 'cispo'] as ClipRule[]).flatMap((clip) =>
  [0, 0.2].flatMap((klCoefficient) =>
    [0, 0.1, -0.1].map((entropyCoefficient): LossSettings => ({
      ...{ clip, klCoefficient, entropyCoefficient },
      ...{ epsLow: 0.2, epsHigh: 0.28, dualClip: 3, weightSum: 17 },
    })),
  ),
);

it.each(LOSSES)('$clip, reference $klCoefficient, entropy $entropyCoefficient', async (loss) => {
  const prng = new Prng(43);
  const config = TINY_CONFIGS.qwen2 as ModelConfig;
  const session = createTrainingSession(config, tinyWeights(config, prng), {
    device: 'cpu',
    threads: 1,
  });
  for (let trial = 0; trial < 5; trial++) {
    const rows = randomForest(prng, SHAPE).map((row) => {
      const near = () => row.oldLogprobs.map((logp) => logp + 0.3 * prng.gaussian());
      return { ...row, behaviourLogprobs: near(), referenceLogprobs: near() };
    });
    const flat = await session.lossAndGradients(rows, loss, 'flat');
    const packed = await session.lossAndGradients(rows, loss, 'packed');
    const size = Math.max(1, Math.abs(flat.loss));
    expect(Math.abs(packed.loss - flat.loss)).toBeLessThan(1e-6 * size);
    for (const [name, expected] of flat.gradients) {
      const actual = packed.gradients.get(name)!;
      const norm = (of: (i: number) => number) =>
        Math.hypot(...Array.from(expected, (_, i) => of(i)));
      const error = norm((i) => actual[i]! - expected[i]!);
      expect(error, name).toBeLessThan(
        1e-4 *
          Math.max(
            norm((i) => expected[i]!),
            1e-6,
          ),
      );
    }
  }
  await session.dispose();
});
