/**
 * Training steps on demand, for scripts/parity/train_speed.py, which times PyTorch on the same
 * models and batch in turns with this process. `node dist/bench/train-steps.js --threads N --folder
 * DIR` writes each bench model (config.json, model.safetensors) and its batch into DIR and prints
 * their names; then every line of input `NAME` makes one step of that model, and one line of JSON
 * answers with its loss and seconds. Ends with its input.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { must } from '../core/assert.ts';
import { savePolicyModel } from '../core/model/policy-directory.ts';
import { createTrainingSession } from '../core/model/training-session.ts';
import type { TrainResult } from '../core/model/types.ts';
import { ADAMW_DEFAULTS, clipScale, initAdamW, updateAdamW } from '../core/trainer/adamw.ts';
import { benchModels, type BenchModel } from './models.ts';
import { secondsOf } from './report.ts';
import { BATCH_LOSS, trainBatch } from './train-batch.ts';

const { values } = parseArgs({
  options: { threads: { type: 'string' }, folder: { type: 'string' } },
});
const threads = Number(must(values.threads, '--threads'));
const folder = must(values.folder, '--folder');

const steppers = new Map(benchModels().map((model) => [model.name, stepper(model)]));
answer([...steppers.keys()]);
for await (const line of createInterface({ input: process.stdin })) {
  answer(await must(steppers.get(line), `a model named ${line}`)());
}

function answer(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

function stepper({ name, config, weights }: BenchModel) {
  const batch = trainBatch(config.vocabulary);
  const directory = join(folder, name);
  mkdirSync(directory, { recursive: true });
  savePolicyModel(directory, { config, weights });
  const plain = batch.map((row) => ({
    tokens: [...row.tokens],
    weights: [...row.weights],
    advantages: [...row.advantages],
    oldLogprobs: [...row.oldLogprobs],
  }));
  writeFileSync(join(directory, 'batch.json'), JSON.stringify(plain));
  const session = createTrainingSession(config, weights, { device: 'cpu', threads });
  const state = initAdamW(weights);
  return async () => {
    let result: TrainResult | null = null;
    const gradient = await secondsOf(async () => {
      result = await session.lossAndGradients(batch, BATCH_LOSS);
    });
    const { loss, gradients } = must<TrainResult>(result, 'result');
    const optimiser = await secondsOf(async () => {
      const { gradientScale } = clipScale(gradients, 1);
      const settings = { ...ADAMW_DEFAULTS, gradientScale, learningRate: 1e-5 };
      updateAdamW(weights, gradients, state, settings);
    });
    return { loss, gradient, optimiser };
  };
}
