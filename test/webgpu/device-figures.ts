/**
 * A process that computes on one device what device.test.ts compares between two: a policy sampled
 * by the engine (prompts of two lengths, so prefill and the decode Loop run over a cache), and one
 * training step with all its gradients. `node device-figures.js DEVICE POLICY-FOLDER` prints them
 * as JSON. A fault of a driver ends only this process.
 */
import { LocalEngine } from '../../core/engine/local-engine.ts';
import { loadPolicyModel } from '../../core/model/policy-directory.ts';
import type { Device } from '../../core/model/session.ts';
import { createTrainingSession } from '../../core/model/training-session.ts';
import { Prng } from '../../core/prng.ts';

export interface DeviceFigures {
  /** Of each sequence; logprobs and entropies are those of its sampled tokens. */
  sampled: { tokens: number[]; logprobs: number[]; entropies: number[] }[];
  loss: number;
  /** Of each token of the training rows. */
  logprobs: number[][];
  gradients: Record<string, number[]>;
}

const PROMPTS = [70, 9];
/** More than two chunks of the decode graph. */
const SAMPLED = 40;
const ROWS = [24, 17];

const [device, folder] = process.argv.slice(2) as [Device, string];
const session = { device, threads: 1 };
const model = loadPolicyModel(folder);
const prng = new Prng(7);
const draw = (length: number) =>
  Uint32Array.from({ length }, () => prng.below(model.config.vocabulary));
const sampled = await sampleAll();
const { loss, logprobs, gradients } = await trainOnce();
const figures: DeviceFigures = {
  sampled,
  loss,
  logprobs: logprobs.map((row) => [...row]),
  gradients: Object.fromEntries([...gradients].map(([name, data]) => [name, [...data]])),
};
process.stdout.write(JSON.stringify(figures));

async function sampleAll(): Promise<DeviceFigures['sampled']> {
  const engine = new LocalEngine(session);
  await engine.load(1, model);
  const results = await Promise.all(
    PROMPTS.map((length, seed) => {
      const sequence = engine.open({ policyVersion: 1 });
      sequence.append(draw(length));
      const sampling = { temperature: 1, topP: seed === 0 ? 1 : 0.9, topK: 0, seed };
      return sequence.sample({ maxTokens: SAMPLED, sampling, stopTokens: [] });
    }),
  );
  await engine.close();
  return results.map((result) => ({
    tokens: [...result.tokens],
    logprobs: [...result.logprobs],
    entropies: [...result.entropies],
  }));
}

async function trainOnce() {
  const rows = ROWS.map((length) => ({
    tokens: draw(length),
    weights: Float32Array.from({ length }, (_, t) => Number(t > 2)),
    advantages: Float32Array.from({ length }, () => prng.gaussian()),
    oldLogprobs: new Float32Array(length).fill(-Math.log(model.config.vocabulary)),
  }));
  const loss = { epsLow: 0.2, epsHigh: 0.3, dualClip: 3, weightSum: 35 };
  const training = createTrainingSession(model.config, model.weights, session);
  const result = await training.lossAndGradients(rows, loss);
  await training.dispose();
  return result;
}
