/**
 * npm run bench:serving: the real server with 8 clients that ask without a pause, first alone and
 * then while a training run with the default settings is under way. Prints the event-loop lag of
 * the main thread (goal: p99 <= 20 ms while training; `own` leaves out its waits for a core, see
 * lag-probe.ts), sampled tokens a second, the time to the first piece of an answer, and the gaps
 * between pieces (a piece is what one run of the decode graph sampled).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { components } from '../api/contract/openapi.gen.ts';
import { AppError } from '../core/errors.ts';
import { builtModule } from '../core/paths.ts';
import { Client, keepAsking } from '../test/support/clients.ts';
import type { Answer } from '../test/support/clients.ts';
import { TestServer } from '../test/support/server-process.ts';
import type { LagReport } from './lag-probe.ts';
import { callServer } from './server-call.ts';
import { printTable, quantile, recordResults } from './report.ts';
import type { Row } from './report.ts';

type TrainingRun = components['schemas']['TrainingRun'];

const CLIENTS = 8;
const WARM_MS = 3_000;
const PHASE_MS = 30_000;
/** The base's own evaluation comes before the first step. */
const FIRST_STEP_MS = 300_000;
const ASK = { maxTokens: 100, temperature: 1 };
const SETTINGS = { gateTasks: 20 };

const folder = mkdtempSync(join(tmpdir(), 'ramify-bench-'));
const server = await new TestServer({
  dataFolder: join(folder, 'data'),
  nodeFlags: ['--import', builtModule(import.meta.url, './lag-probe.ts').href],
  ipc: true,
}).ready();
try {
  const rows = await measureServer();
  printTable(rows);
  recordResults('serving', { repeats: 1, threads: 1 }, rows);
} finally {
  await server.end('SIGTERM');
  rmSync(folder, { recursive: true });
}

async function measureServer(): Promise<Row[]> {
  const answers: Answer[] = [];
  const end = new AbortController();
  const asking = Array.from(
    { length: CLIENTS },
    (_, seed) => new Client(server.url, 'chat stream', seed, ASK),
  );
  const asked = keepAsking(asking, end.signal, (answer) => void answers.push(answer));
  await sleep(WARM_MS);
  const rows = [await phase('serving', answers)];
  const run = await callServer<TrainingRun>(server.url, 'POST', '/v1/admin/retrain', {
    steps: 100,
    seed: 1,
    settings: SETTINGS,
  });
  rows.push(await phase('and the base evaluated', answers));
  const begunAt = performance.now();
  while ((await trainingRun(run.id)).progress.step < 1) {
    if (performance.now() - begunAt > FIRST_STEP_MS) {
      throw new AppError('internal', `no training step within ${FIRST_STEP_MS} ms`);
    }
    await sleep(100);
  }
  rows.push(await phase('and training', answers));
  const { status, progress } = await trainingRun(run.id);
  console.log(`the training run is ${status} after ${progress.step} steps`);
  await callServer(server.url, 'POST', `/v1/admin/training-runs/${run.id}/cancel`, {});
  end.abort();
  const { failures } = await asked;
  const [failure] = failures;
  if (failure !== undefined) throw failure;
  return rows;
}

/** Figures of the answers that came while the phase lasted. */
async function phase(name: string, answers: readonly Answer[]): Promise<Row> {
  const first = answers.length;
  await lag();
  const startedAt = performance.now();
  await sleep(PHASE_MS);
  const { all, own } = await lag();
  const seconds = (performance.now() - startedAt) / 1000;
  const done = answers.slice(first);
  const firsts = done.map(({ startedAt: at, pieces }) => (pieces[0] ?? NaN) - at);
  const gaps = done.flatMap(({ pieces }) => pieces.slice(1).map((at, i) => at - pieces[i]!));
  return {
    phase: name,
    'lag p50 ms': all.p50,
    'lag p99 ms': all.p99,
    'own p99 ms': own.p99,
    'own max ms': own.max,
    'tok/s': done.reduce((sum, { tokens }) => sum + tokens, 0) / seconds,
    'answers/s': done.length / seconds,
    'first p50 ms': quantile(firsts, 0.5),
    'first p99 ms': quantile(firsts, 0.99),
    'gap p99 ms': quantile(gaps, 0.99),
  };
}

async function lag(): Promise<LagReport> {
  const answer = once(server.child, 'message') as Promise<[LagReport]>;
  server.child.send('read');
  return (await answer)[0];
}

function trainingRun(id: string): Promise<TrainingRun> {
  return callServer(server.url, 'GET', `/v1/admin/training-runs/${id}`);
}
