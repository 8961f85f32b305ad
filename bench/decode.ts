/**
 * npm run bench:decode: sampled tokens a second of the engine (many tokens a run of the decode
 * graph) against one run a token, in the same process, by batch and cached tokens. Both begin with
 * that many tokens cached, sample 16 untimed and then 64 timed ones; repeats of both ways
 * alternate. The engine's side is the whole engine, with its scheduler, cache copies and random
 * draws.
 */
import { LocalEngine } from '../core/engine/local-engine.ts';
import { Prng } from '../core/prng.ts';
import type { Sequence } from '../core/ports.ts';
import { benchModels, type BenchModel } from './models.ts';
import { OneTokenDecoder } from './one-token.ts';
import { benchOptions, median, printTable, recordResults, secondsOf, type Row } from './report.ts';

const BATCHES = [1, 8, 32];
const CACHES = [64, 256];
const UNTIMED = 16;
const TIMED = 64;

const options = benchOptions(5);
const rows: Row[] = [];
for (const model of benchModels()) rows.push(...(await benchModel(model)));
printTable(rows);
recordResults('decode', options, rows);

async function benchModel(model: BenchModel): Promise<Row[]> {
  const session = { device: 'cpu', threads: options.threads } as const;
  const engine = new LocalEngine(session);
  await engine.load(1, model);
  const decoder = await OneTokenDecoder.create(model, session);
  const measured: Row[] = [];
  for (const batch of BATCHES) {
    for (const cache of CACHES) {
      const chunked: number[] = [];
      const single: number[] = [];
      const sequences = await openSequences(engine, model, batch, cache);
      // The first repeat warms up and is not counted.
      for (let repeat = 0; repeat <= options.repeats; repeat++) {
        const tokens = batch * TIMED;
        const first = tokens / (await chunkedSeconds(sequences, cache));
        const second = tokens / (await singleSeconds(decoder, model, batch, cache));
        if (repeat > 0) {
          chunked.push(first);
          single.push(second);
        }
      }
      for (const sequence of sequences) sequence.close();
      const [fast, slow] = [median(chunked), median(single)];
      const figures = { 'chunked tok/s': fast, 'one-token tok/s': slow, ratio: fast / slow };
      measured.push({ model: model.name, batch, cache, ...figures });
    }
  }
  await engine.close();
  await decoder.dispose();
  return measured;
}

async function openSequences(
  engine: LocalEngine,
  { config }: BenchModel,
  batch: number,
  cache: number,
): Promise<Sequence[]> {
  const prng = new Prng(batch * 1000 + cache);
  const sequences = Array.from({ length: batch }, () => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(Array.from({ length: cache }, () => prng.below(config.vocabulary)));
    return sequence;
  });
  await sampleAll(sequences, 1);
  return sequences;
}

async function sampleAll(sequences: readonly Sequence[], maxTokens: number): Promise<void> {
  await Promise.all(
    sequences.map((sequence, seed) =>
      sequence.sample({
        maxTokens,
        sampling: { temperature: 1, topP: 1, topK: 0, seed },
        stopTokens: [],
      }),
    ),
  );
}

async function chunkedSeconds(sequences: readonly Sequence[], cache: number): Promise<number> {
  for (const sequence of sequences) sequence.truncate(cache + 1);
  await sampleAll(sequences, UNTIMED);
  return secondsOf(() => sampleAll(sequences, TIMED));
}

async function singleSeconds(
  decoder: OneTokenDecoder,
  { config }: BenchModel,
  batch: number,
  cache: number,
): Promise<number> {
  const prng = new Prng(cache);
  decoder.begin(batch, cache, 0.01);
  let ids: BigInt64Array = BigInt64Array.from({ length: batch }, () =>
    BigInt(prng.below(config.vocabulary)),
  );
  const sample = async (count: number) => {
    for (let t = 0; t < count; t++) {
      const draws = Float32Array.from({ length: batch }, () => prng.next());
      ids = (await decoder.step(ids, draws)).tokens;
    }
  };
  await sample(UNTIMED);
  return secondsOf(() => sample(TIMED));
}
