/**
 * npm run bench:engine: sampled tokens a second of the engine against transformers.js and llama.cpp
 * (node-llama-cpp), with the same weights in float32, in the same run, by batch: each begins with
 * 150 cached tokens and adds 100, the prompt not counted. Repeats of all engines alternate; the
 * median counts. The peers are tried with every thread count up to the cores and stand with their
 * best. Then the machine's limits, and the cost of a token by cache length with a straight-line
 * fit.
 *
 * With `--large` instead: the shape of Qwen2.5-0.5B with made-up weights, over 64 cached tokens.
 * There every engine is started and stopped in every repeat, because they do not fit side by side.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { must } from '../core/assert.ts';
import { LocalEngine } from '../core/engine/local-engine.ts';
import { decodeSeconds, peerContenders, ramify, storedModel, type Running } from './contenders.ts';
import { limits, measureMachine, type Machine } from './machine.ts';
import { benchModels, largeModel } from './models.ts';
import { benchOptions, median, printTable, recordResults, type Row } from './report.ts';

const large = process.argv.includes('--large');
const BATCHES = large ? [1, 8] : [1, 8, 32];
const SIZE = large ? { cache: 64, tokens: 12 } : { cache: 150, tokens: 100 };
const CURVE = [64, 256, 1024, 4096];
const CURVE_TOKENS = 48;

const options = benchOptions(large ? 3 : 7);
const folder = mkdtempSync(join(tmpdir(), 'ramify-bench-'));
const { model, contenders } = prepare();
try {
  const machine = await measureMachine(options.threads);
  const rows = large ? await compareOneByOne(machine) : await compareSideBySide(machine);
  printTable(rows);
  const giga = (value: number) => (value / 1e9).toFixed(1);
  console.log(
    `machine: ${giga(machine.gemmFlops)} GFLOP/s, ${giga(machine.memoryBytes)} GB/s from memory, ` +
      `${giga(machine.cacheBytes)} GB/s from the cache`,
  );
  const curve = large ? [] : await lengthCurve();
  recordResults(large ? 'engine-large' : 'engine', options, [...rows, ...curve, { ...machine }]);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Writes the model for every engine. Afterwards no weights are in this process's memory. */
function prepare() {
  const held = large ? largeModel() : must(benchModels()[0], 'model');
  const counts = Array.from({ length: options.threads }, (_, i) => i + 1);
  const peers = peerContenders(held, folder, counts, SIZE);
  const stored = storedModel(held, folder);
  return { model: stored, contenders: [ramify(stored, options.threads, SIZE), ...peers] };
}

type Rates = Map<string, number[]>;

/** All engines stay loaded; after each of ours comes one measurement of every other. */
async function compareSideBySide(machine: Machine): Promise<Row[]> {
  const started: { name: string; running: Running }[] = [];
  const rows: Row[] = [];
  try {
    for (const contender of contenders) {
      started.push({ name: contender.name, running: await contender.start() });
    }
    await requireSameTokens(started);
    for (const batch of BATCHES) {
      const rates: Rates = new Map();
      // The first repeat warms up and is not counted.
      for (let repeat = 0; repeat <= options.repeats; repeat++) {
        for (const { name, running } of started) {
          const { seconds } = await running.run(batch);
          if (repeat > 0) note(rates, name, batch, seconds);
        }
      }
      rows.push(rowOf(rates, batch, machine));
    }
  } finally {
    for (const { running } of started) await running.stop();
  }
  return rows;
}

/** One engine at a time is loaded, in turns; its first measurement of a batch is not counted. */
async function compareOneByOne(machine: Machine): Promise<Row[]> {
  const rates = new Map<number, Rates>(BATCHES.map((batch) => [batch, new Map()]));
  for (let repeat = 0; repeat < options.repeats; repeat++) {
    for (const contender of contenders) {
      const running = await contender.start();
      for (const batch of BATCHES) {
        await running.run(batch);
        const { seconds } = await running.run(batch);
        note(must(rates.get(batch), 'rates'), contender.name, batch, seconds);
      }
      await running.stop();
    }
  }
  return BATCHES.map((batch) => rowOf(must(rates.get(batch), 'rates'), batch, machine));
}

function note(rates: Rates, name: string, batch: number, seconds: number): void {
  rates.set(name, [...(rates.get(name) ?? []), (batch * SIZE.tokens) / seconds]);
}

/** Medians of every engine, ratios to the peers' best, and the share of the machine's limits. */
function rowOf(rates: Rates, batch: number, machine: Machine): Row {
  const best = (prefix: string) =>
    Math.max(...[...rates].filter(([name]) => name.startsWith(prefix)).map(([, r]) => median(r)));
  const mine = best('ramify');
  const { cache, tokens } = SIZE;
  const { arithmetic, memory } = limits(machine, model.config, batch, cache + tokens / 2);
  return {
    batch,
    ...Object.fromEntries([...rates].map(([name, values]) => [name, median(values)])),
    'x transformers.js': mine / best('transformers.js'),
    'x llama.cpp': mine / best('llama.cpp'),
    'arithmetic limit': arithmetic,
    'memory limit': memory,
    'of the lower': mine / Math.min(arithmetic, memory),
  };
}

/** All engines must continue a prompt by the same tokens: they run the same model. */
async function requireSameTokens(started: readonly { name: string; running: Running }[]) {
  const engine = new LocalEngine({ device: 'cpu', threads: options.threads });
  await engine.load(1, model);
  const { first } = await decodeSeconds(engine, model.config.vocabulary, 1, SIZE, 0);
  await engine.close();
  for (const { name, running } of started.slice(1)) {
    const { first: other } = await running.run(1);
    const same = first.findIndex((token, i) => token !== other[i]);
    if (same >= 0) console.log(`${name}: another token than ours after ${same} equal ones`);
  }
}

/** Milliseconds a token by cache length, with the line that fits best; none may bend upwards. */
async function lengthCurve(): Promise<Row[]> {
  const config = { ...model.config, contextTokens: 8192 };
  const engine = new LocalEngine({ device: 'cpu', threads: options.threads });
  await engine.load(1, { ...model, config });
  const rows: Row[] = [];
  for (const batch of [1, 8]) {
    const measured = CURVE.map((cache) => ({ cache, times: [] as number[] }));
    for (let repeat = 0; repeat < options.repeats; repeat++) {
      for (const { cache, times } of measured) {
        const size = { cache, tokens: CURVE_TOKENS };
        const { seconds } = await decodeSeconds(engine, config.vocabulary, batch, size);
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
