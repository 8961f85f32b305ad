/**
 * `npm run bench:log`: the log at size. Fills a database with a million steps through the real step
 * log, then measures what the API asks of it (first and deep pages of every filter, trees, single
 * trajectories), exports through the thread that serves them, forgets a twentieth, the lag of this
 * thread meanwhile, and bytes a token on disk. Beside the clock stands processor time, which says
 * what a query costs where others keep the cores busy.
 *
 * `--steps N` for another size, `--data FOLDER` to keep the database and use it again, and
 * `--only fill` (or query, export, forget) for that alone.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHistogram } from 'node:perf_hooks';
import type { RecordableHistogram } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { exportStream } from '../api/export-stream.ts';
import { LogRetention } from '../api/log-retention.ts';
import { listView, stepView, trajectoryView } from '../api/views.ts';
import { must } from '../core/assert.ts';
import { ManualClock, systemClock } from '../core/clock.ts';
import { quiet } from '../core/log.ts';
import { Prng } from '../core/prng.ts';
import type { TrajectoryRecord } from '../core/records.ts';
import { openDatabase } from '../db/open.ts';
import type { Database } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import type { Stores } from '../db/stores.ts';
import type { TrajectoryFilter } from '../db/trajectory-filter.ts';
import { LogData } from './log-data.ts';
import { printTable, quantile, recordResults } from './report.ts';
import type { Row } from './report.ts';

const SEED = 1;
/** Batches that share a few commits. */
const BATCHES = 40;
const REPEATS = 100;

const { values } = parseArgs({
  options: { steps: { type: 'string' }, data: { type: 'string' }, only: { type: 'string' } },
});
const wanted = Number(values.steps ?? 1_000_000);
const folder = values.data ?? mkdtempSync(join(tmpdir(), 'ramify-log-'));
mkdirSync(folder, { recursive: true });
const file = join(folder, 'ramify.db');
const kept = existsSync(file);
const rows: Row[] = [];
try {
  if (!kept) rows.push(await fill());
  const db = openDatabase(file);
  const stores = openStores(db);
  rows.push(sizes(db));
  if (wants('query')) rows.push(...(await queries(stores)));
  if (wants('export')) {
    for (const compressed of [false, true]) rows.push(await exported(stores, compressed));
  }
  if (wants('forget')) rows.push(await forgotten(stores));
  stores.close();
} finally {
  if (values.data === undefined) rmSync(folder, { recursive: true });
}
for (const group of ['fill', 'size', 'query', 'export', 'forget']) {
  const shown = rows.filter((row) => row.kind === group).map(({ kind: _, ...row }) => row);
  if (shown.length > 0) printTable(shown);
  console.log('');
}
recordResults('log', { repeats: REPEATS, threads: availableParallelism() }, rows);

function wants(group: string): boolean {
  return values.only === undefined || values.only === group;
}

async function fill(): Promise<Row> {
  const clock = new ManualClock(1_767_225_600_000);
  const stores = openStores(openDatabase(file), clock);
  const data = new LogData(SEED, clock);
  const end = begin();
  let steps = 0;
  while (steps < wanted) {
    const batches = Array.from({ length: BATCHES }, () => data.batch());
    await Promise.all(batches.map((batch) => stores.stepLog.append(batch)));
    steps += batches.reduce((sum, batch) => sum + (batch.steps?.length ?? 0), 0);
  }
  stores.close();
  const { clock: ms, processor } = end();
  const seconds = ms / 1_000;
  return {
    kind: 'fill',
    steps,
    seconds,
    'steps/s': steps / seconds,
    'processor s': processor / 1_000,
    'steps / processor s': (1_000 * steps) / processor,
  };
}

function sizes({ sqlite }: Database): Row {
  const one = (sql: string): number => Number(sqlite.prepare(sql).pluck().get());
  const steps = one('SELECT count(*) FROM steps');
  const tokens = one('SELECT sum(length(tokens)) / 4 FROM steps');
  const sampled = one('SELECT sum(length(logprobs)) / 4 FROM steps');
  const bytes = statSync(file).size;
  return {
    kind: 'size',
    steps,
    trajectories: one('SELECT count(*) FROM trajectories'),
    'tokens (M)': tokens / 1e6,
    'sampled (M)': sampled / 1e6,
    'database (MB)': bytes / 1e6,
    'bytes/token': bytes / tokens,
  };
}

async function queries(stores: Stores): Promise<Row[]> {
  const { trajectories } = stores;
  const prng = new Prng(SEED);
  const sample = await someOf(stores, prng);
  const of = (pick: (record: TrajectoryRecord) => TrajectoryFilter) => (): TrajectoryFilter =>
    pick(prng.pick(sample));
  const filters: Record<string, () => TrajectoryFilter> = {
    'no filter': () => ({}),
    source: () => ({ source: prng.pick(['live', 'rollout'] as const) }),
    'source without rows': () => ({ source: 'replay' }),
    'policy version': of(({ policyVersion }) => ({ policyVersion })),
    tool: () => ({ toolName: prng.pick(['search', 'javascript']) }),
    'rare tool': () => ({ toolName: 'http' }),
    status: () => ({ status: prng.pick(['completed', 'failed', 'cancelled'] as const) }),
    'end reason': () => ({ endReason: prng.pick(['answer', 'max_tokens', 'context'] as const) }),
    task: of(({ taskId }) => ({ taskId: taskId ?? 'task_1' })),
    conversation: of(({ conversationId }) => ({ conversationId: conversationId ?? 'none' })),
    'training run': of(({ trainingRunId }) => ({ trainingRunId: trainingRunId ?? 'trn_1' })),
    group: of(({ groupId }) => ({ groupId: groupId ?? 'none' })),
    'reward range': () => {
      const low = prng.next();
      return { rewardMin: low, rewardMax: low + 0.01 };
    },
    'reward at least': () => ({ rewardMin: 2 * prng.next() - 1 }),
    unscored: () => ({ scored: false }),
    'entropy jump': () => ({ entropyJumpMin: 0.6 * prng.next() }),
    'time range': of(({ createdAt }) => ({
      createdFrom: createdAt,
      createdBefore: createdAt + 3_600_000,
    })),
    'version, tool, reward': of(({ policyVersion }) => ({
      policyVersion,
      toolName: 'search',
      rewardMin: 0.9,
    })),
    'task, failed': of(({ taskId }) => ({ taskId: taskId ?? 'task_1', status: 'failed' })),
    'live, jump, time': of(({ createdAt }) => ({
      source: 'live',
      entropyJumpMin: 0.3,
      createdFrom: createdAt,
    })),
    'reward range in a full level': () => ({ rewardMin: 0.76, rewardMax: 0.79 }),
    'that and more': () => ({ rewardMin: 0.76, rewardMax: 0.79, source: 'rollout', scored: true }),
    'many each, none both': () => ({ source: 'live', trainingRunId: 'trn_1' }),
    'failed, answer': () => ({ status: 'failed', endReason: 'answer' }),
    'rollout, unscored': () => ({ source: 'rollout', scored: false }),
    'tool, rollout, unscored': () => ({ toolName: 'search', source: 'rollout', scored: false }),
    'tool, completed, cancelled': () => ({
      toolName: 'search',
      status: 'completed',
      endReason: 'cancelled',
    }),
    'scored, large jump, unlikely': () => ({
      scored: true,
      entropyJumpMin: 0.5,
      rewardMin: 0.8,
      rewardMax: 0.8001,
    }),
    'run, task, scored': of(({ trainingRunId }) => ({
      trainingRunId: trainingRunId ?? 'trn_1',
      taskId: 'task_1',
      scored: true,
    })),
    'all at once': of(({ policyVersion, trainingRunId }) => ({
      tenant: 'default',
      policyVersion,
      trainingRunId: trainingRunId ?? 'trn_1',
      source: 'live',
      status: 'completed',
      endReason: 'answer',
      toolName: 'search',
      rewardMin: -1,
      rewardMax: 1,
      scored: true,
      entropyJumpMin: -1,
    })),
    'many each, none of four': () => ({
      source: 'live',
      status: 'failed',
      endReason: 'answer',
      scored: true,
    }),
  };
  const out: Row[] = [];
  for (const [name, filter] of Object.entries(filters)) {
    for (const deep of [false, true]) {
      const times: Cost[] = [];
      for (let i = 0; i < REPEATS; i++) {
        const asked = filter();
        const cursor = deep ? cursorAt(prng.pick(sample)) : undefined;
        const end = begin();
        const page = await trajectories.listInTurns(asked, { ...(cursor && { cursor }) });
        JSON.stringify(listView(page, trajectoryView));
        times.push(end());
      }
      out.push(timing(`list: ${name}${deep ? ', deep' : ''}`, times));
    }
  }
  const each = (name: string, work: (record: TrajectoryRecord) => unknown): void => {
    const times = Array.from({ length: REPEATS }, () => {
      const record = prng.pick(sample);
      const end = begin();
      JSON.stringify(work(record));
      return end();
    });
    out.push(timing(name, times));
  };
  each('get, with tokens', ({ id }) =>
    trajectories.get(id).steps.map((step) => stepView(step, { tokens: true })),
  );
  each('tree of a group', ({ id }) => {
    const tree = trajectories.tree(id);
    return [tree.steps.map((step) => stepView(step)), tree.trajectories.map(trajectoryView)];
  });
  return out;
}

/** A cursor as a list gives it: after this row. */
function cursorAt({ createdAt, id }: TrajectoryRecord): string {
  return Buffer.from(`${createdAt} ${id}`).toString('base64url');
}

/** From all over the log. */
async function someOf({ trajectories }: Stores, prng: Prng): Promise<TrajectoryRecord[]> {
  const [oldest] = trajectories.list({}, { limit: 1, oldestFirst: true }).items;
  const [newest] = trajectories.list({}, { limit: 1 }).items;
  const from = must(oldest, 'a trajectory').createdAt;
  const span = must(newest, 'a trajectory').createdAt - from;
  const sample: TrajectoryRecord[] = [];
  while (sample.length < 1_000) {
    const createdFrom = from + Math.floor(span * prng.next());
    sample.push(...trajectories.list({ createdFrom }, { limit: 1, oldestFirst: true }).items);
  }
  return sample;
}

interface Cost {
  clock: number;
  processor: number;
}

/** Milliseconds from here on, by both clocks. */
function begin(): () => Cost {
  const [start, before] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(before);
    return { clock: performance.now() - start, processor: (user + system) / 1e3 };
  };
}

function timing(what: string, costs: readonly Cost[]): Row {
  const [clock, processor] = [costs.map((one) => one.clock), costs.map((one) => one.processor)];
  return {
    kind: 'query',
    what,
    'p50 ms': quantile(clock, 0.5),
    'p95 ms': quantile(clock, 0.95),
    'p50 processor': quantile(processor, 0.5),
    'p95 processor': quantile(processor, 0.95),
    'max processor': Math.max(...processor),
  };
}

/** All of the log, through the thread that serves exports, and how late timers were meanwhile. */
async function exported(stores: Stores, compressed: boolean): Promise<Row> {
  const lag = watchLag();
  const task = { path: stores.path(), filter: {}, compressed };
  const start = performance.now();
  const before = process.cpuUsage();
  const { body, ended } = await exportStream(task, new AbortController().signal);
  let bytes = 0;
  let rss = 0;
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    bytes += value.byteLength;
    rss = Math.max(rss, process.memoryUsage.rss());
  }
  const trajectories = must(await ended, 'a whole export');
  const seconds = (performance.now() - start) / 1_000;
  const { user, system } = process.cpuUsage(before);
  return {
    kind: 'export',
    form: compressed ? 'gzip' : 'plain',
    trajectories,
    MB: bytes / 1e6,
    seconds,
    'MB/s': bytes / 1e6 / seconds,
    'processor s': (user + system) / 1e6,
    'lag p99 ms': lag().percentile(99) / 1e6,
    'memory MB': rss / 1e6,
  };
}

/** A twentieth of what the log uses, archived and deleted, and how late timers were meanwhile. */
async function forgotten(stores: Stores): Promise<Row> {
  const used = stores.logRemoval.usedBytes;
  const archive = join(folder, 'archive');
  let trajectories = 0;
  const retention = new LogRetention({
    ...{ stores, keep: { days: null, bytes: Math.round(0.95 * used) }, folder: archive },
    clock: systemClock,
    logger: { ...quiet, info: (fields) => void (trajectories = Number(fields['trajectories'])) },
  });
  const lag = watchLag();
  const end = begin();
  await retention.look();
  const { clock, processor } = end();
  const lags = lag();
  const files = readdirSync(archive).map((name) => statSync(join(archive, name)).size);
  return {
    kind: 'forget',
    trajectories,
    'freed MB': (used - stores.logRemoval.usedBytes) / 1e6,
    'archive MB': files.reduce((sum, bytes) => sum + bytes, 0) / 1e6,
    seconds: clock / 1e3,
    'processor s': processor / 1e3,
    'lag p50 ms': lags.percentile(50) / 1e6,
    'lag p99 ms': lags.percentile(99) / 1e6,
    'lag max ms': lags.max / 1e6,
  };
}

/** How late timers of this thread are from here on, in nanoseconds; the end of it is a call. */
function watchLag(): () => RecordableHistogram {
  const lag = createHistogram();
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    lag.record(Math.max(1, Math.round((now - last - 1) * 1e6)));
    last = now;
  }, 1);
  return () => {
    clearInterval(timer);
    return lag;
  };
}
