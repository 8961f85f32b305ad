/**
 * npm run bench:train: tokens a second of one training step on 8 rows of 256 predictions: forward
 * and backward of the policy loss, then AdamW. Also the rate of scoring alone, for comparison.
 */
import { must } from '../core/assert.ts';
import { parameterCount } from '../core/model/parameters.ts';
import { createTrainingSession } from '../core/model/training-session.ts';
import { ADAMW_DEFAULTS, clipScale, initAdamW, updateAdamW } from '../core/trainer/adamw.ts';
import { benchModels, type BenchModel } from './models.ts';
import { benchOptions, median, printTable, recordResults, secondsOf, type Row } from './report.ts';
import { BATCH_LOSS, BATCH_TOKENS, trainBatch } from './train-batch.ts';

const options = benchOptions(5);
const rows: Row[] = [];
for (const model of benchModels()) rows.push(await benchModel(model));
printTable(rows);
recordResults('train', options, rows);

async function benchModel({ name, config, weights }: BenchModel): Promise<Row> {
  const session = createTrainingSession(config, weights, {
    device: 'cpu',
    threads: options.threads,
  });
  const batch = trainBatch(config.vocabulary);
  const state = initAdamW(weights);
  const times = { score: [] as number[], gradient: [] as number[], optimiser: [] as number[] };
  // The first repeat makes the sessions and is not counted.
  for (let repeat = 0; repeat <= options.repeats; repeat++) {
    const score = await secondsOf(() => session.score(batch.map(({ tokens }) => tokens)));
    let gradients: Map<string, Float32Array> | null = null;
    const gradient = await secondsOf(async () => {
      gradients = (await session.lossAndGradients(batch, BATCH_LOSS)).gradients;
    });
    const optimiser = await secondsOf(async () => {
      const found = must<Map<string, Float32Array>>(gradients, 'gradients');
      const { gradientScale } = clipScale(found, 1);
      const settings = { ...ADAMW_DEFAULTS, gradientScale, learningRate: 1e-5 };
      updateAdamW(weights, found, state, settings);
    });
    if (repeat === 0) continue;
    times.score.push(score);
    times.gradient.push(gradient);
    times.optimiser.push(optimiser);
  }
  await session.dispose();
  const parameters = parameterCount(config);
  const forwardBackward = median(times.gradient);
  return {
    model: name,
    parameters,
    'score tok/s': BATCH_TOKENS / median(times.score),
    'forward+backward tok/s': BATCH_TOKENS / forwardBackward,
    // 6 operations a parameter and token, the usual count; attention comes on top.
    'GFLOP/s': (6 * parameters * BATCH_TOKENS) / forwardBackward / 1e9,
    'AdamW ms': median(times.optimiser) * 1000,
    'step tok/s': BATCH_TOKENS / (forwardBackward + median(times.optimiser)),
  };
}
