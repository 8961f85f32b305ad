/**
 * One seed of the experiment on a server of its own: examine, then in parts converse and wait for
 * the run that the schedule starts by itself, then examine again. The database holds no task and no
 * truth, except the gate's trusted tasks where feedback is inverted.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { AppError } from '../../core/errors.ts';
import { mix, Prng } from '../../core/prng.ts';
import { HttpClient, type Schemas } from '../demo/http-client.ts';
import { chooseQuestions, readTasks, readTestTasks } from '../demo/questions.ts';
import { startServerProcess } from '../demo/server-process.ts';
import { examine, play, type Accuracy, type Played } from './live-stream.ts';

export interface ExperimentOptions {
  /** Live conversations in all, and in how many parts they come; each part starts a run. */
  conversations: number;
  parts: number;
  /** Held-out questions. */
  questions: number;
  /** Body of a scheduled run: steps, settings. */
  run: Record<string, unknown>;
  /** Share of conversations with inverted feedback; above 0 the gate gets trusted tasks. */
  invert: number;
  say: (line: string) => void;
}

export interface PartResult extends Played {
  status: Schemas['TrainingRun']['status'];
  gate: Schemas['TrainingRun']['gate'];
  seconds: number;
}

export interface SeedResult {
  seed: number;
  tasksStored: number;
  before: Accuracy;
  after: Accuracy;
  parts: PartResult[];
  /** Version that was live at the end, and how long a rollback took; null: there was nothing. */
  version: number;
  rollbackMs: number | null;
}

const SEEDS = { questions: 1, examination: 2, conversations: 3, order: 4 } as const;
const POLL_MS = 500;
const RUN_MS = 3 * 60 * 60_000;

export async function runSeed(
  seed: number,
  options: ExperimentOptions,
  signal: AbortSignal,
): Promise<SeedResult> {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-live-learning-'));
  const perPart = Math.floor(options.conversations / options.parts);
  const server = await startServerProcess(folder, signal, {
    RAMIFY_TASKS: 'none',
    RAMIFY_MIN_NEW_SCORED: String(perPart),
    RAMIFY_SCHEDULED_RUN: JSON.stringify(options.run),
  });
  try {
    const client = new HttpClient(server.url, AbortSignal.any([signal, server.died]));
    return await experiment(client, seed, { ...options, perPart });
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function experiment(
  client: HttpClient,
  seed: number,
  options: ExperimentOptions & { perPart: number },
): Promise<SeedResult> {
  const { perPart, parts, invert, say } = options;
  if (invert > 0) {
    const lines = readTasks('gate').map((task) => JSON.stringify(task));
    await client.importTasks(lines.join('\n'));
  }
  const held = chooseQuestions(readTestTasks(), options.questions, mix(seed, SEEDS.questions));
  const asked = new Prng(mix(seed, SEEDS.order)).shuffle(readTasks('train'));
  const examineAll = (): Promise<Accuracy> =>
    examine(client, held.questions, mix(seed, SEEDS.examination));
  const before = await examineAll();
  say(`seed ${seed}: before ${percent(before)}`);
  const results: PartResult[] = [];
  for (let part = 0; part < parts; part++) {
    const tasks = asked.slice(part * perPart, (part + 1) * perPart);
    const played = await play(client, tasks, {
      seed: mix(seed, SEEDS.conversations, part),
      invert,
    });
    const startedAt = performance.now();
    const run = await scheduledRun(client, part + 1);
    const seconds = (performance.now() - startedAt) / 1_000;
    results.push({ ...played, status: run.status, gate: run.gate, seconds });
    say(
      `seed ${seed}: ${played.conversations} conversations, ${played.liked} liked; the run ` +
        `${run.status} after ${seconds.toFixed(0)} s${run.gate ? `: ${run.gate.reason}` : ''}`,
    );
  }
  const after = await examineAll();
  const { active } = await client.policies();
  say(`seed ${seed}: after ${percent(after)}, version ${active}`);
  const { data: stored } = await client.tasks();
  const rollbackMs = active === 1 ? null : await timedRollback(client);
  const version = active ?? 1;
  return { seed, tasksStored: stored.length, before, after, parts: results, version, rollbackMs };
}

/** The nth run, which the schedule starts, when it has ended. */
async function scheduledRun(client: HttpClient, nth: number): Promise<Schemas['TrainingRun']> {
  const until = performance.now() + RUN_MS;
  while (performance.now() < until) {
    const { data } = await client.trainingRuns();
    const run = data[data.length - nth];
    if (run !== undefined && run.ended_at !== null) {
      if (run.status === 'completed' || run.status === 'rejected') return run;
      throw new AppError(
        'internal',
        `training run ${run.id} is ${run.status}: ${String(run.error)}`,
      );
    }
    await delay(POLL_MS);
  }
  throw new AppError('internal', `training run ${nth} did not end within ${RUN_MS / 1_000} s`);
}

async function timedRollback(client: HttpClient): Promise<number> {
  const startedAt = performance.now();
  await client.rollback();
  return performance.now() - startedAt;
}

export const percent = ({ sampled, greedy }: Accuracy): string =>
  `sampled ${(100 * sampled).toFixed(1)} %, greedy ${(100 * greedy).toFixed(1)} %`;
