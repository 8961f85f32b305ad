/**
 * The server is killed (SIGKILL) at random moments while clients ask, post feedback, and a trainer
 * writes. What must hold after each restart: every answer that a client had seen whole is in the
 * log, whole and as it was told, with its feedback; nothing that was under way looks as if it still
 * were; the database is sound; and no half-written policy is loaded or left behind.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import BetterSqlite3 from 'better-sqlite3';
import { expect, it } from 'vitest';
import { LIMITS } from '../../core/limits.ts';
import { freshSeed, mix, Prng } from '../../core/prng.ts';
import { clients, keepAsking } from '../support/clients.ts';
import type { Answer } from '../support/clients.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture } from './fixture.ts';

const { path, launch } = fixture();

const CLIENTS = 8;
const KILLS = 20;
/** Kills of a server whose trainer is at work. */
const TRAINING_KILLS = 3;
/** A kill comes at the latest after this, also on a machine that answers slowly. */
const LOAD_MS = 5_000;
const SHORT = { maxTokens: 48, temperature: 1 };
const TINY_RUN = {
  steps: 1,
  settings: {
    groupSize: 2,
    initialRollouts: 1,
    promptsPerStep: 1,
    maxTokens: 32,
    maxToolCalls: 1,
    gateTasks: LIMITS.gateTasksMin,
    tolerance: 1,
  },
};

/** What a client was told, and the reward that it was told is stored. */
interface Told {
  answer: Answer;
  reward: number | null;
}

/** Load until the server is gone; returns what came whole before that. */
async function askUntilKilled(server: TestServer, seed: number): Promise<Told[]> {
  const told: Told[] = [];
  const prng = new Prng(seed);
  // A moment counted in answers is as random on a slow machine as on a fast one.
  const answers = prng.below(4 * CLIENTS);
  const extraMs = prng.below(50);
  const deadline = performance.now() + LOAD_MS;
  const stop = new AbortController();
  const asking = keepAsking(clients(server.url, CLIENTS, seed, SHORT), stop.signal, (answer) =>
    note(server, answer, told),
  );
  while (told.length < answers && performance.now() < deadline) await sleep(1);
  await sleep(extraMs);
  const gone = server.end('SIGKILL');
  stop.abort();
  await gone;
  const { failures } = await asking;
  // A cut connection is the only thing that may go wrong.
  const refusals = failures.filter(({ message }) => /^(\d{3} |run |error frame)/.test(message));
  expect(refusals).toEqual([]);
  return told;
}

async function note(server: TestServer, answer: Answer, told: Told[]): Promise<void> {
  const entry: Told = { answer, reward: null };
  told.push(entry);
  const reward = told.length / 1024;
  const body = { trajectory_id: answer.trajectoryId, metric_name: 'reward', value: reward };
  const { status } = await call(server, 'POST', '/v1/feedback', body);
  if (status === 200) entry.reward = reward;
}

/** Holds what clients were told against the log of a server that was started anew. */
async function checkTold(
  server: TestServer,
  told: readonly Told[],
  context: string,
): Promise<void> {
  for (const { answer, reward } of told) {
    const { trajectoryId, runId, texts, tokens, version } = answer;
    const what = `${context}, ${answer.way} ${trajectoryId}`;
    const get = await call(server, 'GET', `/v1/trajectories/${trajectoryId}?include=tokens`);
    expect(get.status, what).toBe(200);
    const { steps, ...trajectory } = get.body;
    expect(trajectory, what).toMatchObject({ status: 'completed', policy_version: version });
    if (reward !== null) expect(trajectory.reward, what).toBe(reward);
    expect(steps.at(-1).id, what).toBe(trajectory.leaf_step_id);
    expect(steps.map(({ index }: { index: number }) => index)).toEqual([...steps.keys()]);
    let sampled = 0;
    for (const step of steps) {
      for (const values of [step.tokens, step.logprobs, step.entropies]) {
        expect(values, what).toHaveLength(step.token_count);
      }
      if (step.kind !== 'policy') continue;
      sampled += step.token_count;
      expect([...step.logprobs, ...step.entropies], what).not.toContain(null);
    }
    expect(sampled, what).toBe(tokens);
    if (runId === null) continue;
    expect(
      steps.map(({ text }: { text: string }) => text),
      what,
    ).toEqual(texts);
    const run = await call(server, 'GET', `/v1/agent/runs/${runId}`);
    expect(run.body, what).toMatchObject({ status: 'completed', answer: trajectory.answer });
  }
}

/** Looks into the files beside the running server. */
function checkFiles(dataFolder: string, context: string): void {
  const db = new BetterSqlite3(join(dataFolder, 'ramify.db'), { readonly: true });
  const count = (sql: string): unknown => db.prepare(sql).pluck().get();
  try {
    expect(db.pragma('integrity_check', { simple: true }), context).toBe('ok');
    expect(db.pragma('foreign_key_check'), context).toEqual([]);
    const open = `SELECT count(*) FROM agent_runs WHERE ended_at IS NULL`;
    const training = `SELECT count(*) FROM training_runs WHERE ended_at IS NULL`;
    expect([count(open), count(training)], context).toEqual([0, 0]);
    const paths = db.prepare(`SELECT path FROM policies WHERE version > 1`).pluck().all();
    const known = (paths as string[]).map((path) => resolve(dataFolder, path));
    const folder = join(dataFolder, 'policies');
    const found = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
    expect(found.sort(), context).toEqual(known.sort());
  } finally {
    db.close();
  }
}

it(`${KILLS} kills under load lose nothing that a client saw whole`, async () => {
  const dataFolder = path('data');
  const seed = freshSeed();
  console.log(`seed of the kills: ${seed}`);
  let server = await launch({ dataFolder }).ready();
  const slowest = { readyMs: 0 };
  let seen = 0;
  for (let i = 0; i < KILLS; i++) {
    const context = `seed ${seed}, kill ${i}`;
    const told = await askUntilKilled(server, mix(seed, i));
    seen += told.length;
    server = await launch({ dataFolder }).ready();
    slowest.readyMs = Math.max(slowest.readyMs, server.readyMs);
    checkFiles(dataFolder, context);
    await checkTold(server, told, context);
  }
  expect(seen).toBeGreaterThan(KILLS);
  expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
  console.log(
    `${seen} answers seen whole over ${KILLS} kills, all in the log; slowest restart ` +
      `${slowest.readyMs.toFixed(0)} ms`,
  );
}, 240_000);

it(`${TRAINING_KILLS} kills while a candidate is written: the run goes on and leaves it whole`, async () => {
  const dataFolder = path('data');
  let server = await launch({ dataFolder }).ready();
  for (let i = 0; i < TRAINING_KILLS; i++) {
    const version = i + 2;
    const { body: run } = await call(server, 'POST', '/v1/admin/retrain', { ...TINY_RUN, seed: i });
    const partial = join(dataFolder, 'policies', `.${version}.partial`);
    const whole = join(dataFolder, 'policies', String(version));
    const deadline = performance.now() + 60_000;
    while (!existsSync(partial) && !existsSync(whole)) {
      expect(performance.now(), 'the candidate was not begun in time').toBeLessThan(deadline);
      await sleep(1);
    }
    // A millisecond more each time, so that the kills hit different moments of the writing.
    await sleep(i);
    await server.end('SIGKILL');
    server = await launch({ dataFolder }).ready();
    const served = (await call(server, 'GET', '/readyz')).body.policy_version as number;
    expect([version - 1, version], 'what is served is whole').toContain(served);
    await expect
      .poll(async () => (await call(server, 'GET', `/v1/admin/training-runs/${run.id}`)).body, {
        timeout: 60_000,
        interval: 50,
      })
      .toMatchObject({ status: 'completed', candidate_version: version });
    checkFiles(dataFolder, `kill ${i}`);
    expect((await call(server, 'GET', '/readyz')).body.policy_version).toBe(version);
  }
  await server.end('SIGKILL');
  server = await launch({ dataFolder }).ready();
  checkFiles(dataFolder, 'at the end');
  expect((await call(server, 'GET', '/readyz')).body.policy_version).toBe(TRAINING_KILLS + 1);
}, 240_000);
