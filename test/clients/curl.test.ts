/**
 * The commands of a shell user: curl itself against the real server. Where there is no curl the
 * tests say so and show nothing, and fail if RAMIFY_TEST_REQUIRE names it, as .ci/run does.
 */
import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import { beforeAll, expect, it } from 'vitest';
import { sseData } from '../../api/testing/harness.ts';
import { fixture } from '../e2e/fixture.ts';
import type { TestServer } from '../support/server-process.ts';
import { endlessServer, expectCancelled, logged, serverForClients } from './kit.ts';

const run = promisify(execFile);
const setup = fixture();
const missing = spawnSync('curl', ['--version']).error !== undefined;

function withCurl(what: string, shows: () => Promise<void>): void {
  it(what, missing ? () => notShown(what) : shows);
}

function notShown(what: string): void {
  console.warn(`curl is not installed, not shown: ${what}`);
  expect(process.env['RAMIFY_TEST_REQUIRE'] ?? '').not.toContain('curl');
}

let server: TestServer;

beforeAll(async () => {
  server = await serverForClients(setup);
});

interface Answer {
  status: number;
  headers: Map<string, string>;
  body: string;
}

/** `curl -s -i ...flags URL`; `--noproxy` as the environment may name one. */
async function curl(path: string, ...flags: string[]): Promise<Answer> {
  const common = ['-s', '-i', '--noproxy', '*', '--max-time', '30'];
  const { stdout } = await run('curl', [...common, ...flags, server.url + path]);
  const [head = '', ...rest] = stdout.split('\r\n\r\n');
  const [status = '', ...lines] = head.split('\r\n');
  const headers = lines.map((line): [string, string] => {
    const at = line.indexOf(': ');
    return [line.slice(0, at).toLowerCase(), line.slice(at + 2)];
  });
  return {
    status: Number(status.split(' ')[1]),
    headers: new Map(headers),
    body: rest.join('\r\n\r\n'),
  };
}

const post = (body: object, ...flags: string[]): Promise<Answer> =>
  curl(
    '/v1/chat/completions',
    ...['-H', 'content-type: application/json', ...flags, '-d', JSON.stringify(body)],
  );

const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const ASK = { model: 'ramify', messages, seed: 3, max_tokens: 3 };

withCurl('a plain answer', async () => {
  const { status, headers, body } = await post(ASK);
  expect(status).toBe(200);
  expect(headers.get('content-type')).toBe('application/json');
  const { choices, usage } = JSON.parse(body);
  expect(choices).toHaveLength(1);
  const row = await logged(server, headers.get('x-ramify-trajectory') ?? '');
  expect(usage.completion_tokens).toBe(row.steps[1].token_count);
});

withCurl('a stream, frame by frame', async () => {
  const { status, headers, body } = await post({ ...ASK, stream: true }, '-N');
  expect(status).toBe(200);
  expect(headers.get('content-type')).toBe('text/event-stream');
  expect(body.endsWith('data: [DONE]\n\n')).toBe(true);
  const frames = sseData(body);
  expect(frames[0].choices[0].delta).toEqual({ role: 'assistant', content: '' });
  expect(frames.at(-1).choices[0]).toMatchObject({ delta: {}, finish_reason: 'length' });
});

withCurl('the models', async () => {
  const { body } = await curl('/v1/models');
  const ids = JSON.parse(body).data.map(({ id }: { id: string }) => id);
  expect(ids).toContain('ramify');
});

withCurl('errors: a body that is no JSON, a form, a method, a path', async () => {
  const told = async (answer: Promise<Answer>): Promise<unknown[]> => {
    const { status, body } = await answer;
    return [status, JSON.parse(body).error.code];
  };
  const path = '/v1/chat/completions';
  const json = ['-H', 'content-type: application/json'];
  expect(await told(curl(path, ...json, '-d', '{"model":'))).toEqual([400, 'invalid_json']);
  // What curl sends when nobody says what it is.
  expect(await told(curl(path, '-d', '{}'))).toEqual([415, 'unsupported_media_type']);
  expect(await told(curl(path))).toEqual([405, 'method_not_allowed']);
  expect(await told(curl('/v1/nowhere'))).toEqual([404, 'route_not_found']);
});

withCurl('a call with a key, made again', async () => {
  const key = ['-H', 'Idempotency-Key: from-curl'];
  const ask = { ...ASK, seed: null, stream: true };
  const [first, again] = [await post(ask, ...key), await post(ask, ...key)];
  expect(again.body).toBe(first.body);
  expect(again.headers.get('idempotent-replayed')).toBe('true');
});

withCurl('curl that goes away ends the sampling', async () => {
  const endless = await endlessServer(setup);
  const headers = await new Promise<string>((resolve, reject) => {
    const child = execFile(
      'curl',
      [
        ...['-s', '-i', '-N', '--noproxy', '*', '-H', 'content-type: application/json', '-d'],
        JSON.stringify({ model: 'ramify', messages, stream: true }),
        `${endless.url}/v1/chat/completions`,
      ],
      (error) => (error?.killed === true ? undefined : reject(error ?? new Error('it ended'))),
    );
    let text = '';
    child.stdout?.on('data', (piece: string) => {
      text += piece;
      if (!text.includes('reasoning_content')) return;
      child.kill();
      resolve(text);
    });
  });
  const id = /x-ramify-trajectory: (\S+)/i.exec(headers)?.[1] ?? '';
  await expectCancelled(endless, id);
});
