/**
 * The trainer on a real transformer: engine, training graph, optimiser and gate together. A bigram
 * teacher that guesses the colour gives the cold start; the run must learn the colour from rewards.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { rolloutGroups } from '../arpo/rollout.ts';
import { parseSettings } from '../arpo/settings.ts';
import { trainRows } from '../arpo/train-rows.ts';
import { createLocalEngine } from '../engine/local-engine.ts';
import { initialWeights } from '../model/parameters.ts';
import { savePolicyModel } from '../model/policy-directory.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { ModelConfig, TrainRow, Weights } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { ADAMW_DEFAULTS, clipGradients, initAdamW, updateAdamW } from './adamw.ts';
import { accumulateGradients } from './micro-batch.ts';
import { createBigramSampler } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';
import { train } from './train.ts';
import type { TrainerEvent } from './types.ts';

const RUNTIME = { device: 'cpu', threads: 1 } as const;
const LOSS = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3 };

let setting: ColourSetting;
let out: string;
beforeAll(() => {
  setting = createColourSetting();
  out = mkdtempSync(join(tmpdir(), 'ramify-train-model-'));
});
afterAll(() => {
  setting.remove();
  rmSync(out, { recursive: true });
});

const modelConfig = (vocabulary: number): ModelConfig => ({
  modelType: 'llama',
  layers: 1,
  hidden: 32,
  heads: 2,
  kvHeads: 1,
  headDim: 16,
  intermediate: 64,
  vocabulary,
  contextTokens: 96,
  ropeTheta: 10_000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
});

/** Traces of the teacher as rows of weight 1. */
async function traces(): Promise<TrainRow[]> {
  const groups = await rolloutGroups({
    sampler: createBigramSampler(setting.config, setting.freshWeights()),
    context: setting.context,
    tasks: colourTasks('red', 16),
    settings: parseSettings('grpo', { groupSize: 8, maxTokens: 40, promptsPerStep: 16 }),
    seed: 2,
    runId: null,
    version: 1,
    source: 'rollout',
  });
  return groups.flatMap((group) => trainRows(group, new Array<number>(8).fill(1)));
}

async function coldStart(config: ModelConfig, weights: Weights): Promise<void> {
  const session = createTrainingSession(config, weights, { ...RUNTIME, objective: 'likelihood' });
  const rows = await traces();
  const optimiser = initAdamW(weights);
  for (let step = 0; step < 60; step++) {
    const batch = rows.filter((_, i) => i % 4 === step % 4);
    const { gradients } = await accumulateGradients(session, batch, LOSS, { tokenBudget: 4_096 });
    clipGradients(gradients, 1);
    updateAdamW(weights, gradients, optimiser, { ...ADAMW_DEFAULTS, learningRate: 1e-2 });
  }
  await session.dispose();
}

it('learns from rewards on a real model, and logs what it samples exactly', async () => {
  const config = modelConfig(setting.context.tokenizer.vocabularySize);
  const weights = initialWeights(config, new Prng(4));
  await coldStart(config, weights);
  const session = createTrainingSession(config, weights, RUNTIME);
  const sampler = await createLocalEngine({ config, weights, version: 1, ...RUNTIME });
  const { context } = setting;
  const events: TrainerEvent[] = [];
  await train(
    {
      runId: 'trn_test',
      algorithm: 'arpo',
      steps: 12,
      settings: {
        groupSize: 8,
        promptsPerStep: 4,
        learningRate: 3e-3,
        warmupSteps: 2,
        gateTasks: 60,
        maxTokens: 40,
      },
      seed: 1,
      baseVersion: 1,
      baseDirectory: setting.directory,
      candidateDirectory: join(out, 'candidate'),
      trainTasks: colourTasks('red', 20),
      gateTasks: colourTasks('red', 60),
      threads: 1,
    },
    {
      sampler,
      session,
      context,
      clock: context.clock,
      writeWeights: async (directory) => savePolicyModel(directory, { config, weights }),
    },
    async (event) => void events.push(event),
    new AbortController().signal,
  );
  await sampler.close();
  await session.dispose();

  const steps = events.flatMap((event) => (event.type === 'step' ? [event.values] : []));
  for (const values of steps) expect(values['logprob_drift_max']).toBeLessThan(1e-4);
  const last = events.at(-1);
  expect(last?.type === 'candidate' && last.gate).toMatchObject({ passed: true });
  const gate = last?.type === 'candidate' ? last.gate : null;
  expect(gate?.base['all']?.accuracy).toBeLessThan(0.5);
  expect(gate?.candidate['all']?.accuracy).toBeGreaterThan(0.8);
  expect(readFileSync(join(out, 'candidate', 'model.safetensors')).length).toBeGreaterThan(1_000);
});
