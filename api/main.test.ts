/**
 * The program as a process, with the real engine, trainer, tools and database on disk: it starts,
 * answers, keeps what it answered through a kill, stops in order, and says in one line why it does
 * not start.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { builtModule } from '../core/paths.ts';
import { writeRandomPolicy } from './testing/random-policy.ts';

const main = fileURLToPath(builtModule(import.meta.url, './main.ts'));

let folder: string;
let policy: string;
let data: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-main-'));
  policy = join(folder, 'policy');
  data = join(folder, 'data');
  writeRandomPolicy(policy);
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  rmSync(folder, { recursive: true });
});

interface Run {
  child: ChildProcess;
  out: string;
  err: string;
}

function launch(environment: Record<string, string> = {}): Run {
  const settings = { RAMIFY_PORT: '0', RAMIFY_DATA: data, RAMIFY_POLICY: policy };
  const own = { ...settings, RAMIFY_ENGINE_THREADS: '1', RAMIFY_TRAINER_THREADS: '1' };
  const child = spawn(process.execPath, [main], {
    env: { PATH: process.env['PATH'], RAMIFY_LOG_LEVEL: 'warn', ...own, ...environment },
  });
  children.push(child);
  const run: Run = { child, out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (run.out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (run.err += text));
  return run;
}

type Server = Run & { url: string };

async function start(environment: Record<string, string> = {}): Promise<Server> {
  const run = launch(environment);
  while (!run.out.includes('\n')) {
    await Promise.race([
      once(run.child.stdout as NodeJS.ReadableStream, 'data'),
      once(run.child, 'exit'),
    ]);
    if (run.child.exitCode !== null) throw new Error(`did not start: ${run.err}`);
  }
  const url = /^ramify is ready at (http:\S+)\n$/.exec(run.out)?.[1];
  if (url === undefined) throw new Error(`no ready line: ${run.out}`);
  return Object.assign(run, { url });
}

/** Exit code and what was said on stderr. */
async function failedStart(environment: Record<string, string>): Promise<Run> {
  const run = launch(environment);
  await once(run.child, 'close');
  expect(run.child.exitCode).toBe(1);
  expect(run.out).toBe('');
  expect(run.err.trimEnd().split('\n')).toHaveLength(1);
  return run;
}

async function post(url: string, path: string, body: unknown): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) });
}

const CHAT = {
  model: 'ramify',
  messages: [{ role: 'user', content: 'what is 1 plus 2' }],
  max_tokens: 24,
};

test('serves, keeps answers through a kill, starts again with them, stops in order', async () => {
  const first = await start();
  expect((await fetch(`${first.url}/readyz`)).status).toBe(200);
  const chat = await post(first.url, '/v1/chat/completions', CHAT);
  expect(chat.status).toBe(200);
  const trajectory = chat.headers.get('x-ramify-trajectory') as string;
  const streamed = await post(first.url, '/v1/chat/completions', { ...CHAT, stream: true });
  expect(await streamed.text()).toMatch(/data: \[DONE\]\n\n$/);
  const run = await post(first.url, '/v1/agent/runs', {
    input: 'x',
    tools: ['search'],
    max_tokens: 24,
  });
  expect(await run.json()).toMatchObject({ object: 'agent.run', policy_version: 1 });
  const tasks = (await (await fetch(`${first.url}/v1/tasks?limit=1`)).json()) as {
    data: unknown[];
  };
  expect(tasks.data).toHaveLength(1);
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  // What a process that died in between may have left behind.
  mkdirSync(join(data, 'policies', '9'), { recursive: true });
  mkdirSync(join(data, 'policies', '.2.partial'));
  const second = await start();
  const kept = await fetch(`${second.url}/v1/trajectories/${trajectory}`);
  expect(await kept.json()).toMatchObject({ id: trajectory, status: 'completed' });
  expect(existsSync(join(data, 'policies', '9'))).toBe(false);
  expect(existsSync(join(data, 'policies', '.2.partial'))).toBe(false);
  second.child.kill('SIGTERM');
  await once(second.child, 'exit');
  expect(second.child.exitCode).toBe(0);
});

test('SIGTERM lets a stream end; the listener is closed meanwhile', async () => {
  const server = await start();
  const long = { ...CHAT, max_tokens: 200, stream: true, stop: ['\u0000never'] };
  const response = await post(server.url, '/v1/chat/completions', long);
  const text = response.text();
  server.child.kill('SIGTERM');
  expect(await text).toMatch(/data: \[DONE\]\n\n$|"code":"not_ready"/);
  await once(server.child, 'exit');
  expect(server.child.exitCode).toBe(0);
  await expect(fetch(`${server.url}/healthz`)).rejects.toThrow();
});

test('a training run in its process, to a verdict; the next one goes on after kills of the server', async () => {
  const first = await start();
  const settings = {
    groupSize: 4,
    promptsPerStep: 2,
    maxTokens: 16,
    gateTasks: 20,
    initialRollouts: 2,
    checkpointEvery: 1,
  };
  const retrain = async (server: Server, steps: number): Promise<string> => {
    const answer = await post(server.url, '/v1/admin/retrain', { steps, seed: 1, settings });
    return ((await answer.json()) as { id: string }).id;
  };
  const path = '/v1/admin/training-runs';
  const events = async (server: Server, id: string): Promise<string> =>
    (await fetch(`${server.url}${path}/${id}/events`)).text();
  const text = await events(first, await retrain(first, 1));
  expect(text).toContain('event: gate.completed\n');
  expect(text).toContain('event: policy.decided\n');
  expect(text).toMatch(/event: run\.completed\n/);
  const steps = 4;
  const id = await retrain(first, steps);
  interface Progress {
    status: string;
    progress: { step: number };
    metrics: { step: number }[];
  }
  const read = async (server: Server): Promise<Progress> =>
    (await fetch(`${server.url}${path}/${id}?include=metrics`)).json() as Promise<Progress>;
  let server = first;
  for (const step of [1, 2]) {
    await expect
      .poll(async () => (await read(server)).progress.step, { timeout: 60_000, interval: 50 })
      .toBeGreaterThanOrEqual(step);
    server.child.kill('SIGKILL');
    await once(server.child, 'exit');
    server = await start();
  }
  const whole = await events(server, id);
  expect(whole.match(/event: step\.completed\n/g)).toHaveLength(steps);
  expect(whole).toMatch(/event: run\.completed\n/);
  const run = await read(server);
  expect(run.metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  const list = await fetch(`${server.url}/v1/trajectories?training_run_id=${id}&limit=100`);
  const rollouts = ((await list.json()) as { data: unknown[] }).data;
  expect(rollouts).toHaveLength(steps * settings.promptsPerStep * settings.groupSize);
  await expect.poll(() => existsSync(join(data, 'checkpoints', id))).toBe(false);
});

test('a port in use', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const { err } = await failedStart({ RAMIFY_PORT: String(port) });
  other.close();
  expect(err).toBe(`ramify: RAMIFY_PORT=${port}: the port is in use on 127.0.0.1\n`);
});

test('a data folder that is used by another server', async () => {
  await start();
  const { err } = await failedStart({});
  expect(err).toBe(`ramify: the data folder ${data} is in use by another server\n`);
});

test('a data folder that cannot be written', async () => {
  writeFileSync(join(folder, 'file'), '');
  const { err } = await failedStart({ RAMIFY_DATA: join(folder, 'file', 'data') });
  expect(err).toContain(`ramify: cannot use the data folder ${join(folder, 'file', 'data')}: `);
});

test.each([
  ['missing', () => rmSync(policy, { recursive: true }), 'is missing'],
  ['without weights', () => rmSync(join(policy, 'model.safetensors')), 'model.safetensors'],
  [
    'with a broken tokenizer',
    () => appendFileSync(join(policy, 'tokenizer.json'), '}'),
    'tokenizer.json',
  ],
])('a policy directory that is %s', async (_, damage, named) => {
  damage();
  const { err } = await failedStart({});
  expect(err).toContain(policy);
  expect(err).toContain(named);
});

test('a device that this machine does not have', async () => {
  // Hides the GPU where there is one.
  const { err } = await failedStart({ RAMIFY_DEVICE: 'cuda', CUDA_VISIBLE_DEVICES: '' });
  expect(err).toMatch(/^ramify: RAMIFY_DEVICE=cuda: [^\n]+\n$/);
});

test('a wrong setting', async () => {
  const { err } = await failedStart({ RAMIFY_PORT: 'http' });
  expect(err).toBe('ramify: RAMIFY_PORT=http: must be a port from 0 to 65535\n');
});
