/**
 * npm run bench:engine: sampled tokens a second of the engine against transformers.js and llama.cpp
 * (node-llama-cpp), with the same weights in float32, in the same run, by batch: each begins with
 * 150 cached tokens and adds 100, the prompt not counted. Repeats of all engines alternate; the
 * median counts. The peers decode greedily, ours samples at temperature 1 with log-probabilities
 * and entropies. The peers are tried with every thread count up to the cores and stand with their
 * best. Then the machine's limits, and the cost of a token by cache length with a straight-line
 * fit.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { must } from '../core/assert.ts';
import { LocalEngine } from '../core/engine/local-engine.ts';
import type { PolicyModel } from '../core/model/policy-directory.ts';
import type { SamplingParams } from '../core/records.ts';
import { limits, measureMachine, type Machine } from './machine.ts';
import { benchModels } from './models.ts';
import { writeGguf } from './peers/gguf.ts';
import { writeOnnxDirectory } from './peers/onnx-directory.ts';
import { installPeers, Peer } from './peers/peer.ts';
import { benchOptions, median, printTable, recordResults, secondsOf, type Row } from './report.ts';

const BATCHES = [1, 8, 32];
const CACHE = 150;
const TOKENS = 100;
const CURVE = [64, 256, 1024, 4096];
const CURVE_TOKENS = 48;

const SAMPLING: SamplingParams = { temperature: 1, topP: 1, topK: 0, seed: 0 };

interface Contender {
  name: string;
  /** Seconds for TOKENS tokens in each of `batch` rows, and the first row's tokens if greedy. */
  run: (batch: number) => Promise<{ seconds: number; first: readonly number[] }>;
}

const options = benchOptions(7);
const model = must(benchModels()[0], 'model');
const folder = mkdtempSync(join(tmpdir(), 'ramify-bench-'));
try {
  const machine = await measureMachine(options.threads);
  const table = await compare(machine);
  const curve = await lengthCurve();
  recordResults('engine', options, [...table, ...curve, { ...machine }]);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** One row a batch: medians of every engine, ratios, and the share of the machine's limits. */
async function compare(machine: Machine): Promise<Row[]> {
  const engine = await loadedEngine(model);
  const peers = await startPeers();
  const contenders = [ours(engine), ...peers.contenders];
  const rows: Row[] = [];
  try {
    await requireSameTokens(engine, contenders);
    for (const batch of BATCHES) rows.push(await compareBatch(contenders, batch, machine));
  } finally {
    peers.stop();
    await engine.close();
  }
  printTable(rows);
  const giga = (value: number) => (value / 1e9).toFixed(1);
  console.log(
    `machine: ${giga(machine.gemmFlops)} GFLOP/s, ${giga(machine.memoryBytes)} GB/s from memory, ` +
      `${giga(machine.cacheBytes)} GB/s from the cache`,
  );
  return rows;
}

async function compareBatch(
  contenders: readonly Contender[],
  batch: number,
  machine: Machine,
): Promise<Row> {
  const rates = new Map<string, number[]>(contenders.map(({ name }) => [name, []]));
  // The first repeat warms up and is not counted.
  for (let repeat = 0; repeat <= options.repeats; repeat++) {
    for (const { name, run } of contenders) {
      const { seconds } = await run(batch);
      if (repeat > 0) rates.get(name)?.push((batch * TOKENS) / seconds);
    }
  }
  const best = (prefix: string) =>
    Math.max(...[...rates].filter(([name]) => name.startsWith(prefix)).map(([, r]) => median(r)));
  const mine = best('ramify');
  const { arithmetic, memory } = limits(machine, model.config, batch, CACHE + TOKENS / 2);
  const all = Object.fromEntries([...rates].map(([name, values]) => [name, median(values)]));
  return {
    batch,
    ...all,
    'x transformers.js': mine / best('transformers.js'),
    'x llama.cpp': mine / best('llama.cpp'),
    'arithmetic limit': arithmetic,
    'memory limit': memory,
    'of the lower': mine / Math.min(arithmetic, memory),
  };
}

async function loadedEngine(policy: PolicyModel): Promise<LocalEngine> {
  const engine = new LocalEngine({ device: 'cpu', threads: options.threads });
  await engine.load(1, policy);
  return engine;
}

function ours(engine: LocalEngine): Contender {
  const run = async (batch: number) => {
    const { seconds } = await decodeSeconds(engine, batch, CACHE, TOKENS, SAMPLING);
    return { seconds, first: [] };
  };
  return { name: 'ramify', run };
}

/** Prefills and samples one token untimed, then times `count` more in every row. */
async function decodeSeconds(
  engine: LocalEngine,
  batch: number,
  cache: number,
  count: number,
  sampling: SamplingParams,
) {
  const sequences = Array.from({ length: batch }, (_, row) => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(promptOf(row, cache, model.config.vocabulary));
    return sequence;
  });
  const sample = (maxTokens: number) =>
    Promise.all(
      sequences.map((sequence, row) =>
        sequence.sample({ maxTokens, sampling: { ...sampling, seed: row }, stopTokens: [] }),
      ),
    );
  const begun = await sample(1);
  let rest = begun;
  const seconds = await secondsOf(async () => (rest = await sample(count)));
  for (const sequence of sequences) sequence.close();
  return { seconds, first: [...begun[0]!.tokens, ...rest[0]!.tokens] };
}

/** All engines must continue a prompt by the same tokens: they run the same model. */
async function requireSameTokens(engine: LocalEngine, contenders: readonly Contender[]) {
  const greedy = { ...SAMPLING, temperature: 0 };
  const { first } = await decodeSeconds(engine, 1, CACHE, TOKENS, greedy);
  for (const { name, run } of contenders.slice(1)) {
    const { first: other } = await run(1);
    const same = first.findIndex((token, i) => token !== other[i]);
    if (same >= 0) console.log(`${name}: another token than ours after ${same} equal ones`);
  }
}

async function startPeers() {
  installPeers();
  const gguf = join(folder, 'model.gguf');
  writeGguf(gguf, model);
  const onnx = join(folder, 'onnx-model');
  writeOnnxDirectory(onnx, model);
  const started: Peer[] = [];
  const contenders: Contender[] = [];
  const add = async (name: string, script: string, args: string[], threads: number) => {
    const peer = await Peer.start(script, args);
    started.push(peer);
    const size = { cache: CACHE, tokens: TOKENS, threads, vocabulary: model.config.vocabulary };
    const run = (batch: number) => peer.measure({ ...size, batch });
    contenders.push({ name: `${name} ${threads}t`, run });
  };
  for (let threads = 1; threads <= options.threads; threads++) {
    await add('transformers.js', 'transformers-js.mjs', [onnx, String(threads)], threads);
    await add('llama.cpp', 'llama-cpp.mjs', [gguf], threads);
  }
  return { contenders, stop: () => started.forEach((peer) => peer.stop()) };
}

/** The same prompt as in peers/serve.mjs. */
function promptOf(row: number, length: number, vocabulary: number): number[] {
  return Array.from({ length }, (_, i) => 3 + ((row * 7919 + i * 104729 + 17) % (vocabulary - 3)));
}

/** Milliseconds a token by cache length, with the line that fits best; none may bend upwards. */
async function lengthCurve(): Promise<Row[]> {
  const config = { ...model.config, contextTokens: 8192 };
  const engine = await loadedEngine({ ...model, config });
  const rows: Row[] = [];
  for (const batch of [1, 8]) {
    const measured = CURVE.map((cache) => ({ cache, times: [] as number[] }));
    for (let repeat = 0; repeat < options.repeats; repeat++) {
      for (const { cache, times } of measured) {
        const { seconds } = await decodeSeconds(engine, batch, cache, CURVE_TOKENS, SAMPLING);
        times.push((1000 * seconds) / CURVE_TOKENS);
      }
    }
    const points = measured.map(({ cache, times }) => ({ cache, ms: median(times) }));
    const { fixed, perToken } = line(points);
    for (const { cache, ms } of points) {
      const fit = fixed + perToken * cache;
      rows.push({ batch, cache, 'tok/s': (1000 * batch) / ms, 'ms a step': ms, 'line ms': fit });
    }
  }
  await engine.close();
  printTable(rows);
  return rows;
}

/** Least squares. */
function line(points: readonly { cache: number; ms: number }[]) {
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const x = mean(points.map(({ cache }) => cache));
  const y = mean(points.map(({ ms }) => ms));
  const covariance = mean(points.map(({ cache, ms }) => (cache - x) * (ms - y)));
  const perToken = covariance / mean(points.map(({ cache }) => (cache - x) ** 2));
  return { fixed: y - perToken * x, perToken };
}
