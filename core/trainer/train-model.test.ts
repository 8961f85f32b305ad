/**
 * The trainer on a real transformer: engine, training graph, optimiser and gate together. A bigram
 * teacher that guesses the colour gives the cold start; the run must learn the colour from rewards,
 * in all weights or in an adapter.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { evalScores, evaluateTasks } from '../arpo/evaluate.ts';
import { rolloutGroups } from '../arpo/rollout.ts';
import { parseSettings } from '../arpo/settings.ts';
import { trainRows } from '../arpo/train-rows.ts';
import { createLocalEngine, LocalEngine } from '../engine/local-engine.ts';
import { loadAdapter, loadPolicy } from '../model/lora-directory.ts';
import { initialWeights } from '../model/parameters.ts';
import { loadPolicyModel, savePolicyModel } from '../model/policy-directory.ts';
import { heldWeights } from '../model/stored-weights.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { ModelConfig, TrainRow, Weights } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { ADAMW_DEFAULTS, clipScale, initAdamW, updateAdamW } from './adamw.ts';
import { accumulateGradients } from './micro-batch.ts';
import { createBigramSampler } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';
import { train } from './train.ts';
import { openTrainedPolicy } from './trained-policy.ts';
import type { TrainerEvent, TrainingJob } from './types.ts';

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
  return groups.flatMap((group) => trainRows(group, parseSettings('grpo')));
}

async function coldStart(config: ModelConfig, weights: Weights): Promise<void> {
  const session = createTrainingSession(config, weights, { ...RUNTIME, objective: 'likelihood' });
  const rows = await traces();
  const optimiser = initAdamW(weights);
  for (let step = 0; step < 60; step++) {
    const batch = rows.filter((_, i) => i % 4 === step % 4);
    const { gradients } = await accumulateGradients(session, batch, LOSS, { tokenBudget: 4_096 });
    const { gradientScale } = clipScale(gradients, 1);
    const settings = { ...ADAMW_DEFAULTS, gradientScale, learningRate: 1e-2 };
    updateAdamW(weights, gradients, optimiser, settings);
  }
  await session.dispose();
}

const SETTINGS = {
  groupSize: 8,
  promptsPerStep: 4,
  learningRate: 3e-3,
  warmupSteps: 2,
  gateTasks: 60,
  maxTokens: 40,
};

const jobOf = (change: Partial<TrainingJob>): TrainingJob => ({
  runId: 'trn_test',
  algorithm: 'arpo',
  steps: 12,
  settings: SETTINGS,
  seed: 1,
  baseVersion: 1,
  baseDirectory: setting.directory,
  candidateDirectory: join(out, 'candidate'),
  trainTasks: colourTasks('red', 20),
  gateTasks: colourTasks('red', 60),
  threads: 1,
  ...change,
});

/** A base that knows the format and guesses the colour, as files beside the text files. */
async function writeBase(): Promise<Weights> {
  const config = modelConfig(setting.context.tokenizer.vocabularySize);
  const weights = initialWeights(config, new Prng(4));
  await coldStart(config, weights);
  savePolicyModel(setting.directory, { config, weights });
  return weights;
}

/** Runs a job on a real model; the accuracy of its candidate, after a base that guesses. */
async function learn(job: TrainingJob): Promise<number> {
  const { context } = setting;
  const settings = parseSettings(job.algorithm, job.settings, job.baseKind);
  const { model, ...trained } = openTrainedPolicy(job, settings, RUNTIME);
  const sampler = await createLocalEngine({ ...model, version: 1, ...RUNTIME });
  const events: TrainerEvent[] = [];
  await train(
    job,
    { ...trained, sampler, context, clock: context.clock },
    async (event) => void events.push(event),
    new AbortController().signal,
  );
  await sampler.close();
  await trained.session.dispose();

  const steps = events.flatMap((event) => (event.type === 'step' ? [event.values] : []));
  for (const values of steps) expect(values['logprob_drift_max']).toBeLessThan(1e-4);
  const last = events.at(-1);
  expect(last?.type === 'candidate' && last.gate).toMatchObject({ passed: true });
  const gate = last?.type === 'candidate' ? last.gate : null;
  expect(gate?.base['all']?.accuracy).toBeLessThan(0.5);
  return gate?.candidate['all']?.accuracy ?? 0;
}

it('learns from rewards on a real model, and logs what it samples exactly', async () => {
  const base = await writeBase();
  expect(await learn(jobOf({}))).toBeGreaterThan(0.8);
  const { weights } = loadPolicyModel(join(out, 'candidate'));
  for (const [name, { data }] of base) expect(weights.get(name)?.data, name).not.toEqual(data);
});

it('learns in an adapter too, over a base that stays, and the engine serves it', async () => {
  const base = await writeBase();
  const settings = { ...SETTINGS, training: 'lora', loraRank: 8, loraAlpha: 16 };
  const first = join(out, 'adapter');
  const job = jobOf({ settings, steps: 20, candidateDirectory: first });
  expect(await learn(job)).toBeGreaterThan(0.7);
  const made = loadAdapter(first);
  expect(heldWeights(made.baseWeights())).toEqual(base);
  for (const [name, { data }] of made.adapter.weights) {
    if (name.includes('lora_B'))
      expect(
        data.some((value) => value !== 0),
        name,
      ).toBe(true);
  }

  const engine = new LocalEngine(RUNTIME);
  await engine.load(2, loadPolicy(first));
  const answered = await evaluateTasks({
    sampler: engine,
    context: setting.context,
    tasks: colourTasks('red', 20),
    version: 2,
    limits: { maxToolCalls: 6, maxTokens: 40 },
    temperature: 1,
    seed: 3,
    runId: null,
  });
  await engine.close();
  expect(evalScores(answered)['all']?.accuracy).toBeGreaterThan(0.7);
});
