/**
 * Supervised cold start (arXiv 2507.19849 cold-starts before RL): maximum likelihood on traces with
 * deliberate mistakes, drawn afresh for every batch. The first part of the training sees ideal
 * traces only, which teaches copying and following a chain sooner; the rest mixes the mistakes in,
 * and what the policy does in the end is what they say.
 */
import type { AdamWSettings } from '../../core/trainer/adamw.ts';
import { clipScale, initAdamW, updateAdamW } from '../../core/trainer/adamw.ts';
import { accumulateGradients } from '../../core/trainer/micro-batch.ts';
import type { TrainingSession, TrainRow } from '../../core/model/types.ts';

export interface ColdStartOptions {
  session: TrainingSession;
  steps: number;
  rowsPerStep: number;
  /** Peak rate: linear warm-up, then linear decay to a tenth. */
  learningRate: number;
  warmupSteps: number;
  /** Tokens of one micro-batch, padding included. */
  microBatchTokens: number;
  rows(step: number, count: number): TrainRow[];
  onStep(step: number, loss: number): Promise<void> | void;
}

export async function coldStart(options: ColdStartOptions): Promise<void> {
  const { session, steps } = options;
  const state = initAdamW(session.weights);
  for (let step = 1; step <= steps; step++) {
    const rows = options.rows(step, options.rowsPerStep);
    const result = await accumulateGradients(session, rows, UNUSED_CLIPS, {
      tokenBudget: options.microBatchTokens,
    });
    const { gradientScale } = clipScale(result.gradients, 1);
    updateAdamW(session.weights, result.gradients, state, {
      ...ADAMW,
      gradientScale,
      learningRate: rateAt(step, options),
    });
    await options.onStep(step, result.loss);
  }
}

/** The likelihood objective has no ratio to clip. */
const UNUSED_CLIPS = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3 };

const ADAMW: Omit<AdamWSettings, 'learningRate'> = {
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0.01,
};

function rateAt(step: number, { learningRate, warmupSteps, steps }: ColdStartOptions): number {
  const warm = Math.min(1, step / warmupSteps);
  const left = 1 - (0.9 * Math.max(0, step - warmupSteps)) / Math.max(1, steps - warmupSteps);
  return learningRate * warm * left;
}
