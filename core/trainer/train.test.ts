/**
 * A whole run on a tiny real task: reward rises under a fixed seed, the gate lets the better policy
 * through and refuses one that was trained to be worse, a cancelled run leaves nothing behind.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must } from '../assert.ts';
import { formatSafetensors, parseSafetensors } from '../model/safetensors.ts';
import { directorySha256 } from './candidate.ts';
import { createBigramSampler, createBigramSession, tableOf } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';
import { train } from './train.ts';
import type { TrainerEvent, TrainingJob } from './types.ts';

let setting: ColourSetting;
let out: string;
beforeAll(() => {
  setting = createColourSetting();
  out = mkdtempSync(join(tmpdir(), 'ramify-train-'));
});
afterAll(() => {
  setting.remove();
  rmSync(out, { recursive: true });
});

const job = (change: Partial<TrainingJob> = {}): TrainingJob => ({
  runId: 'trn_test',
  algorithm: 'arpo',
  steps: 12,
  settings: {
    groupSize: 8,
    promptsPerStep: 4,
    learningRate: 0.3,
    warmupSteps: 2,
    gateTasks: 60,
    maxTokens: 40,
  },
  seed: 7,
  baseVersion: 1,
  baseDirectory: setting.directory,
  candidateDirectory: join(out, 'candidate'),
  trainTasks: colourTasks('red', 20),
  gateTasks: colourTasks('red', 60),
  threads: 1,
  ...change,
});

async function run(
  change: Partial<TrainingJob>,
  onEvent: (event: TrainerEvent) => void = () => undefined,
  signal: AbortSignal = new AbortController().signal,
) {
  const weights = setting.freshWeights();
  const session = createBigramSession(setting.config, weights);
  const sampler = Object.assign(createBigramSampler(setting.config, weights), {
    reload: async () => undefined,
  });
  const writeWeights = async (directory: string): Promise<void> =>
    writeFileSync(join(directory, 'model.safetensors'), formatSafetensors(weights));
  const { context } = setting;
  const parts = { sampler, session, context, clock: context.clock, writeWeights };
  const events: TrainerEvent[] = [];
  const emit = async (event: TrainerEvent): Promise<void> => {
    events.push(event);
    onEvent(event);
  };
  await train(job(change), parts, emit, signal);
  return { events, weights };
}

const steps = (events: readonly TrainerEvent[]) =>
  events.flatMap((event) => (event.type === 'step' ? [event] : []));

function candidateOf(events: readonly TrainerEvent[]) {
  const last = events.at(-1);
  return must(last?.type === 'candidate' ? last : null, 'the last event is the candidate');
}

describe('train', () => {
  it('raises the reward, passes the gate and writes what it trained', async () => {
    const { events, weights } = await run({});
    const rewards = steps(events).map((event) => event.values['reward_mean'] as number);
    expect(rewards[0]).toBeLessThan(0.5);
    expect(rewards.at(-1)).toBeGreaterThan(0.9);

    const { gate, directory, sha256 } = candidateOf(events);
    expect(gate).toMatchObject({ passed: true, tasks: 60 });
    expect(gate.base['all']?.accuracy).toBeLessThan(0.5);
    expect(gate.candidate['all']?.accuracy).toBeGreaterThan(0.9);
    expect(gate.candidate['sea']?.tasks).toBe(30);

    expect(sha256).toBe(await directorySha256(directory));
    expect(existsSync(join(directory, 'tokenizer.json'))).toBe(true);
    const file = join(directory, 'model.safetensors');
    expect(tableOf(parseSafetensors(readFileSync(file), file))).toEqual(tableOf(weights));
    expect(tableOf(weights)).not.toEqual(tableOf(setting.freshWeights()));
  });

  it('lets the learning rate fall by the steps of the run, not by its updates', async () => {
    const settings = { ...job().settings, warmupSteps: 0, finalRateRatio: 0, miniBatches: 2 };
    const { events } = await run({
      ...{ steps: 4, settings },
      candidateDirectory: join(out, 'falling-rate'),
    });
    const rates = steps(events).map(({ values }) => values['learning_rate'] ?? NaN);
    [0.3, 0.225, 0.15, 0.075].forEach((rate, i) => expect(rates[i]).toBeCloseTo(rate, 12));
  });

  it('tells of every step: settings first, the forests, the figures', async () => {
    const { events } = await run({ steps: 2, candidateDirectory: join(out, 'two-steps') });
    expect(events.map((event) => event.type)).toEqual([
      'started',
      ...Array.from({ length: 2 }, () => [
        ...Array.from({ length: 4 }, () => 'rollouts'),
        'step',
      ]).flat(),
      'candidate',
    ]);
    expect(events[0]).toMatchObject({ settings: { branch: 'paper', groupSize: 8, beta: 2 } });
    for (const event of events) {
      if (event.type !== 'rollouts') continue;
      expect(event.trajectories.length).toBe(8);
      const ids = new Set(event.steps.map((step) => step.id));
      for (const { leafStepId, trainingRunId, source } of event.trajectories) {
        expect(ids.has(leafStepId)).toBe(true);
        expect({ trainingRunId, source }).toEqual({ trainingRunId: 'trn_test', source: 'rollout' });
      }
      for (const { parentId } of event.steps)
        expect(parentId === null || ids.has(parentId)).toBe(true);
    }
    const [first, second] = steps(events);
    expect([first, second].map((step) => step?.counts.rollouts)).toEqual([32, 64]);
    const sampled =
      (first?.values['tokens_sampled'] ?? 0) + (second?.values['tokens_sampled'] ?? 0);
    expect(second?.counts.tokensSampled).toBe(sampled);
    expect(first?.values).toMatchObject({ rollouts: 32, clip_share: 0, importance_weight_max: 1 });
    // The recorded log-probabilities are those of the training session at the first mini-batch.
    expect(first?.values['logprob_drift_max']).toBeLessThan(1e-6);
    for (const value of Object.values(first?.values ?? {}))
      expect(Number.isFinite(value)).toBe(true);
  });

  it('does the same again with the same seed, and something else with another', async () => {
    const rewards = async (seed: number, name: string): Promise<unknown[]> => {
      const { events } = await run({ seed, steps: 3, candidateDirectory: join(out, name) });
      return steps(events).map(({ values }) => [values['reward_mean'], values['gradient_norm']]);
    };
    const first = await rewards(7, 'again-a');
    expect(await rewards(7, 'again-b')).toEqual(first);
    expect(await rewards(8, 'again-c')).not.toEqual(first);
  });

  it('refuses a policy that was trained on wrong answers, and keeps it to look at', async () => {
    const { events } = await run({
      trainTasks: colourTasks('blue', 20),
      candidateDirectory: join(out, 'worse'),
    });
    const { gate, directory } = candidateOf(events);
    expect(gate.passed).toBe(false);
    expect(gate.reason).toContain('accuracy may be worse');
    expect(gate.candidate['all']?.accuracy).toBeLessThan(0.1);
    expect(existsSync(join(directory, 'model.safetensors'))).toBe(true);
  });

  it('stops between phases when cancelled, without a candidate', async () => {
    const abort = new AbortController();
    const seen: string[] = [];
    const candidateDirectory = join(out, 'cancelled');
    const cancelled = run(
      { candidateDirectory },
      (event) => {
        seen.push(event.type);
        if (event.type === 'step' && event.step === 2) abort.abort(new Error('cancelled here'));
      },
      abort.signal,
    );
    await expect(cancelled).rejects.toThrow('cancelled here');
    expect(seen.filter((type) => type === 'step').length).toBe(2);
    expect(existsSync(candidateDirectory)).toBe(false);
  });

  it('refuses settings, and tasks that it cannot draw from, before any work', async () => {
    await expect(run({ settings: { groupSize: 1 } })).rejects.toMatchObject({
      code: 'invalid_request',
      param: 'settings.groupSize',
    });
    await expect(run({ gateTasks: [] })).rejects.toMatchObject({ code: 'invalid_request' });
  });
});
