/**
 * Chat completions through OpenAI's own client, against the real server with the shipped policy:
 * plain and streamed, its helpers for streams, tools and schemas, several choices, figures of
 * tokens, each class of error, aborts, retries and keys for calls that are made again.
 */
import OpenAI from 'openai';
import { LengthFinishReasonError } from 'openai/core/error';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { must } from '../../core/assert.ts';
import { fixture } from '../e2e/fixture.ts';
import type { TestServer } from '../support/server-process.ts';
import {
  endlessServer,
  expectCancelled,
  expectCourse,
  HERMES,
  killPolicyWorker,
  logged,
  lookUp,
  serverForClients,
  someCourse,
  Wire,
} from './kit.ts';
import type { Course } from './kit.ts';

type Completion = OpenAI.ChatCompletion;
type Chunk = OpenAI.ChatCompletionChunk;

const setup = fixture();
const wire = new Wire();

let server: TestServer;
let client: OpenAI;
/** Its policy writes on and on. */
let endless: TestServer;
let endlessClient: OpenAI;
let course: Course;
let ask: { model: string; messages: OpenAI.ChatCompletionMessageParam[]; seed: number };

beforeAll(async () => {
  [server, endless] = await Promise.all([serverForClients(setup), endlessServer(setup)]);
  client = clientOf(server);
  endlessClient = clientOf(endless);
  course = await someCourse(server);
  const messages = [{ role: 'user' as const, content: course.question }];
  ask = { model: 'ramify', messages, seed: 11 };
});

beforeEach(() => wire.clear());

const clientOf = ({ url }: TestServer): OpenAI =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, fetch: wire.fetch });

const contentOf = ({ choices }: Completion): (string | null)[] =>
  choices.map(({ message }) => message.content);

async function chunksOf(stream: AsyncIterable<Chunk>): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** The first trajectory of the newest answer. */
const trajectory = (): string => must(wire.trajectories.at(-1)?.split(', ')[0], 'a trajectory');

async function steps(id: string): Promise<{ text: string; token_count: number }[]> {
  return (await logged(server, id)).steps;
}

/** The function that the shipped policy knows. */
function search(asked: string[] = []) {
  return zodFunction({
    name: 'search',
    description: 'Searches the knowledge base.',
    parameters: z.object({ query: z.string() }),
    function: ({ query }) => {
      asked.push(query);
      return lookUp(query);
    },
  });
}

describe('one answer', () => {
  it('plain and streamed are the same, in the answer and in the log', async () => {
    const plain = await client.chat.completions.create(ask);
    const plainRow = await steps(trajectory());
    const stream = await client.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await chunksOf(stream);
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
    expect([text]).toEqual(contentOf(plain));
    const shown = (row: typeof plainRow): unknown[] => row.map(({ text: own }) => own);
    expect(shown(await steps(trajectory()))).toEqual(shown(plainRow));
    const last = must(chunks.at(-1), 'a chunk');
    expect(last.choices).toEqual([]);
    const { prompt_tokens, completion_tokens, completion_tokens_details } = must(
      last.usage,
      'usage of the last chunk',
    );
    expect({ prompt_tokens, completion_tokens }).toEqual({
      prompt_tokens: plainRow[0]?.token_count,
      completion_tokens: plainRow[1]?.token_count,
    });
    expect(plain.usage?.completion_tokens_details).toEqual(completion_tokens_details);
    expect(completion_tokens_details?.reasoning_tokens).toBeGreaterThan(0);
    // All but the end of the prompt was there from the first call.
    const cached = last.usage?.prompt_tokens_details?.cached_tokens ?? 0;
    expect(prompt_tokens - cached).toBeLessThanOrEqual(64);
  });

  it('has the headers that its client reads', async () => {
    const { data, response, request_id } = await client.chat.completions.create(ask).withResponse();
    expect(request_id).toMatch(/^req_/);
    expect(response.headers.get('x-ramify-policy')).toBe('1');
    expect(response.headers.get('openai-processing-ms')).toMatch(/^\d+$/);
    expect(data).toMatchObject({ object: 'chat.completion', model: 'ramify@1' });
  });

  it('a stop text, parts of a message, a developer message, all that is tolerated', async () => {
    const { choices } = await client.chat.completions.create({
      ...ask,
      messages: [
        {
          role: 'developer',
          content: [
            { type: 'text', text: 'Be ' },
            { type: 'text', text: 'short.' },
          ],
        },
        { role: 'user', content: [{ type: 'text', text: course.question }], name: 'someone' },
      ],
      stop: ['>'],
      user: 'someone',
      store: true,
      service_tier: 'flex',
      metadata: { order: '17' },
      prompt_cache_key: 'key',
      safety_identifier: 'someone',
      frequency_penalty: 0.1,
      presence_penalty: -0.1,
      logit_bias: { 5: -100 },
      temperature: 0.7,
      top_p: 0.9,
    });
    expect(choices[0]?.finish_reason).toBe('stop');
    const [prompt] = await steps(trajectory());
    expect(prompt?.text).toContain('Be short.');
  });

  it.each(['max_tokens', 'max_completion_tokens'])('%s cuts it: length', async (name) => {
    const { choices, usage } = await client.chat.completions.create({ ...ask, [name]: 3 });
    expect(choices[0]?.finish_reason).toBe('length');
    expect(usage?.completion_tokens).toBe(3);
  });

  it('log-probabilities: bytes spell the text, the likeliest come first', async () => {
    const figures = { logprobs: true, top_logprobs: 4 };
    const plain = await client.chat.completions.create({ ...ask, ...figures });
    const entries = must(plain.choices[0]?.logprobs?.content, 'figures');
    const [, sampled] = await steps(trajectory());
    const spelled = Buffer.from(entries.flatMap(({ bytes }) => bytes ?? [])).toString();
    expect(spelled).toBe(sampled?.text);
    let likeliest = 0;
    for (const { token, logprob, top_logprobs: top } of entries) {
      expect(top).toHaveLength(4);
      const falling = top.map((one) => one.logprob);
      expect(falling).toEqual([...falling].sort((a, b) => b - a));
      expect(falling.reduce((sum, ln) => sum + Math.exp(ln), 0)).toBeLessThan(1.001);
      const same = top.find((one) => one.token === token);
      if (same === undefined) expect(logprob).toBeLessThanOrEqual((falling.at(-1) ?? 0) + 1e-4);
      else expect(same.logprob).toBeCloseTo(logprob, 4);
      if (top[0]?.token === token) likeliest++;
    }
    // A trained policy mostly says what it thinks likeliest.
    expect(likeliest).toBeGreaterThan(entries.length / 2);
    const stream = await client.chat.completions.create({ ...ask, ...figures, stream: true });
    const streamed = (await chunksOf(stream)).flatMap(
      ({ choices }) => choices[0]?.logprobs?.content ?? [],
    );
    expect(streamed.map(({ token }) => token)).toEqual(entries.map(({ token }) => token));
    const bare = await client.chat.completions.create({ ...ask, logprobs: true });
    expect(bare.choices[0]?.logprobs?.content?.[0]?.top_logprobs).toEqual([]);
  });
});

describe('several choices', () => {
  it('are branches of one prompt, each with its seed', async () => {
    const many = await client.chat.completions.create({ ...ask, n: 4, temperature: 1.5 });
    const ids = must(wire.trajectories[0], 'trajectories').split(', ');
    expect(many.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    const rows = await Promise.all(ids.map((id) => logged(server, id)));
    const prompts = new Set(rows.map((row) => row.steps[0].id));
    expect(prompts.size).toBe(1);
    expect(new Set(rows.map((row) => row.steps[1].text)).size).toBeGreaterThan(1);
    const sampled = rows.reduce((sum, row) => sum + row.steps[1].token_count, 0);
    expect(many.usage?.completion_tokens).toBe(sampled);
    expect(many.usage?.prompt_tokens).toBe(rows[0].steps[0].token_count);
    const alone = await client.chat.completions.create({ ...ask, temperature: 1.5 });
    expect(alone.choices[0]?.message.content).toBe(many.choices[0]?.message.content);
  });

  it('stream side by side and are put together by the client', async () => {
    const ask2 = { ...ask, n: 2, temperature: 1.5 };
    const final = await client.chat.completions.stream(ask2).finalChatCompletion();
    const plain = await client.chat.completions.create(ask2);
    expect(contentOf(final)).toEqual(contentOf(plain));
    expect(final.choices.map(({ finish_reason }) => finish_reason)).toEqual(
      plain.choices.map(({ finish_reason }) => finish_reason),
    );
  });
});

describe('helpers', () => {
  const schema = z.object({ city: z.enum(['Paris', 'Rome']), people: z.int().min(1).max(99) });

  it('stream() tells its events in order', async () => {
    const events: string[] = [];
    const runner = client.chat.completions
      .stream({ ...ask, logprobs: true })
      .on('connect', () => void events.push('connect'))
      .on('content', () => void events.push('content'))
      .on('logprobs.content.delta', () => void events.push('logprobs'))
      .on('content.done', () => void events.push('content.done'))
      .on('chatCompletion', () => void events.push('chatCompletion'))
      .on('end', () => void events.push('end'));
    const text = await runner.finalContent();
    expect(text).toBe(contentOf(await client.chat.completions.create(ask))[0]);
    const once = events.filter((event, i) => events.indexOf(event) === i);
    expect(once[0]).toBe('connect');
    expect(once.slice(-2)).toEqual(['chatCompletion', 'end']);
    expect(once).toEqual(expect.arrayContaining(['content', 'logprobs', 'content.done']));
  });

  it('runTools calls functions until the answer, plain and streamed', async () => {
    const greedy = { model: 'ramify', messages: ask.messages, temperature: 0 };
    for (const stream of [false, true] as const) {
      wire.clear();
      const asked: string[] = [];
      const tools = [search(asked)];
      const runner = stream
        ? client.chat.completions.runTools({ ...greedy, tools, stream: true })
        : client.chat.completions.runTools({ ...greedy, tools });
      expect(await runner.finalContent()).toBe(course.answer);
      expect(asked).toEqual(course.lookups);
      const usage = await runner.totalUsage();
      if (!stream) expect(usage.completion_tokens).toBe(course.completionTokens);
      await expectCourse(server, course, wire.trajectories);
    }
  });

  it('parse() reads an answer by its schema, stream() too', async () => {
    const response_format = zodResponseFormat(schema, 'answer');
    const parsed = await client.chat.completions.parse({ ...ask, response_format });
    expect(schema.parse(parsed.choices[0]?.message.parsed)).toBeTruthy();
    const streamed = client.chat.completions.stream({ ...ask, response_format });
    const final = await streamed.finalChatCompletion();
    expect(final.choices[0]?.message.parsed).toEqual(parsed.choices[0]?.message.parsed);
  });

  it('parse() refuses an answer that a limit cut', async () => {
    const response_format = zodResponseFormat(schema, 'answer');
    const cut = client.chat.completions.parse({ ...ask, response_format, max_tokens: 3 });
    await expect(cut).rejects.toThrow(LengthFinishReasonError);
  });

  it.each(['required', { type: 'function', function: { name: 'rate' } }] as const)(
    'zodFunction reads the arguments of a call, tool_choice %j',
    async (tool_choice) => {
      const tool = zodFunction({ name: 'rate', parameters: schema });
      const { choices } = await client.chat.completions.parse({
        ...ask,
        model: HERMES,
        tools: [tool],
        tool_choice,
      });
      const [choice] = choices;
      expect(choice?.finish_reason).toBe('tool_calls');
      const [made, ...others] = choice?.message.tool_calls ?? [];
      expect(others).toEqual([]);
      expect(schema.parse(made?.function.parsed_arguments)).toBeTruthy();
      const row = await logged(server, trajectory());
      expect(row).toMatchObject({ end_reason: 'tool_calls', status: 'completed' });
    },
  );

  it('allowed_tools: a call of one of them, the others are not shown', async () => {
    const tools = ['count', 'rate'].map((name) => zodFunction({ name, parameters: schema }));
    for (const mode of ['required', 'auto'] as const) {
      const { choices } = await client.chat.completions.create({
        ...ask,
        model: HERMES,
        tools,
        tool_choice: {
          type: 'allowed_tools',
          allowed_tools: { mode, tools: [{ type: 'function', function: { name: 'rate' } }] },
        },
        max_tokens: 500,
      });
      const [prompt] = await steps(trajectory());
      expect(prompt?.text).toContain('"name": "rate"');
      expect(prompt?.text).not.toContain('"name": "count"');
      if (mode === 'auto') continue;
      expect(choices[0]?.finish_reason).toBe('tool_calls');
      const [made, ...others] = choices[0]?.message.tool_calls ?? [];
      expect(others).toEqual([]);
      expect(made).toMatchObject({ type: 'function', function: { name: 'rate' } });
    }
  });

  it('the models are a list to walk through', async () => {
    const models: string[] = [];
    for await (const { id, object, owned_by } of client.models.list()) {
      expect([object, owned_by]).toEqual(['model', 'ramify']);
      models.push(id);
    }
    expect(models).toEqual(['ramify', 'ramify@2', 'ramify@1']);
  });
});

describe('errors have their class', () => {
  const refusal = (extra: object, options: OpenAI.RequestOptions = {}): Promise<unknown> =>
    client.chat.completions.create({ ...ask, ...extra }, options).then(
      () => expect.fail('it was answered'),
      (error: unknown) => error,
    );

  it.each([
    [{ max_tokens: 2, max_completion_tokens: 2 }, 'max_completion_tokens'],
    [{ top_logprobs: 2 }, 'top_logprobs'],
    [{ n: 17 }, 'n'],
    [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 'stop'],
    [{ spell: 'abracadabra' }, 'spell'],
    [{ tool_choice: 'required' }, 'tool_choice'],
    [{ audio: { voice: 'alloy', format: 'mp3' } }, 'audio'],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      'messages[0].content[0].type',
    ],
  ])('%j is a BadRequestError', async (extra, param) => {
    const error = await refusal(extra);
    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error).toMatchObject({ status: 400, param, type: 'invalid_request_error' });
    expect((error as Error).message).toContain(param);
  });

  it('a prompt that is too long', async () => {
    const content = 'word '.repeat(2_000);
    const error = await refusal({ messages: [{ role: 'user', content }], stream: true });
    expect(error).toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
      param: 'messages',
    });
  });

  it('NotFoundError, PermissionDeniedError, ConflictError', async () => {
    const unknown = await refusal({ model: 'gpt-4' });
    expect(unknown).toBeInstanceOf(OpenAI.NotFoundError);
    expect(unknown).toMatchObject({ code: 'model_not_found', type: 'not_found_error' });
    const foreign = await refusal({}, { headers: { origin: 'https://evil.example' } });
    expect(foreign).toBeInstanceOf(OpenAI.PermissionDeniedError);
    const options = { idempotencyKey: 'conflict', headers: { 'Idempotency-Key': 'conflict' } };
    await client.chat.completions.create({ ...ask, max_tokens: 2 }, options);
    wire.clear();
    const other = await refusal({ max_tokens: 3 }, { ...options, maxRetries: 3 });
    expect(other).toBeInstanceOf(OpenAI.ConflictError);
    expect(other).toMatchObject({ code: 'idempotency_conflict' });
    // The client was told that it is of no use to try again.
    expect(wire.sent).toHaveLength(1);
  });

  it('a server that is not there, and one that takes too long', async () => {
    const nobody = new OpenAI({ baseURL: 'http://127.0.0.1:9/v1', apiKey: 'none', maxRetries: 0 });
    await expect(nobody.models.list()).rejects.toThrow(OpenAI.APIConnectionError);
    const slow = endlessClient.chat.completions.create(ask, { timeout: 300 });
    await expect(slow).rejects.toThrow(OpenAI.APIConnectionTimeoutError);
  });
});

describe('a call that is made again', () => {
  it.each([false, true])('with its key gets the same answer, streamed: %s', async (stream) => {
    const options = { headers: { 'Idempotency-Key': `again-${stream}` } };
    const bodies: string[] = [];
    for (let i = 0; i < 2; i++) {
      const call = client.chat.completions.create({ ...ask, seed: null, stream }, options);
      bodies.push(await (await call.asResponse()).text());
    }
    expect(bodies[1]).toBe(bodies[0]);
    const [first, again] = wire.trajectories;
    expect(again).toBe(first);
    if (stream) expect(bodies[0]?.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  it('at the same time waits for the first', async () => {
    const options = { headers: { 'Idempotency-Key': 'together' } };
    const call = () => client.chat.completions.create({ ...ask, seed: null }, options);
    const [first, second] = await Promise.all([call(), call()]);
    expect(second).toEqual({ ...first });
  });

  it('without a key is another call', async () => {
    const call = () => client.chat.completions.create({ ...ask, max_tokens: 2 });
    const [first, second] = [await call(), await call()];
    expect(second.id).not.toBe(first.id);
  });
});

describe('leaving and faults', () => {
  it('an abort of a stream, and of its iterator, ends the sampling', async () => {
    for (const way of ['abort', 'break'] as const) {
      wire.clear();
      const stream = await endlessClient.chat.completions.create({ ...ask, stream: true });
      let pieces = 0;
      for await (const chunk of stream) {
        if (!('reasoning_content' in (chunk.choices[0]?.delta ?? {}))) continue;
        if (++pieces < 3) continue;
        if (way === 'break') break;
        stream.controller.abort();
      }
      await expectCancelled(endless, trajectory());
    }
  });

  it('a fault in the stream is an APIError, and retries find the next worker', async () => {
    const stream = await endlessClient.chat.completions.create({ ...ask, stream: true });
    const failing = (async () => {
      let killed = false;
      for await (const chunk of stream) {
        if (killed || !('reasoning_content' in (chunk.choices[0]?.delta ?? {}))) continue;
        killPolicyWorker(endless);
        killed = true;
      }
    })();
    await expect(failing).rejects.toMatchObject({ code: 'engine_unavailable' });
    wire.clear();
    const refused = endlessClient.chat.completions.create({ ...ask, max_tokens: 2 });
    await expect(refused).rejects.toThrow(OpenAI.InternalServerError);
    await expect(refused).rejects.toMatchObject({ status: 503 });
    wire.clear();
    const { choices } = await endlessClient.chat.completions.create(
      { ...ask, max_tokens: 2 },
      { maxRetries: 20 },
    );
    expect(choices[0]?.finish_reason).toBe('length');
    // It was refused first, with the time to wait.
    expect(wire.sent.length).toBeGreaterThan(1);
  });
});
