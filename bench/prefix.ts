/**
 * npm run bench:prefix: what sharing a prefix of 1,000 tokens saves. Forks: 16 fork calls, and 16
 * forks up to their first sampled token, against 16 prompts computed each for itself (an engine
 * without the prefix cache). Roots: 16 equal prompts that arrive at the same moment, against the
 * same. Second request: time to the first sampled piece of a request whose first 1,000 tokens an
 * earlier one had too, against that of the earlier one. Repeats of all alternate, each with fresh
 * tokens.
 */
import { LocalEngine } from '../core/engine/local-engine.ts';
import { Prng } from '../core/prng.ts';
import type { Sequence } from '../core/ports.ts';
import { benchModels, type BenchModel } from './models.ts';
import { benchOptions, median, printTable, recordResults, secondsOf, type Row } from './report.ts';

const PREFIX = 1_000;
const QUESTION = 30;
const FORKS = 16;
const ANSWER = 64;

const options = benchOptions(7);
const prng = new Prng(1);
const rows: Row[] = [];
for (const model of benchModels()) rows.push(await benchModel(model));
printTable(rows);
recordResults('prefix', options, rows);

async function benchModel(given: BenchModel): Promise<Row> {
  const config = { ...given.config, contextTokens: 2_048 };
  const session = { device: 'cpu', threads: options.threads } as const;
  const shared = new LocalEngine(session);
  const apart = new LocalEngine({ ...session, prefixCache: false });
  for (const engine of [shared, apart]) await engine.load(1, { ...given, config });
  const draw = (count: number) =>
    Array.from({ length: count }, () => prng.below(config.vocabulary));
  const seconds: Record<string, number[]> = {};
  // The first repeat warms up and is not counted.
  for (let repeat = 0; repeat <= options.repeats; repeat++) {
    const times = {
      ...(await forkSeconds(apart, draw(PREFIX + 1))),
      roots: await rootSeconds(shared, draw(PREFIX + 1)),
      ...(await requestSeconds(shared, draw(PREFIX), draw)),
    };
    for (const [name, time] of Object.entries(times)) {
      if (repeat > 0) (seconds[name] ??= []).push(time);
    }
  }
  await shared.close();
  await apart.close();
  const ms = (name: string) => 1000 * median(seconds[name] ?? []);
  const percent = (part: string, whole: string) => (100 * ms(part)) / ms(whole);
  return {
    model: given.name,
    '16 prefills ms': ms('alone'),
    '16 forks ms': ms('calls'),
    'forks %': percent('calls', 'alone'),
    'forks to token ms': ms('forked'),
    'to token %': percent('forked', 'alone'),
    'roots ms': ms('roots'),
    'roots %': percent('roots', 'alone'),
    'first request ms': ms('first'),
    'second ms': ms('second'),
    'second %': percent('second', 'first'),
  };
}

/** 16 prompts each for itself, the fork calls alone, and forks up to their first token. */
async function forkSeconds(engine: LocalEngine, prompt: number[]) {
  const alone = await rootSeconds(engine, prompt);
  const parent = open(engine, prompt);
  await sampleAll([parent], 1);
  parent.truncate(prompt.length);
  const forks: Sequence[] = [];
  const call = async () => {
    for (let i = 0; i < FORKS; i++) forks.push(parent.fork(prompt.length));
  };
  const calls = await secondsOf(call);
  const forked = calls + (await secondsOf(() => sampleAll(forks, 1)));
  for (const sequence of [parent, ...forks]) sequence.close();
  return { alone, calls, forked };
}

/** 16 equal prompts at the same moment, up to their first token. */
async function rootSeconds(engine: LocalEngine, prompt: number[]): Promise<number> {
  const roots = Array.from({ length: FORKS }, () => open(engine, prompt));
  const seconds = await secondsOf(() => sampleAll(roots, 1));
  for (const root of roots) root.close();
  return seconds;
}

/** Two requests with one prefix and different ends, one after the other. */
async function requestSeconds(
  engine: LocalEngine,
  prefix: number[],
  draw: (count: number) => number[],
) {
  const ask = async () => {
    const sequence = open(engine, [...prefix, ...draw(QUESTION)]);
    const seconds = await firstPieceSeconds(sequence);
    sequence.close();
    return seconds;
  };
  const first = await ask();
  return { first, second: await ask() };
}

/** Seconds until the first tokens of an answer arrive. */
async function firstPieceSeconds(sequence: Sequence): Promise<number> {
  let seconds = 0;
  const start = performance.now();
  await sequence.sample({
    maxTokens: ANSWER,
    sampling: { temperature: 1, topP: 1, topK: 0, seed: 1 },
    stopTokens: [],
    onTokens: () => (seconds ||= (performance.now() - start) / 1000),
  });
  return seconds;
}

function open(engine: LocalEngine, tokens: number[]): Sequence {
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append(tokens);
  return sequence;
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
