/**
 * npm run bench:latency: the time between pieces of 8 streams (a piece is what one run of the
 * decode graph sampled, up to 16 tokens) through the real server, idle and while a training run
 * works. Goal: p99 while training <= 2x idle. One training run lasts through all rounds; for the
 * idle half of each round its process is stopped by SIGSTOP, so that both halves see the same
 * machine. `--threads ENGINE,TRAINER` compares settings: each gets a server of its own, one after
 * another.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { components } from '../api/contract/openapi.gen.ts';
import { AppError } from '../core/errors.ts';
import { Client, keepAsking, type Answer } from '../test/support/clients.ts';
import { TestServer } from '../test/support/server-process.ts';
import { callServer } from './server-call.ts';
import { childOf } from './server-children.ts';
import { printTable, quantile, recordResults, type Row } from './report.ts';

type TrainingRun = components['schemas']['TrainingRun'];

const STREAMS = 8;
const WARM_MS = 3_000;
/** Streams under way when the trainer stops or goes on are not counted. */
const SETTLE_MS = 1_000;
const PHASE_MS = 6_000;
const TOGETHER_MS = 1;
const FIRST_STEP_MS = 300_000;
const ASK = { maxTokens: 100, temperature: 1 };

const { values } = parseArgs({
  options: {
    threads: { type: 'string', multiple: true, default: ['1,1'] },
    rounds: { type: 'string', default: '5' },
  },
});
const rounds = Number(values.rounds);
const rows: Row[] = [];
for (const setting of values.threads) rows.push(await measure(setting));
printTable(rows);
recordResults('latency', { repeats: rounds, threads: 1 }, rows);

async function measure(setting: string): Promise<Row> {
  const [engine, trainer] = setting.split(',') as [string, string];
  const folder = mkdtempSync(join(tmpdir(), 'ramify-bench-'));
  const flags = ['--engine-threads', engine, '--trainer-threads', trainer];
  const server = await new TestServer({ dataFolder: join(folder, 'data'), flags }).ready();
  try {
    return { 'engine, trainer threads': setting, ...(await measureServer(server)) };
  } finally {
    await server.end('SIGTERM');
    rmSync(folder, { recursive: true });
  }
}

async function measureServer({ url, child }: TestServer): Promise<Row> {
  const answers: Answer[] = [];
  const end = new AbortController();
  const clients = Array.from(
    { length: STREAMS },
    (_, seed) => new Client(url, 'chat stream', seed, ASK),
  );
  const asked = keepAsking(clients, end.signal, (answer) => void answers.push(answer));
  await sleep(WARM_MS);
  const run = await startTraining(url);
  const trainer = await childOf(child.pid as number, /trainer/);
  const gaps = { idle: [] as number[], training: [] as number[] };
  const tokens = { idle: 0, training: 0 };
  for (let round = 0; round < rounds; round++) {
    for (const phase of ['idle', 'training'] as const) {
      process.kill(trainer, phase === 'idle' ? 'SIGSTOP' : 'SIGCONT');
      await sleep(SETTLE_MS);
      const from = performance.now();
      await sleep(PHASE_MS);
      const within = answers.filter(({ startedAt }) => startedAt >= from);
      for (const { pieces, tokens: count } of within) {
        tokens[phase] += count;
        gaps[phase].push(...waits(pieces));
      }
    }
  }
  const { status, progress } = await callServer<TrainingRun>(
    url,
    'GET',
    `/v1/admin/training-runs/${run}`,
  );
  if (status !== 'running') throw new AppError('internal', `the training run is ${status}`);
  await callServer(url, 'POST', `/v1/admin/training-runs/${run}/cancel`, {});
  end.abort();
  const [failure] = (await asked).failures;
  if (failure !== undefined) throw failure;
  const p99 = { idle: quantile(gaps.idle, 0.99), training: quantile(gaps.training, 0.99) };
  const seconds = (rounds * PHASE_MS) / 1000;
  return {
    'idle p50 ms': quantile(gaps.idle, 0.5),
    'idle p99 ms': p99.idle,
    'training p50 ms': quantile(gaps.training, 0.5),
    'training p99 ms': p99.training,
    'p99 ratio': p99.training / p99.idle,
    'idle tok/s': tokens.idle / seconds,
    'training tok/s': tokens.training / seconds,
    'training steps': progress.step,
  };
}

/** Time between arrivals; events of one piece arrive together. */
function waits(pieces: readonly number[]): number[] {
  return pieces
    .slice(1)
    .map((at, i) => at - (pieces[i] as number))
    .filter((gap) => gap > TOGETHER_MS);
}

/** Starts a run and waits until its base is evaluated and the first step done. */
async function startTraining(url: string): Promise<string> {
  const body = { steps: 1_000, seed: 1, settings: { gateTasks: 20 } };
  const { id } = await callServer<TrainingRun>(url, 'POST', '/v1/admin/retrain', body);
  const begunAt = performance.now();
  const path = `/v1/admin/training-runs/${id}`;
  while ((await callServer<TrainingRun>(url, 'GET', path)).progress.step < 1) {
    if (performance.now() - begunAt > FIRST_STEP_MS) {
      throw new AppError('internal', `no training step within ${FIRST_STEP_MS} ms`);
    }
    await sleep(100);
  }
  return id;
}
