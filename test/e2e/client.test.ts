/**
 * The client's package as others get it: the files that npm would publish, in a folder beside a
 * program of their own, type-checked there and run against a real server, over connections that
 * break.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import type { TestServer } from '../support/server-process.ts';
import { fixture } from './fixture.ts';

const { path, launch } = fixture();
const SOURCE = join(packageRoot, 'client');
const QUESTION = 'What is the capital of France?';

// Loaded where it was installed, so its types are not known here; PROGRAM is checked against them.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Unchecked = any;

let home: string;
let library: Unchecked;
let server: TestServer;

const PROGRAM = `
import { createClient, followAgentRun, RamifyError, startAgentRun, streamChat, unwrap } from 'ramify-client';
import type { Schemas } from 'ramify-client';
const client = createClient({ baseUrl: 'http://127.0.0.1:1', apiKey: 'k' });
const list: Schemas['ModelList'] = await unwrap(client.GET('/v1/models'));
const id: string | undefined = list.data[0]?.id;
// @ts-expect-error no such path
await client.GET('/v1/nothing');
// @ts-expect-error the body lacks its messages
await client.POST('/v1/chat/completions', { body: { model: 'ramify' } });
for await (const chunk of streamChat(client, { model: 'ramify', messages: [{ role: 'user', content: 'x' }] })) {
  const text: string | null | undefined = chunk.choices[0]?.delta.content;
}
const run = await startAgentRun(client, { input: 'x', tools: ['search'] });
for await (const event of followAgentRun(client, run.id)) {
  if (event.type === 'step.completed') console.log(event.step.kind, id);
}
`;

beforeAll(async () => {
  home = path('consumer');
  const installed = join(home, 'node_modules', 'ramify-client');
  for (const file of publishedFiles()) cpSync(join(SOURCE, file), join(installed, file));
  const dependency = join(home, 'node_modules', 'openapi-fetch');
  symlinkSync(join(packageRoot, 'node_modules', 'openapi-fetch'), dependency, 'junction');
  library = await import(pathToFileURL(join(installed, 'dist', 'index.js')).href);
  server = await launch({ dataFolder: path('data') }).ready();
});

/** By npm, which reads `files` of package.json. */
function publishedFiles(): string[] {
  const npm = spawnSync('npm', ['pack', '--dry-run', '--json'], {
    cwd: SOURCE,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  const found = JSON.parse(npm.stdout) as unknown;
  const [pack] = (Array.isArray(found) ? found : Object.values(found as object)) as {
    files: { path: string }[];
  }[];
  return (pack?.files ?? []).map((file) => file.path);
}

/** A fetch whose bodies break off, the first after so many bytes and each later one after more. */
function breaking(bytes: number): (request: Request) => Promise<Response> {
  let allowed = bytes / 2;
  return async (request) => {
    const response = await fetch(request);
    const reader = response.body?.getReader();
    let left = (allowed *= 2);
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { value, done } = (await reader?.read()) ?? { value: undefined, done: true };
        if (done) return controller.close();
        const piece = value?.subarray(0, left) ?? new Uint8Array();
        controller.enqueue(piece);
        left -= piece.length;
        if (left > 0) return;
        await reader?.cancel();
        controller.error(new TypeError('cut'));
      },
    });
    return new Response(body, response);
  };
}

const client = (options: object = {}): Unchecked =>
  library.createClient({ baseUrl: server.url, ...options });

test('a program that uses the package is type-checked against it', () => {
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, 'program.mts'), PROGRAM);
  writeFileSync(join(home, 'package.json'), '{"type":"module"}');
  const tsc = join(packageRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022'];
  const { stdout, status } = spawnSync(process.execPath, [tsc, ...options, 'program.mts'], {
    cwd: home,
    encoding: 'utf8',
  });
  expect(stdout).toBe('');
  expect(status).toBe(0);
});

test('versions are those of the server and of what it is tested with', () => {
  const read = (file: string): { version: string; dependencies: Record<string, string> } =>
    JSON.parse(readFileSync(join(packageRoot, file), 'utf8')) as never;
  const [own, root] = [read('client/package.json'), read('package.json')];
  expect(own.version).toBe(root.version);
  const dependency = read('node_modules/openapi-fetch/package.json').version;
  expect(own.dependencies['openapi-fetch']).toBe(dependency);
});

test('answers have their types, errors are a class with all that the server told', async () => {
  const models = await library.unwrap(client().GET('/v1/models'));
  expect(models.data.map((model: Unchecked) => model.id)).toEqual(['ramify', 'ramify@1']);
  const lost = library.unwrap(
    client().GET('/v1/trajectories/{trajectory_id}', {
      params: { path: { trajectory_id: 'traj_none' } },
    }),
  );
  const error = await lost.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(library.RamifyError);
  expect(error).toMatchObject({ code: 'trajectory_not_found', status: 404, retryAfterS: null });
  expect(error.requestId).toMatch(/^req_/);
});

test('a chat is streamed to its end; one that breaks off says so', async () => {
  const request = { model: 'ramify', messages: [{ role: 'user' as const, content: QUESTION }] };
  let reason: string | null | undefined;
  for await (const chunk of library.streamChat(client(), request)) {
    reason = chunk.choices[0]?.finish_reason ?? reason;
  }
  expect(reason).toMatch(/stop|tool_calls|length/);
  const cut = library.streamChat(client({ fetch: breaking(300) }), request);
  const readAll = async (): Promise<void> => {
    for await (const chunk of cut) expect(chunk.object).toBe('chat.completion.chunk');
  };
  await expect(readAll()).rejects.toThrow();
  const refused = library.streamChat(client(), { ...request, model: 'other' });
  await expect(refused.next()).rejects.toMatchObject({ code: 'model_not_found' });
});

test('events of an agent run come once and whole over connections that break', async () => {
  const run = await library.startAgentRun(client(), {
    input: QUESTION,
    tools: ['search'],
    seed: 1,
  });
  const whole: string[] = [];
  for await (const event of library.followAgentRun(client(), run.id)) {
    whole.push(event.type === 'step.completed' ? event.step.id : event.type);
  }
  expect(whole.at(-1)).toBe('run.completed');
  const stored = await library.unwrap(
    client().GET('/v1/agent/runs/{run_id}', { params: { path: { run_id: run.id } } }),
  );
  const steps = stored.steps.map((step: Unchecked) => step.id);
  expect(whole.filter((name) => name.startsWith('step_'))).toEqual(steps);

  const pieces: string[] = [];
  let connections = 0;
  const broken = breaking(500);
  const cut = client({ fetch: (request: Request) => (connections++, broken(request)) });
  for await (const event of library.followAgentRun(cut, run.id)) {
    if (event.type === 'step.completed') pieces.push(event.step.id);
  }
  expect(pieces).toEqual(steps);
  expect(connections).toBeGreaterThan(2);
});

/** A fetch whose event streams end with an error frame: each of the codes once, after an event. */
function interrupted(codes: string[]): (request: Request) => Promise<Response> {
  return async (request) => {
    const response = await fetch(request);
    if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return response;
    const code = codes.shift();
    if (code === undefined) return response;
    const [first] = (await response.text()).split('\n\n');
    const problem = { message: 'come back', type: 'server_error', code, param: null };
    const frame = `event: error\ndata: ${JSON.stringify({ error: problem })}\n\n`;
    return new Response(`${first}\n\n${frame}`, response);
  };
}

test('a stream that the server ends with "come back" is resumed, other errors are thrown', async () => {
  const run = await library.startAgentRun(client(), {
    input: QUESTION,
    tools: ['search'],
    seed: 1,
  });
  const namesOf = async (codes: string[]): Promise<string[]> => {
    const names: string[] = [];
    const cut = client({ fetch: interrupted(codes) });
    for await (const event of library.followAgentRun(cut, run.id)) {
      // Deltas are shown while they are made, and not again.
      if (event.type === 'step.delta') continue;
      names.push(event.type === 'step.completed' ? event.step.id : event.type);
    }
    return names;
  };
  const whole = await namesOf([]);
  expect(await namesOf(['not_ready', 'request_timeout', 'not_ready'])).toEqual(whole);
  await expect(namesOf(['internal'])).rejects.toMatchObject({ code: 'internal', status: null });
});

test('a training run is followed to its end; who stops reading leaves it alone', async () => {
  const training = await library.unwrap(
    client().POST('/v1/admin/retrain', {
      body: { steps: 1, settings: { groupSize: 2, promptsPerStep: 1, gateTasks: 20 } },
    }),
  );
  const stop = new AbortController();
  const left = library.followTrainingRun(client(), training.id, { signal: stop.signal });
  expect((await left.next()).value).toMatchObject({ type: 'run.created' });
  stop.abort();
  await expect(left.next()).rejects.toThrow(/abort/i);
  const types: string[] = [];
  for await (const { type } of library.followTrainingRun(client(), training.id)) types.push(type);
  expect(types).toEqual(expect.arrayContaining(['run.created', 'run.started', 'step.completed']));
  expect(types.filter((type) => type === 'run.completed')).toHaveLength(1);
});
