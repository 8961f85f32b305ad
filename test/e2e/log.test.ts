/**
 * The log over real sockets, with a real policy: what was sampled scores the same again, exports
 * stream from one snapshot while others write, and come back as they were in another server.
 */
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, test } from 'vitest';
import { readTrajectoryLine } from '../../api/trajectory-lines.ts';
import { LIMITS } from '../../core/limits.ts';
import { Prng } from '../../core/prng.ts';
import { chain, trajectoryOf } from '../fixtures/random-records.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture, withStores } from './fixture.ts';

const RUNS = 12;
/** Random ones, so that an export is longer than what waits in buffers. */
const STORED = 1_500;

const { path, launch } = fixture();
let server: TestServer;
let live: string[];

beforeAll(async () => {
  const data = path('data');
  await withStores(data, async ({ stepLog }) => {
    const prng = new Prng(1);
    for (let i = 0; i < STORED; i++) {
      const steps = chain(prng, `step_old${i}`, 4);
      const leaf = steps[3]!;
      const old = { source: 'eval', createdAt: 1_000 + i } as const;
      await stepLog.append({ steps, trajectories: [trajectoryOf(`traj_old${i}`, leaf, old)] });
    }
  });
  server = launch({ dataFolder: data });
  await server.ready();
  const questions = Array.from({ length: RUNS }, (_, i) => `What is ${i} plus ${i + 1}?`);
  const runs = await Promise.all(
    questions.map((input) =>
      call(server, 'POST', '/v1/agent/runs', { input, tools: ['search', 'javascript'] }),
    ),
  );
  live = runs.map(({ status, body }) => (expect(status).toBe(200), body.trajectory_id as string));
}, 120_000);

const replay = (id: string, body: object) =>
  call(server, 'POST', `/v1/trajectories/${id}/replay`, body);

describe('replay', () => {
  test('what a version sampled scores the same under it, to 1e-4', async () => {
    const scores = [];
    for (const id of live) scores.push(await replay(id, {}));
    for (const { status, body } of scores) {
      expect(status).toBe(200);
      expect(body.tokens).toBeGreaterThan(0);
      expect(body.max_drift).toBeLessThanOrEqual(1e-4);
    }
  });

  test('the same paths come out of the same seed, and tools answer from the log', async () => {
    const body = { mode: 'resample', samples: 3, seed: 7, temperature: 1 };
    const [first, again] = [await replay(live[0]!, body), await replay(live[0]!, body)];
    expect(first.status).toBe(200);
    const texts = ({ body: { paths } }: typeof first): string[][] =>
      paths.map(({ steps }: { steps: { text: string }[] }) => steps.map(({ text }) => text));
    expect(texts(again)).toEqual(texts(first));
    const calls = first.body.paths.flatMap(({ steps }: { steps: { tool_call?: object }[] }) =>
      steps.flatMap((step) => step.tool_call ?? []),
    );
    for (const { served } of calls) expect(served).toBe('recorded');
  });
});

describe('export', () => {
  test('one snapshot, while others write', async () => {
    const response = await fetch(`${server.url}/v1/trajectories/export`);
    // The first bytes are there, so the snapshot is taken; the rest is still to come.
    await call(server, 'POST', '/v1/agent/runs', { input: 'What is 1 plus 1?', tools: [] });
    const lines = (await response.text()).trimEnd().split('\n').map(readTrajectoryLine);
    expect(lines).toHaveLength(STORED + RUNS);
    expect(lines.filter(({ trajectory }) => trajectory.source === 'live')).toHaveLength(RUNS);
  });

  test('compressed, filtered, and imported by another server without loss', async () => {
    const query = '/v1/trajectories/export?source=live';
    const asked = { headers: { 'accept-encoding': 'gzip' } };
    const plain = await (await fetch(server.url + query, asked)).text();
    const other = launch({ dataFolder: path('other') });
    await other.ready();
    const type = 'application/x-ndjson';
    const first = await call(other, 'POST', '/v1/trajectories/import', plain, type);
    expect(first.body).toMatchObject({ created: RUNS + 1, known: 0 });
    const again = await call(other, 'POST', '/v1/trajectories/import', plain, type);
    expect(again.body).toMatchObject({ created: 0, known: RUNS + 1 });
    const back = await (await fetch(other.url + query, asked)).text();
    expect(back).toBe(plain);
    await other.end('SIGTERM');
  });

  test('a client that leaves in the middle frees its place', async () => {
    for (let i = 0; i < 3 * LIMITS.exportsMax; i++) {
      const leave = new AbortController();
      const response = await fetch(`${server.url}/v1/trajectories/export`, {
        signal: leave.signal,
        headers: { 'accept-encoding': 'identity' },
      });
      // Those that left before may still be on their way out.
      if (response.status === 503) await new Promise((resolve) => setTimeout(resolve, 200));
      else await response.body!.getReader().read();
      leave.abort();
    }
    await expect
      .poll(async () => (await fetch(`${server.url}/v1/trajectories/export?source=replay`)).status)
      .toBe(200);
  });

  test('the raw bytes are gzip when asked for', async () => {
    const { connect } = await import('node:net');
    const { port, hostname } = new URL(server.url);
    const bytes = await new Promise<Buffer>((resolve, reject) => {
      const socket = connect(Number(port), hostname);
      const pieces: Buffer[] = [];
      socket.on('data', (piece) => pieces.push(piece));
      socket.on('end', () => resolve(Buffer.concat(pieces)));
      socket.on('error', reject);
      socket.write(
        'GET /v1/trajectories/export?source=live HTTP/1.0\r\n' +
          `Host: ${hostname}:${port}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n`,
      );
    });
    const body = bytes.subarray(bytes.indexOf('\r\n\r\n') + 4);
    const lines = gunzipSync(body).toString().trimEnd().split('\n');
    expect(lines).toHaveLength(RUNS + 1);
  });
});
