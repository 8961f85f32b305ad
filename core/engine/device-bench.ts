/**
 * A process that measures one device on one policy and prints a JSON line after each part, so that
 * a time-out keeps what was done: which provider ran the nodes of each graph, then decoded tokens a
 * second, then trained tokens a second. Started by measure-device.ts:
 * `node device-bench.js DEVICE DTYPE THREADS POLICY-FOLDER WORK-FOLDER`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadPolicyModel } from '../model/policy-directory.ts';
import type { Device } from '../model/session.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { ComputeType, TrainRow } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { LocalEngine } from './local-engine.ts';
import type { BenchLine, GraphPlacement } from './measure-device.ts';

const PROMPT = 100;
const WARM_TOKENS = 32;
const TIMED_TOKENS = 64;
const BATCHES = [1, 8];
const TRAIN_ROWS = 4;
const TRAIN_TOKENS = 128;
const REPEATS = 3;

const [device, dtype, threads, folder, work] = process.argv.slice(2) as [
  Device,
  ComputeType,
  string,
  string,
  string,
];
const runtime = { device, threads: Number(threads) };
const model = loadPolicyModel(folder);
const prng = new Prng(1);
const print = (line: BenchLine) => process.stdout.write(`${JSON.stringify(line)}\n`);

await placeEngine();
await measureDecode();
if (dtype === 'f32') {
  await placeTraining();
  await measureTraining();
}

/** Prefill and decode, profiled on one short row. */
async function placeEngine(): Promise<void> {
  const engine = new LocalEngine({ ...runtime, dtype, profile: join(work, 'engine') });
  await engine.load(1, model);
  await sampleRows(engine, 1, 2, 16);
  await engine.close();
  printPlacements('engine');
}

async function placeTraining(): Promise<void> {
  const profile = join(work, 'training');
  const training = createTrainingSession(model.config, model.weights, { ...runtime, profile });
  await training.lossAndGradients(trainRows(1, 16), lossSettings(16));
  await training.dispose();
  printPlacements('training');
}

function printPlacements(prefix: string): void {
  const files = readdirSync(work).filter((name) => name.startsWith(prefix));
  print({ graphs: files.map(placementOf).filter(wasRun) });
}

function wasRun({ providers }: GraphPlacement): boolean {
  return Object.keys(providers).length > 0;
}

interface ProfileEvent {
  cat: string;
  name: string;
  args?: { provider?: string; op_name?: string };
}

/** Of the engine's graphs only decode has a Loop. */
function placementOf(file: string): GraphPlacement {
  const events = JSON.parse(readFileSync(join(work, file), 'utf8')) as ProfileEvent[];
  const nodes = new Map<string, { provider: string; op: string }>();
  for (const { cat, name, args } of events) {
    if (cat !== 'Node' || args?.provider === undefined || args.op_name === undefined) continue;
    nodes.set(name, { provider: providerName(args.provider), op: args.op_name });
  }
  const providers: Record<string, number> = {};
  const elsewhere = new Set<string>();
  for (const { provider, op } of nodes.values()) {
    providers[provider] = (providers[provider] ?? 0) + 1;
    if (provider !== device) elsewhere.add(op);
  }
  const loops = [...nodes.values()].some(({ op }) => op === 'Loop');
  const graph = file.startsWith('training') ? 'training' : loops ? 'decode' : 'prefill';
  return { graph, providers, elsewhere: [...elsewhere].sort() };
}

/** `WebGpuExecutionProvider` -> `webgpu`. */
function providerName(provider: string): string {
  return provider.replace('ExecutionProvider', '').toLowerCase();
}

async function measureDecode(): Promise<void> {
  const engine = new LocalEngine({ ...runtime, dtype });
  await engine.load(1, model);
  for (const batch of BATCHES) {
    await sampleRows(engine, batch, PROMPT, WARM_TOKENS);
    const rates: number[] = [];
    for (let repeat = 0; repeat < REPEATS; repeat++) {
      const seconds = await sampleRows(engine, batch, PROMPT, TIMED_TOKENS);
      rates.push((batch * TIMED_TOKENS) / seconds);
    }
    print({ decode: { batch, tokensPerSecond: median(rates) } });
  }
  await engine.close();
}

/**
 * Seconds to sample `tokens` tokens after a prompt; the first token, with the prefill, is untimed.
 */
async function sampleRows(
  engine: LocalEngine,
  batch: number,
  prompt: number,
  tokens: number,
): Promise<number> {
  const sequences = Array.from({ length: batch }, () => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(Array.from({ length: prompt + 1 }, () => draw()));
    return sequence;
  });
  const sample = (maxTokens: number) =>
    Promise.all(
      sequences.map((sequence, seed) => {
        const sampling = { temperature: 1, topP: 1, topK: 0, seed };
        return sequence.sample({ maxTokens, sampling, stopTokens: [] });
      }),
    );
  await sample(1);
  const startedAt = performance.now();
  await sample(tokens);
  const seconds = (performance.now() - startedAt) / 1000;
  for (const sequence of sequences) sequence.close();
  return seconds;
}

async function measureTraining(): Promise<void> {
  const training = createTrainingSession(model.config, model.weights, runtime);
  const rows = trainRows(TRAIN_ROWS, TRAIN_TOKENS);
  const tokens = TRAIN_ROWS * TRAIN_TOKENS;
  const rates: number[] = [];
  for (let repeat = 0; repeat <= REPEATS; repeat++) {
    const startedAt = performance.now();
    await training.lossAndGradients(rows, lossSettings(tokens));
    const rate = tokens / ((performance.now() - startedAt) / 1000);
    // The first makes the session and is not counted.
    if (repeat > 0) rates.push(rate);
  }
  await training.dispose();
  print({ training: { tokens, tokensPerSecond: median(rates) } });
}

function trainRows(count: number, length: number): TrainRow[] {
  return Array.from({ length: count }, () => ({
    tokens: Uint32Array.from({ length }, () => draw()),
    weights: Float32Array.from({ length }, (_, t) => Number(t > 0)),
    advantages: Float32Array.from({ length }, () => prng.gaussian()),
    oldLogprobs: new Float32Array(length).fill(-Math.log(model.config.vocabulary)),
  }));
}

function lossSettings(weightSum: number) {
  return { epsLow: 0.2, epsHigh: 0.2, dualClip: 3, weightSum };
}

function draw(): number {
  return prng.below(model.config.vocabulary);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] as number;
}
