/**
 * npm run bench:load: the real server under the load of a busy deployment, and what it costs on top
 * of its engine.
 *
 * Load (`--minutes`, `--streams`, `--reads`): that many event streams open at once, one in six of
 * them a chat, response or agent run that is being sampled, the others agent runs that wait for
 * their clients (load-streams.ts), and so many reads a second beside (load-reads.ts). Faults, that
 * is, every answer but 2xx and refusals with a Retry-After, and every stream without its closing
 * event, make the exit code 1. Memory is that of the server and of its policy worker: the median
 * of the last fifth of the minutes against that of the first, after a minute of warm-up.
 *
 * Overhead (`--rounds`): tokens a second of 8, 16 and 84 chat streams (as many as of 500
 * streams of the load are sampled) through the server and by its engine alone (load-overhead.ts).
 * `--rounds 0` and `--minutes 0` leave a part out.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { AppError } from '../core/errors.ts';
import { mix, Prng } from '../core/prng.ts';
import { TestServer } from '../test/support/server-process.ts';
import { LoadClient } from './load-client.ts';
import { measureOverhead, SERVER_THREADS, type Served } from './load-overhead.ts';
import { keepReading, type TimedRead } from './load-reads.ts';
import { oneStream, type Kind } from './load-streams.ts';
import { median, printTable, quantile, recordResults, type Row } from './report.ts';
import { childOf, residentMiB } from './server-children.ts';

const WARM_MS = 60_000;
const RAMP_MS = 20_000;
const LOOK_MS = 1_000;
/** What is stored of cached prefixes reaches its bound in the warm-up and not later. */
const KV_MIB = 128;
const SAMPLED: readonly Kind[] = ['chat', 'chat', 'response', 'agent run'];
/** One in so many streams is being sampled; the others wait. */
const SAMPLED_SHARE = 6;
const GROWTH_MAX = 0.05;

/** What is seen every second. */
interface Look {
  serverMiB: number;
  workerMiB: number;
  openStreams: number;
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    streams: { type: 'string', default: '500' },
    reads: { type: 'string', default: '50' },
    rounds: { type: 'string', default: '9' },
  },
});
const [minutes, streams, reads, rounds] = [
  number('minutes', values.minutes),
  number('streams', values.streams),
  number('reads', values.reads),
  number('rounds', values.rounds),
];

const folder = mkdtempSync(join(tmpdir(), 'ramify-bench-'));
const settings = ['--kv-memory', String(KV_MIB), '--engine-threads', String(SERVER_THREADS)];
const flags = [...settings, '--tasks', 'none', '--device', 'cpu'];
const server = await new TestServer({ dataFolder: join(folder, 'data'), flags }).ready();
const rows: Row[] = [];
try {
  const main = server.child.pid as number;
  const served = { url: server.url, main, worker: await childOf(main, /policy worker/) };
  if (minutes > 0) rows.push(...(await measureLoad(served)));
  if (rounds > 0) {
    const overhead = await measureOverhead(
      served,
      [8, 16, 84],
      [
        { name: 'short', maxTokens: 100, temperature: 1 },
        { name: 'long', maxTokens: 100, temperature: 2 },
      ],
      { rounds, kvMiB: KV_MIB },
    );
    console.log();
    printTable(overhead);
    rows.push(...overhead);
  }
} finally {
  await server.end('SIGTERM');
  rmSync(folder, { recursive: true });
}
recordResults('load', { repeats: rounds, threads: SERVER_THREADS }, rows);

async function measureLoad({ url, main, worker }: Served): Promise<Row[]> {
  const end = new AbortController();
  const client = new LoadClient(url, end.signal);
  const { tally } = client;
  const clients = Array.from({ length: streams }, (_, i) => {
    const prng = new Prng(mix(1, i));
    const sampled = i % SAMPLED_SHARE === 0;
    const kind = sampled ? SAMPLED[(i / SAMPLED_SHARE) % SAMPLED.length]! : 'waiting run';
    // Clients do not all come in one moment.
    const begun = client.pause(prng.below(RAMP_MS));
    return begun.then(() => client.repeat(() => oneStream(client, kind, prng)));
  });
  const timed: TimedRead[] = [];
  let warm = false;
  const reading = keepReading(client, reads, (read) => void (warm && timed.push(read)));
  await client.pause(WARM_MS);
  warm = true;
  const begun = { at: performance.now(), tokens: tally.tokens, pieces: tally.pieces };
  const ended = tally.endedStreams;
  const looks: Look[] = [];
  while (performance.now() - begun.at < minutes * 60_000) {
    const [serverMiB = NaN, workerMiB = NaN] = await residentMiB([main, worker]);
    looks.push({ serverMiB, workerMiB, openStreams: tally.openStreams });
    await client.pause(LOOK_MS);
  }
  const seconds = (performance.now() - begun.at) / 1000;
  const traffic = {
    'tok/s': (tally.tokens - begun.tokens) / seconds,
    'pieces/s': (tally.pieces - begun.pieces) / seconds,
    'streams ended/s': (tally.endedStreams - ended) / seconds,
    'reads/s': timed.length / seconds,
  };
  end.abort();
  await Promise.all([...clients, reading]);
  client.close();
  return report(client, looks, timed, traffic);
}

function report({ tally }: LoadClient, looks: Look[], timed: TimedRead[], traffic: Row): Row[] {
  const open = looks.map(({ openStreams }) => openStreams);
  const load: Row = {
    'open streams, median': median(open),
    least: Math.min(...open),
    ...traffic,
    faults: tally.faultCount,
    ...Object.fromEntries([...tally.answers].sort().map(([key, n]) => [`answers ${key}`, n])),
  };
  const latency = { all: timed.map(({ ms }) => ms), ...byName(timed) };
  const readRows = Object.entries(latency).map(([name, ms]): Row => ({
    reads: name,
    count: ms.length,
    'p50 ms': quantile(ms, 0.5),
    'p95 ms': quantile(ms, 0.95),
    'p99 ms': quantile(ms, 0.99),
  }));
  const memory = [
    growth('server', looks, ({ serverMiB }) => serverMiB),
    growth('policy worker', looks, ({ workerMiB }) => workerMiB),
    growth('both', looks, ({ serverMiB, workerMiB }) => serverMiB + workerMiB),
  ];
  for (const table of [[load], readRows, memory]) {
    printTable(table);
    console.log();
  }
  for (const fault of tally.faults) console.log(`fault: ${fault}`);
  if (tally.faultCount > 0) process.exitCode = 1;
  return [load, ...readRows, ...memory];
}

function byName(timed: readonly TimedRead[]): Record<string, number[]> {
  const out: Record<string, number[]> = {};
  for (const { name, ms } of timed) (out[name] ??= []).push(ms);
  return out;
}

function growth(name: string, looks: readonly Look[], of: (look: Look) => number): Row {
  const fifth = Math.ceil(looks.length / 5);
  const first = median(looks.slice(0, fifth).map(of));
  const last = median(looks.slice(-fifth).map(of));
  const share = last / first - 1;
  const sizes = looks.map(of);
  return {
    memory: name,
    'first fifth MiB': first,
    'last fifth MiB': last,
    'highest MiB': Math.max(...sizes),
    'growth %': 100 * share,
    'below 5 %': share < GROWTH_MAX ? 'yes' : 'no',
  };
}

function number(flag: string, text: string): number {
  const value = Number(text);
  if (text !== '' && value >= 0 && value <= 10_000) return value;
  throw new AppError('config_invalid', `--${flag} must be a number from 0, not ${text}`);
}
