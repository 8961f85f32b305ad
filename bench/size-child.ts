/**
 * A fresh process of bench/size.ts: loads the checkpoint in a folder as the server does (`serve`),
 * or trains an adapter over it (`train`), and prints what it took as one line of JSON. Memory is
 * that of the whole process at its highest, as Linux counts it.
 */
import { LocalEngine } from '../core/engine/local-engine.ts';
import { initialAdapter } from '../core/model/lora.ts';
import { openPolicyModel } from '../core/model/policy-directory.ts';
import { heldWeights } from '../core/model/stored-weights.ts';
import { createTrainingSession } from '../core/model/training-session.ts';
import { Prng } from '../core/prng.ts';
import type { Sequence } from '../core/ports.ts';
import { ADAMW_DEFAULTS, initAdamW, updateAdamW } from '../core/trainer/adamw.ts';
import { peakMiB } from './measured-child.ts';
import { BATCH_LOSS } from './train-batch.ts';
import { median, secondsOf, type Row } from './report.ts';

const PROMPT_TOKENS = 256;
const SAMPLED_TOKENS = 16;
const BATCHES = [1, 8];
const TRAINED_TOKENS = 1_024;
const KV_BYTES = 256 * 1024 * 1024;

const [mode, directory, threadCount, repeatCount] = process.argv.slice(2) as [string, ...string[]];
const threads = Number(threadCount);
const repeats = Number(repeatCount);
const figures = mode === 'serve' ? await serve() : await train();
process.stdout.write(`${JSON.stringify(figures)}\n`);

async function serve(): Promise<Row> {
  const engine = new LocalEngine({ device: 'cpu', threads, kvBytesMax: KV_BYTES });
  const load = await secondsOf(() => engine.load(1, openPolicyModel(directory as string)));
  const row: Record<string, string | number> = { 'load s': load, 'loaded MiB': peakMiB() };
  for (const batch of BATCHES) {
    const sequences = Array.from({ length: batch }, (_, i) => open(engine, 100 * batch + i));
    const prefill = await secondsOf(() => sampleAll(sequences, 1));
    row[`prefill tok/s, batch ${batch}`] = (batch * PROMPT_TOKENS) / prefill;
    const rates: number[] = [];
    for (let repeat = 0; repeat < repeats; repeat++) {
      const seconds = await secondsOf(() => sampleAll(sequences, SAMPLED_TOKENS));
      rates.push((batch * SAMPLED_TOKENS) / seconds);
    }
    row[`decode tok/s, batch ${batch}`] = median(rates);
    for (const sequence of sequences) sequence.close();
  }
  row['peak MiB'] = peakMiB();
  await engine.close();
  return row;
}

/** A prompt that shares nothing with another. */
function open(engine: LocalEngine, seed: number): Sequence {
  const prng = new Prng(seed);
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append(Array.from({ length: PROMPT_TOKENS }, () => prng.below(100_000)));
  return sequence;
}

function sampleAll(sequences: readonly Sequence[], maxTokens: number) {
  const sample = (sequence: Sequence, seed: number) =>
    sequence.sample({
      maxTokens,
      sampling: { temperature: 1, topP: 1, topK: 0, seed },
      stopTokens: [],
    });
  return Promise.all(sequences.map(sample));
}

async function train(): Promise<Row> {
  const { config, weights } = openPolicyModel(directory as string);
  const lora = {
    rank: 16,
    alpha: 32,
    rsLora: false,
    targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    excluded: [],
    layers: null,
    rankPattern: {},
    alphaPattern: {},
  };
  const adapter = initialAdapter(config, lora, new Prng(1));
  const held = heldWeights(weights);
  const session = createTrainingSession(config, held, { device: 'cpu', threads, adapter });
  const state = initAdamW(session.weights);
  const prng = new Prng(2);
  const filled = (value: number) => new Float32Array(TRAINED_TOKENS).fill(value, 1);
  const row = {
    tokens: Uint32Array.from({ length: TRAINED_TOKENS }, () => prng.below(100_000)),
    weights: filled(1),
    advantages: filled(1),
    oldLogprobs: filled(-Math.log(config.vocabulary)),
  };
  const seconds: number[] = [];
  for (let step = 0; step < repeats; step++) {
    seconds.push(
      await secondsOf(async () => {
        const { gradients } = await session.lossAndGradients([row], BATCH_LOSS);
        updateAdamW(session.weights, gradients, state, { ...ADAMW_DEFAULTS, learningRate: 1e-4 });
      }),
    );
  }
  await session.dispose();
  return { 'train step s': median(seconds), 'peak MiB': peakMiB() };
}
