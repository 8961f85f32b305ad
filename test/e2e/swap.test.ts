/**
 * Swaps under load: 16 clients ask without a pause (chat streams through the official client, agent
 * runs plain and streamed) while the live policy moves by hand and by rollback. What
 * must hold: no answer fails or is cut, every answer comes from exactly one version (header, body
 * and log agree), answers under way stay on the version that they began with, and what is asked
 * after an activation has been acknowledged is answered by the new version.
 */
import { expect, it } from 'vitest';
import { freshSeed } from '../../core/prng.ts';
import { clients, keepAsking, WAYS } from '../support/clients.ts';
import type { Answer, Asked } from '../support/clients.ts';
import { writePerturbedPolicy } from '../support/policy-copies.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, dataFolderWithPolicies, fixture, withStores } from './fixture.ts';

const { path, launch } = fixture();

const CLIENTS = 16;
/** At this temperature policies ramble up to the limit, so that answers straddle the moves. */
const LONG = { maxTokens: 120, temperature: 1.5 };
const SETTLED_MS = 30_000;

interface Move {
  version: number;
  /** performance.now() when it was asked for, and when it was acknowledged. */
  askedAt: number;
  doneAt: number;
}

/** One load on one server; answers are counted as they come. */
class Traffic {
  readonly asked: Promise<Asked>;
  private readonly server: TestServer;
  private readonly answers: Answer[] = [];
  private readonly end = new AbortController();

  constructor(server: TestServer) {
    this.server = server;
    const seed = freshSeed();
    console.log(`seed of the clients: ${seed}`);
    const asking = clients(server.url, CLIENTS, seed, LONG);
    this.asked = keepAsking(asking, this.end.signal, (answer) => void this.answers.push(answer));
  }

  /** Moves the live policy, and waits for as many answers asked after that as there are clients. */
  async move(way: string): Promise<Move> {
    const askedAt = performance.now();
    const { status, body } = await call(this.server, 'POST', `/v1/admin/policies/${way}`);
    const doneAt = performance.now();
    expect({ status, body }, way).toMatchObject({ status: 200, body: { status: 'active' } });
    await this.answeredSince(doneAt);
    return { version: body.version, askedAt, doneAt };
  }

  async answeredSince(time: number): Promise<void> {
    await expect
      .poll(() => this.answers.filter(({ startedAt }) => startedAt > time).length, {
        timeout: SETTLED_MS,
        interval: 20,
      })
      .toBeGreaterThanOrEqual(CLIENTS);
  }

  /** Ends when the answers under way have come. */
  stop(): Promise<Asked> {
    this.end.abort();
    return this.asked;
  }
}

/** Every answer from one version, and the log says the same of each of its steps. */
async function checkAnswers({ answers, failures }: Asked, dataFolder: string): Promise<void> {
  expect(failures).toEqual([]);
  for (const { version, versionsInBody } of answers) expect([...versionsInBody]).toEqual([version]);
  await withStores(dataFolder, ({ trajectories, agentRuns }) => {
    for (const { trajectoryId, runId, version } of answers) {
      const { trajectory, steps } = trajectories.get(trajectoryId);
      expect(trajectory).toMatchObject({ policyVersion: version, status: 'completed' });
      expect(new Set(steps.map((step) => step.policyVersion))).toEqual(new Set([version]));
      if (runId !== null) expect(agentRuns.get(runId).policyVersion).toBe(version);
    }
  });
}

const of = (answers: readonly Answer[], version: number): Answer[] =>
  answers.filter((answer) => answer.version === version);

it('moves and rollbacks under 16 clients lose nothing and mix nothing', async () => {
  const dataFolder = path('data');
  await dataFolderWithPolicies(dataFolder, [
    (directory) => writePerturbedPolicy(directory, 2),
    (directory) => writePerturbedPolicy(directory, 3),
  ]);
  const server = await launch({ dataFolder }).ready();
  const traffic = new Traffic(server);
  await traffic.answeredSince(0);
  const moves: Move[] = [];
  for (const way of [
    '2/activate',
    '3/activate',
    'rollback',
    '3/activate',
    'rollback',
    'rollback',
  ]) {
    moves.push(await traffic.move(way));
  }
  const asked = await traffic.stop();
  expect(moves.map(({ version }) => version)).toEqual([2, 3, 2, 3, 2, 1]);
  const { answers } = asked;
  for (const version of [1, 2, 3]) {
    for (const way of WAYS) {
      expect(of(answers, version).filter((answer) => answer.way === way).length).toBeGreaterThan(0);
    }
  }
  let straddling = 0;
  for (const [i, { version, askedAt, doneAt }] of moves.entries()) {
    const before = moves[i - 1]?.version ?? 1;
    const until = moves[i + 1]?.askedAt ?? Infinity;
    // One that ends after the next move was asked for may have begun on either version.
    const own = answers.filter(({ startedAt, endedAt }) => startedAt > doneAt && endedAt < until);
    expect(new Set(own.map((answer) => answer.version)), `after move ${i}`).toEqual(
      new Set([version]),
    );
    straddling += of(answers, before).filter(
      ({ startedAt, endedAt }) => startedAt < askedAt && endedAt > doneAt,
    ).length;
  }
  expect(straddling).toBeGreaterThan(0);
  const nothing = await call(server, 'POST', '/v1/admin/policies/rollback');
  expect({ status: nothing.status, code: nothing.body.error.code }).toEqual({
    status: 409,
    code: 'nothing_to_roll_back',
  });
  // Versions that nobody asks any more leave memory.
  await expect
    .poll(async () => (await call(server, 'GET', '/readyz')).body.engine, { timeout: 5_000 })
    .toEqual({ versions: [1], open_sequences: 0, queued: 0, running: 0 });
  expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(server.stderr).toBe('');
  await checkAnswers(asked, dataFolder);
  console.log(
    `${answers.length} answers (${[1, 2, 3].map((v) => of(answers, v).length).join(' + ')}) ` +
      `through ${moves.length} moves; ${straddling} ran across one`,
  );
}, 180_000);
