/**
 * A process of bench/packed-scale.ts: `FORM GROUP PROMPT THREADS`. Every line `step` of its input
 * makes one training step on one branched group, and one line of JSON answers. Ends with its input.
 *
 * Random weights of the shipped policy's shape, with a window for the longest rows. A row has 64
 * sampled tokens, half of them before a tool's result of 32 and half after it.
 */
import { createInterface } from 'node:readline';
import { must } from '../core/assert.ts';
import { initialWeights } from '../core/model/parameters.ts';
import { createTrainingSession } from '../core/model/training-session.ts';
import { Prng } from '../core/prng.ts';
import { ADAMW_DEFAULTS, clipScale, initAdamW, updateAdamW } from '../core/trainer/adamw.ts';
import { tokensPerRun } from '../core/trainer/memory-budget.ts';
import {
  accumulateGradients,
  weightSumOf,
  type MiniBatchResult,
} from '../core/trainer/micro-batch.ts';
import type { Packing } from '../core/trainer/pack-plan.ts';
import { longWindow, RowMaker } from './forest-rows.ts';
import { peakMiB } from './measured-child.ts';
import { benchModels } from './models.ts';
import { spentOn, type Spent } from './report.ts';
import { BATCH_LOSS } from './train-batch.ts';

type Counts = Pick<
  MiniBatchResult,
  'tokensForwarded' | 'tokensTrained' | 'microBatches' | 'packedMicroBatches'
>;

export interface ScaleStep extends Counts, Spent {
  /** Null where the system does not tell. */
  peakMiB: number | null;
}

const STEP_TOKENS = 32;

const [packing, ...numbers] = process.argv.slice(2) as [Packing, ...string[]];
const [group, prompt, threads] = numbers.map(Number) as [number, number, number];
const shipped = must(
  benchModels().find(({ name }) => name === 'embedded'),
  'policies/embedded',
);
const config = longWindow(shipped.config);
const weights = initialWeights(config, new Prng(1));
const rows = new RowMaker(new Prng(9), config.vocabulary).branched(group, prompt, STEP_TOKENS);
const loss = { ...BATCH_LOSS, weightSum: weightSumOf(rows) };
const session = createTrainingSession(config, weights, { device: 'cpu', threads });
const state = initAdamW(weights);
const tokenBudget = tokensPerRun(config);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'step') process.stdout.write(`${JSON.stringify(await step())}\n`);
}
await session.dispose();

async function step(): Promise<ScaleStep> {
  let result: MiniBatchResult | null = null;
  const spent = await spentOn(async () => {
    result = await accumulateGradients(session, rows, loss, { tokenBudget, packing });
    const { gradientScale } = clipScale(result.gradients, 1);
    const settings = { ...ADAMW_DEFAULTS, gradientScale, learningRate: 1e-5 };
    updateAdamW(weights, result.gradients, state, settings);
  });
  const { tokensForwarded, tokensTrained, microBatches, packedMicroBatches } =
    must<MiniBatchResult>(result, 'result');
  return {
    ...spent,
    tokensForwarded,
    tokensTrained,
    microBatches,
    packedMicroBatches,
    peakMiB: peakMiB(),
  };
}
