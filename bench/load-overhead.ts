/**
 * What the server costs on top of its engine: the same chats, with the same seeds and so the same
 * tokens, sampled through HTTP and the log, and by an engine of its own that is held as the server
 * holds its (a worker process, the same settings). In turns, so that both see the same machine.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { policyText } from '../api/parts.ts';
import { mapBounded } from '../core/arpo/concurrency.ts';
import { startPolicyEngine } from '../core/engine/policy-engine.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { quiet } from '../core/log.ts';
import { packageRoot } from '../core/paths.ts';
import { Prng } from '../core/prng.ts';
import { testQuestions } from '../test/support/clients.ts';
import { LoadClient } from './load-client.ts';
import { chatStream, type ChatOptions, type ChatRequest } from './load-streams.ts';
import { median, secondsOf, type Row } from './report.ts';
import { processorSeconds } from './server-children.ts';

export interface OverheadOptions {
  rounds: number;
  kvMiB: number;
}

/** A server, and its processes. */
export interface Served {
  url: string;
  main: number;
  worker: number;
}

export interface Answers extends ChatOptions {
  name: string;
}

/** Enough for the end of a turn, where fewer and fewer run, to count little. */
const TURN_TOKENS = 5_000;
const VERSION = 1;

export const SERVER_THREADS = Math.max(1, Math.floor(availableParallelism() / 2));

/** Compares a running server with an engine. One row a number of streams. */
export async function measureOverhead(
  served: Served,
  streams: readonly number[],
  kinds: readonly Answers[],
  { rounds, kvMiB }: OverheadOptions,
): Promise<Row[]> {
  const engine = await startPolicyEngine({
    ...{ threads: SERVER_THREADS, device: 'cpu', kvBytesMax: kvMiB * 1024 * 1024 },
    logger: quiet,
  });
  const client = new LoadClient(served.url, new AbortController().signal);
  try {
    const directory = join(packageRoot, 'policies', 'embedded');
    await engine.load(VERSION, directory);
    const bare = new BareEngine(engine, directory);
    const rows: Row[] = [];
    for (const kind of kinds) {
      for (const atOnce of streams) {
        rows.push(await compare({ served, client, bare }, kind, { atOnce, rounds }));
      }
    }
    return rows;
  } finally {
    client.close();
    await engine.stop();
  }
}

async function compare(
  { served, client, bare }: { served: Served; client: LoadClient; bare: BareEngine },
  answers: Answers,
  { atOnce, rounds }: { atOnce: number; rounds: number },
): Promise<Row> {
  const prng = new Prng(atOnce);
  const draw = (count: number): ChatRequest[] =>
    Array.from({ length: count }, () => ({
      question: prng.pick(testQuestions).question,
      seed: prng.below(2 ** 31),
    }));
  const { tally } = client;
  const alone = (requests: readonly ChatRequest[]): Promise<Turn> =>
    turn([bare.worker], requests, atOnce, (request) => bare.sample(request, answers));
  const through = async (requests: readonly ChatRequest[]): Promise<Turn> => {
    const before = tally.tokens;
    const work = async (request: ChatRequest) => (await chatStream(client, request, answers), 0);
    const done = await turn([served.worker, served.main, process.pid], requests, atOnce, work);
    return { ...done, tokens: tally.tokens - before };
  };
  const trial = await alone(draw(4 * atOnce));
  await through(draw(4 * atOnce));
  const perAnswer = trial.tokens / (4 * atOnce);
  const count = Math.ceil(Math.max(20 * atOnce, TURN_TOKENS / perAnswer));
  const turns: { engine: Turn; server: Turn }[] = [];
  for (let round = 0; round < rounds; round++) {
    const requests = draw(count);
    turns.push({ engine: await alone(requests), server: await through(requests) });
  }
  const ratios = turns.map(({ engine, server }) => speed(server) / speed(engine));
  return {
    answers: answers.name,
    'tokens an answer': perAnswer,
    streams: atOnce,
    'engine tok/s': median(turns.map(({ engine }) => speed(engine))),
    'server tok/s': median(turns.map(({ server }) => speed(server))),
    'server / engine': median(ratios),
    least: Math.min(...ratios),
    most: Math.max(...ratios),
    'overhead %': 100 * (1 - median(ratios)),
    'engine CPU ms/token': median(turns.map(({ engine }) => cost(engine, 0))),
    'its worker': median(turns.map(({ server }) => cost(server, 0))),
    'its main': median(turns.map(({ server }) => cost(server, 1))),
    clients: median(turns.map(({ server }) => cost(server, 2))),
  };
}

interface Turn {
  tokens: number;
  seconds: number;
  /** Of each process. */
  cpuSeconds: number[];
}

async function turn(
  pids: readonly number[],
  requests: readonly ChatRequest[],
  atOnce: number,
  work: (request: ChatRequest) => Promise<number>,
): Promise<Turn> {
  let tokens = 0;
  const before = pids.map(processorSeconds);
  const seconds = await secondsOf(async () => {
    const counts = await mapBounded(requests, atOnce, work, () => undefined);
    tokens = counts.reduce((sum, count) => sum + count, 0);
  });
  const cpuSeconds = pids.map((pid, i) => processorSeconds(pid) - (before[i] ?? NaN));
  return { tokens, seconds, cpuSeconds };
}

function speed({ tokens, seconds }: Turn): number {
  return tokens / seconds;
}

function cost({ tokens, cpuSeconds }: Turn, process: number): number {
  return (1000 * (cpuSeconds[process] ?? NaN)) / tokens;
}

class BareEngine {
  private readonly engine: PolicyEngine;
  private readonly text: ReturnType<typeof policyText>;

  constructor(engine: PolicyEngine, directory: string) {
    this.engine = engine;
    this.text = policyText(directory);
  }

  get worker(): number {
    return this.engine.stats().pid ?? NaN;
  }

  /** The tokens of one answer, sampled as a chat's are. */
  async sample({ question, seed }: ChatRequest, options: ChatOptions): Promise<number> {
    const { protocol } = this.text;
    const sequence = this.engine.open({ policyVersion: VERSION });
    try {
      sequence.append(protocol.renderPrompt([{ role: 'user', content: question }], []));
      const { tokens } = await sequence.sample({
        maxTokens: options.maxTokens,
        sampling: { temperature: options.temperature, topP: 1, topK: 0, seed },
        stopTokens: protocol.stopTokens,
        stopTexts: [],
        onTokens: () => undefined,
      });
      return tokens.length;
    } finally {
      sequence.close();
    }
  }
}
