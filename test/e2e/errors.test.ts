/**
 * Bad input and bad luck over the real server: each gets the documented status, code and a message
 * that names what is wrong; the policy's own mistakes (a malformed call, a call that fails or never
 * ends) are read by the policy and logged; full queues say when to come back; and nothing else is
 * lost by it.
 *
 * Policies that make a certain mistake at once are written for the purpose (policy-copies.ts) and
 * asked by their version; everything else is as shipped.
 */
import OpenAI from 'openai';
import { beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../core/limits.ts';
import { openaiClient, testQuestions } from '../support/clients.ts';
import { writeScriptedPolicy } from '../support/policy-copies.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, dataFolderWithPolicies, fixture } from './fixture.ts';
import type { HttpAnswer } from './fixture.ts';

const { path, launch } = fixture();

const THROWS = 'ramify@2';
const NEVER_ENDS = 'ramify@3';
const MALFORMED = 'ramify@4';
const ANSWER = '<answer>\\boxed{7}</answer><|im_end|>';
const QUESTION = [{ role: 'user' as const, content: 'What is the capital of France?' }];
/** Far more than the engine can hold: rows, queue and open sequences together. */
const FLOOD = LIMITS.batchRowsMax + LIMITS.sampleQueueMax + 200;

let server: TestServer;
const dataFolder = path('data');

beforeAll(async () => {
  await dataFolderWithPolicies(dataFolder, [
    (directory) =>
      writeScriptedPolicy(directory, '<javascript>y</javascript>', {
        after: { '</result>': ANSWER },
      }),
    (directory) => writeScriptedPolicy(directory, '<javascript>while(1);</javascript>'),
    (directory) => writeScriptedPolicy(directory, '<think>y</javascript>'),
  ]);
  server = await launch({ dataFolder }).ready();
});

const post = (route: string, body: unknown): Promise<HttpAnswer> =>
  call(server, 'POST', route, body);
const chat = (body: object): Promise<HttpAnswer> =>
  post('/v1/chat/completions', { model: 'ramify', messages: QUESTION, ...body });
const agent = (body: object): Promise<HttpAnswer> =>
  post('/v1/agent/runs', { input: 'What is the capital of France?', ...body });

interface Refusal {
  what: string;
  ask: () => Promise<HttpAnswer>;
  status: number;
  code: string;
  /** Part of the message: the offending value. */
  names: string;
}

const WORDS = 'word '.repeat(2_000);
const REFUSALS: Refusal[] = [
  {
    what: 'an unknown model',
    ask: () => chat({ model: 'gpt-4' }),
    status: 404,
    code: 'model_not_found',
    names: "'gpt-4'",
  },
  {
    what: 'a version that does not exist',
    ask: () => agent({ model: 'ramify@99' }),
    status: 404,
    code: 'model_not_found',
    names: "'ramify@99'",
  },
  {
    what: 'bad JSON',
    ask: () => post('/v1/chat/completions', '{"model": "ramify", "messages": [}'),
    status: 400,
    code: 'invalid_json',
    names: 'JSON',
  },
  {
    what: 'no body',
    ask: () => call(server, 'POST', '/v1/chat/completions'),
    status: 415,
    code: 'unsupported_media_type',
    names: 'application/json',
  },
  {
    what: 'empty messages',
    ask: () => chat({ messages: [] }),
    status: 400,
    code: 'invalid_request',
    names: 'messages',
  },
  {
    what: 'a prompt that does not fit',
    ask: () => chat({ messages: [{ role: 'user', content: WORDS }] }),
    status: 400,
    code: 'context_length_exceeded',
    names: 'tokens',
  },
  {
    what: 'more tokens than the window holds',
    ask: () => chat({ max_tokens: 100_000 }),
    status: 400,
    code: 'context_length_exceeded',
    names: '100000',
  },
  {
    what: 'an unknown server tool',
    ask: () => agent({ tools: ['telephone'] }),
    status: 400,
    code: 'unknown_tool',
    names: "'telephone'",
  },
  {
    what: 'a function that the policy has no tag for',
    ask: () => chat({ tools: [{ type: 'function', function: { name: 'telephone' } }] }),
    status: 400,
    code: 'unknown_tool',
    names: 'telephone',
  },
  {
    what: 'feedback for an unknown trajectory',
    ask: () =>
      post('/v1/feedback', { trajectory_id: 'traj_unknown', metric_name: 'reward', value: 1 }),
    status: 404,
    code: 'trajectory_not_found',
    names: 'traj_unknown',
  },
  {
    what: 'a training setting that would do nothing',
    ask: () => post('/v1/admin/retrain', { algorithm: 'grpo', settings: { alpha: 0.3 } }),
    status: 400,
    code: 'invalid_request',
    names: 'alpha',
  },
  {
    what: 'the activation of an unknown version',
    ask: () => call(server, 'POST', '/v1/admin/policies/99/activate'),
    status: 404,
    code: 'policy_not_found',
    names: '99',
  },
];

it.each(REFUSALS)('$what: $code', async ({ ask, status, code, names }) => {
  const answer = await ask();
  const type = status === 404 ? 'not_found_error' : 'invalid_request_error';
  expect(answer).toMatchObject({ status, body: { error: { code, type } } });
  expect(answer.body.error.message).toContain(names);
  expect(answer.headers.get('x-request-id')).toMatch(/^req_/);
});

it('the official client sees its own error classes', async () => {
  const openai = openaiClient(server.url);
  const wrong = openai.chat.completions.create({ model: 'gpt-4', messages: QUESTION });
  await expect(wrong).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  const empty = openai.chat.completions.create({ model: 'ramify', messages: [] });
  await expect(empty).rejects.toBeInstanceOf(OpenAI.BadRequestError);
  await expect(empty).rejects.toMatchObject({ code: 'invalid_request', param: 'messages' });
});

describe('mistakes of the policy', () => {
  it('a call that fails: the policy reads why, and goes on to its answer', async () => {
    const { status, body } = await agent({ model: THROWS, tools: ['javascript'] });
    expect({ status, body }).toMatchObject({ status: 200, body: { status: 'completed' } });
    expect(body.steps.map(({ kind }: { kind: string }) => kind)).toEqual([
      'prompt',
      'policy',
      'tool',
      'policy',
    ]);
    const { tool_call: failed, text } = body.steps[2];
    expect(failed).toMatchObject({ name: 'javascript', error: 'tool_failed' });
    expect(failed.result).toMatch(/^error: .*'y' is not defined/);
    expect(text).toContain(failed.result);
    expect(body.answer).toBe('7');
  });

  it('a call that never ends is stopped at its limit', async () => {
    const { status, body } = await agent({
      model: NEVER_ENDS,
      tools: ['javascript'],
      max_tool_calls: 1,
    });
    expect({ status, body }).toMatchObject({ status: 200, body: { status: 'completed' } });
    const [, , { tool_call: late }] = body.steps;
    expect(late).toMatchObject({ name: 'javascript', error: 'tool_timeout' });
    expect(late.duration_ms).toBeGreaterThan(0.9 * LIMITS.javascriptTimeoutMs);
    // It would call again: the run ends at its bound on calls, without an answer.
    expect(body.answer).toBeNull();
    const { body: logged } = await call(server, 'GET', `/v1/trajectories/${body.trajectory_id}`);
    expect(logged.end_reason).toBe('max_tool_calls');
  });

  it('a call of a tool that was not offered is answered with what is', async () => {
    const { body } = await agent({ model: THROWS, tools: ['search'] });
    expect(body.status).toBe('completed');
    expect(body.steps[2].tool_call).toMatchObject({ name: 'javascript', error: 'unknown_tool' });
    expect(body.steps[2].tool_call.result).toContain('offered: search');
    expect(body.answer).toBe('7');
  });

  it('a malformed call is never run; the log says that the format is wrong', async () => {
    const { status, body } = await agent({ model: MALFORMED, tools: ['javascript'] });
    expect({ status, body }).toMatchObject({ status: 200, body: { status: 'completed' } });
    expect(body.answer).toBeNull();
    expect(body.steps.map(({ kind }: { kind: string }) => kind)).toEqual(['prompt', 'policy']);
    const { body: logged } = await call(server, 'GET', `/v1/trajectories/${body.trajectory_id}`);
    expect(logged).toMatchObject({ format_ok: false, end_reason: 'stop', status: 'completed' });
    const asChat = await chat({ model: MALFORMED });
    expect(asChat.body.choices[0]).toMatchObject({ finish_reason: 'stop' });
    expect(asChat.body.choices[0].message.tool_calls).toBeUndefined();
  });
});

describe('full queues', () => {
  it('a second training run waits; more than fit are told to come back', async () => {
    const retrain = (): Promise<HttpAnswer> => post('/v1/admin/retrain', { steps: 1_000 });
    const ids: string[] = [];
    for (let i = 0; i <= LIMITS.trainingQueueMax; i++) {
      const { status, body } = await retrain();
      expect(status).toBe(202);
      ids.push(body.id);
      // The first leaves the queue when it begins.
      if (i === 0) await expectRun(body.id, 'running');
    }
    const full = await retrain();
    expect(full).toMatchObject({ status: 503, body: { error: { code: 'training_queue_full' } } });
    expect(Number(full.headers.get('retry-after'))).toBeGreaterThan(0);
    await expectRun(ids[1] as string, 'queued');
    // Others are served meanwhile.
    expect((await agent({ tools: ['search'], max_tokens: 64 })).body.status).toBe('completed');
    for (const id of ids.toReversed()) {
      expect((await post(`/v1/admin/training-runs/${id}/cancel`, {})).status).toBe(200);
    }
    for (const id of ids) await expectRun(id, 'cancelled');
    const again = await post(`/v1/admin/training-runs/${ids[0]}/cancel`, {});
    expect(again).toMatchObject({
      status: 409,
      body: { error: { code: 'training_run_finished' } },
    });
  });

  async function expectRun(id: string, status: string): Promise<void> {
    await expect
      .poll(async () => (await call(server, 'GET', `/v1/admin/training-runs/${id}`)).body.status, {
        timeout: 20_000,
        interval: 50,
      })
      .toBe(status);
  }

  it('requests beyond the engine get 503 at once, and the others their whole answer', async () => {
    const answers = await Promise.all(
      Array.from({ length: FLOOD }, (_, i) =>
        chat({
          messages: [{ role: 'user', content: testQuestions[i % testQuestions.length]?.question }],
          temperature: 2,
          // Long enough that a machine that is slow to ask is slower to answer.
          max_tokens: 64,
          seed: i,
        }),
      ),
    );
    const served = answers.filter(({ status }) => status === 200);
    const refused = answers.filter(({ status }) => status !== 200);
    expect(served.length).toBeGreaterThanOrEqual(LIMITS.sampleQueueMax);
    expect(refused.length).toBeGreaterThan(0);
    for (const { status, headers, body } of refused) {
      expect({ status, code: body.error.code }).toEqual({ status: 503, code: 'queue_full' });
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
    }
    console.log(`${served.length} of ${FLOOD} served, ${refused.length} told to come back`);
    await expectLogged(served.map(({ headers }) => headers.get('x-ramify-trajectory') as string));
    // There is room again.
    expect((await chat({ max_tokens: 8 })).status).toBe(200);
  });

  /** Every one of these trajectories is in the log, completed. */
  async function expectLogged(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const { status, body } = await call(server, 'GET', `/v1/trajectories/${id}`);
      expect({ status, logged: body.status }, id).toEqual({ status: 200, logged: 'completed' });
    }
  }
});

it('after all that nothing is held, nothing was in doubt, and the server ends in order', async () => {
  await expect
    .poll(async () => (await call(server, 'GET', '/readyz')).body.engine, { timeout: 10_000 })
    .toMatchObject({ open_sequences: 0, queued: 0, running: 0 });
  expect(await server.end('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(server.stderr).toBe('');
});
