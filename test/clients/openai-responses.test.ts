/**
 * The responses API through the official `openai` client, over real sockets, with the embedded
 * policy: what the client parses, accumulates and throws on is what it would get from OpenAI.
 */
import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import type {
  Response as ModelResponse,
  ResponseCreateParamsNonStreaming,
  ResponseFunctionToolCall,
  ResponseInputItem,
  ResponseStreamEvent,
  Tool,
} from 'openai/resources/responses/responses';
import { beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { must } from '../../core/assert.ts';
import { call, fixture } from '../e2e/fixture.ts';
import { openaiClient, testQuestions } from '../support/clients.ts';
import type { TestServer } from '../support/server-process.ts';

const { path, launch } = fixture();

let server: TestServer;
let openai: OpenAI;

const question = must(testQuestions[0], 'test questions').question;
const asking = { model: 'ramify', input: question, seed: 5 } as ResponseCreateParamsNonStreaming;
const search: Tool = {
  type: 'function',
  name: 'search',
  strict: true,
  parameters: {
    type: 'object',
    properties: { query: { type: 'string' } },
    required: ['query'],
    additionalProperties: false,
  },
};
const Answer = z.object({ city: z.enum(['Rome', 'Paris']), certain: z.boolean() });
const serverSearch = { type: 'mcp', server_label: 'ramify', allowed_tools: ['search'] } as Tool;

beforeAll(async () => {
  server = await launch({ dataFolder: path('data') }).ready();
  openai = openaiClient(server.url);
});

interface Row {
  kind: string;
  text: string;
  tokens: number[];
  logprobs: number[];
}

/** The steps of the log, without what differs between two equal answers. */
async function rowsOf(response: unknown): Promise<Row[]> {
  const { trajectory_id: id } = response as { trajectory_id: string };
  const { body } = await call(server, 'GET', `/v1/trajectories/${id}?include=tokens`);
  return (body as { steps: Row[] }).steps.map(({ kind, text, tokens, logprobs }) => {
    return { kind, text, tokens, logprobs };
  });
}

/** Output without ids, which are never equal. */
const shape = ({ output }: ModelResponse): unknown =>
  JSON.parse(
    JSON.stringify(output, (key, value: unknown) =>
      ['id', 'call_id', 'parsed', 'parsed_arguments'].includes(key) ? undefined : value,
    ),
  );

function callIn({ output }: ModelResponse): ResponseFunctionToolCall {
  const [call] = output.filter((item) => item.type === 'function_call');
  return must(call, 'a call');
}

describe('an answer', () => {
  it('is text with its usage, and can be read again', async () => {
    const { data: response, response: http } = await openai.responses.create(asking).withResponse();
    expect(response.status).toBe('completed');
    expect(response.output_text).not.toBe('');
    expect(response.model).toBe('ramify@1');
    const usage = must(response.usage, 'usage');
    expect(usage.total_tokens).toBe(usage.input_tokens + usage.output_tokens);
    expect(http.headers.get('x-ramify-trajectory')).toBe(
      (response as unknown as { trajectory_id: string }).trajectory_id,
    );
    const read = await openai.responses.retrieve(response.id);
    expect(read).toEqual({ ...response, output_text: response.output_text });
    const given = [];
    for await (const item of openai.responses.inputItems.list(response.id)) given.push(item);
    expect(given).toMatchObject([{ role: 'user', content: [{ text: question }] }]);
  });

  it('streams to the same end and the same rows', async () => {
    const request = {
      ...asking,
      instructions: 'Answer in one word.',
      include: ['message.output_text.logprobs' as const],
    };
    const plain = await openai.responses.create(request);
    const events: ResponseStreamEvent[] = [];
    const stream = openai.responses.stream({ ...request, stream: true });
    for await (const event of stream) events.push(event);
    const final = await stream.finalResponse();
    expect(shape(final)).toEqual(shape(plain));
    // The second one finds the prompt in the cache.
    expect(final.usage?.input_tokens_details.cached_tokens).toBeGreaterThan(0);
    const { total_tokens, output_tokens, output_tokens_details } = must(plain.usage, 'usage');
    const usage = { total_tokens, output_tokens, output_tokens_details };
    expect(final.usage).toMatchObject(usage);
    expect(await rowsOf(final)).toEqual(await rowsOf(plain));
    expect(events.map((event) => (event as { sequence_number: number }).sequence_number)).toEqual([
      ...events.keys(),
    ]);
    const deltas = events.flatMap((event) =>
      event.type === 'response.output_text.delta' ? event.delta : [],
    );
    expect(deltas.join('')).toBe(plain.output_text);
    expect(events.at(-1)?.type).toBe('response.completed');
  });

  it('has the form that a zod schema demands, with the policy writing what it likes else', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const response = await openai.responses.parse({
        ...{ model: 'ramify', input: question, seed, temperature: 1.2 },
        text: { format: zodTextFormat(Answer, 'answer') },
      });
      expect(Answer.safeParse(response.output_parsed).success).toBe(true);
    }
  });

  it('keeps its form behind results of tools of this server', async () => {
    let whole = 0;
    for (let seed = 5; seed < 13; seed++) {
      const stream = openai.responses.stream({
        ...{ model: 'ramify', input: question, seed, max_output_tokens: 200 },
        ...{ tools: [serverSearch], tool_choice: { type: 'mcp', server_label: 'ramify' } },
        text: { format: zodTextFormat(Answer, 'answer') },
      });
      const { output, output_parsed, status } = await stream.finalResponse();
      // A query may be long, and the policy may search again and again.
      if (status === 'incomplete') continue;
      expect(output.find(({ type }) => type === 'mcp_call')).toMatchObject({ name: 'search' });
      expect(Answer.safeParse(output_parsed).success).toBe(true);
      whole++;
    }
    expect(whole).toBeGreaterThan(0);
  });

  it('that a limit cuts is incomplete', async () => {
    const response = await openai.responses.create({ ...asking, max_output_tokens: 2 });
    expect(response.status).toBe('incomplete');
    expect(response.incomplete_details).toEqual({ reason: 'max_output_tokens' });
  });
});

describe('functions', () => {
  const tools = [search];
  const forced = { tools, tool_choice: { type: 'function' as const, name: 'search' } };

  it('go round by previous_response_id and by items, to the same rows', async () => {
    const first = await openai.responses.create({ ...asking, ...forced });
    const { call_id, arguments: args } = callIn(first);
    expect(JSON.parse(args)).toHaveProperty('query');
    const output = { type: 'function_call_output' as const, call_id, output: 'It is Rome.' };
    const next = { model: 'ramify', tools, seed: 6 };
    const byId = await openai.responses.create({
      ...next,
      previous_response_id: first.id,
      input: [output],
    });
    const history = [{ role: 'user', content: question }, ...first.output, output];
    const byItems = await openai.responses.create({
      ...next,
      input: history as ResponseInputItem[],
      store: false,
    });
    const [before, one, other] = [await rowsOf(first), await rowsOf(byId), await rowsOf(byItems)];
    expect(shape(byItems)).toEqual(shape(byId));
    expect(other).toEqual(one);
    // The tokens that were sampled before, and not another rendering of them.
    expect(one.slice(0, before.length)).toEqual(before);
    expect(one[before.length]).toMatchObject({ kind: 'tool' });
  });

  it('are parsed by the helper of the client, streamed too', async () => {
    const parsed = await openai.responses.parse({ ...asking, ...forced });
    const call = must(
      parsed.output.find(({ type }) => type === 'function_call') as
        { parsed_arguments: unknown } | undefined,
      'a call',
    );
    expect(call.parsed_arguments).toHaveProperty('query');
    const stream = openai.responses.stream({ ...asking, ...forced, stream: true });
    let args = '';
    stream.on('response.function_call_arguments.delta', ({ delta }) => (args += delta));
    expect(callIn(await stream.finalResponse()).arguments).toBe(args);
  });
});

describe('tools of this server', () => {
  it('are run here, streamed and plain to the same rows, and the conversation goes on', async () => {
    const request = {
      ...{ ...asking, tools: [serverSearch] },
      tool_choice: { type: 'mcp' as const, server_label: 'ramify', name: 'search' },
    };
    const plain = await openai.responses.create(request);
    const called = must(
      plain.output.find(({ type }) => type === 'mcp_call'),
      'a call',
    );
    expect(called).toMatchObject({ name: 'search', status: 'completed', error: null });
    const stream = openai.responses.stream({ ...request, stream: true });
    const final = await stream.finalResponse();
    expect(shape(final)).toEqual(shape(plain));
    const rows = await rowsOf(plain);
    expect(await rowsOf(final)).toEqual(rows);
    const next = await openai.responses.create({
      ...{ model: 'ramify', input: 'And the river there?', seed: 8 },
      ...{ previous_response_id: final.id, tools: [serverSearch] },
    });
    expect((await rowsOf(next)).slice(0, rows.length)).toEqual(rows);
  });
});

describe('a call that is made again', () => {
  const request = { ...asking, seed: null, tools: [serverSearch] };
  const create = (key: string, fields: object = {}) =>
    openai.responses.create({ ...request, ...fields } as ResponseCreateParamsNonStreaming, {
      headers: { 'Idempotency-Key': key },
    });

  it.each([false, true])('with its key gets the same answer, streamed: %s', async (stream) => {
    const key = `again-${stream}`;
    const first = await create(key, { stream }).asResponse();
    const text = await first.text();
    const again = await create(key, { stream }).asResponse();
    expect(await again.text()).toBe(text);
    const trajectory = first.headers.get('x-ramify-trajectory');
    expect(again.headers.get('x-ramify-trajectory')).toBe(trajectory);
    expect(again.headers.get('idempotent-replayed')).toBe('true');
  });

  it('while the first is under way waits for it', async () => {
    const [first, second] = await Promise.all([create('together'), create('together')]);
    expect(second.id).toBe(first.id);
  });

  it('with other content is a conflict', async () => {
    await create('conflict');
    const other = create('conflict', { max_output_tokens: 3 });
    await expect(other).rejects.toBeInstanceOf(OpenAI.ConflictError);
    await expect(other).rejects.toMatchObject({ code: 'idempotency_conflict' });
  });
});

describe('a response', () => {
  it('goes on in the background, is followed, and is deleted', async () => {
    const begun = await openai.responses.create({ ...asking, background: true });
    const followed = openai.responses.stream({ response_id: begun.id, stream: true });
    const final = await followed.finalResponse();
    expect(final.status).toBe('completed');
    const rest: ResponseStreamEvent[] = [];
    for await (const event of await openai.responses.retrieve(begun.id, {
      stream: true,
      starting_after: 1,
    })) {
      rest.push(event);
    }
    expect(rest[0]?.type).toBe('response.output_item.added');
    await openai.responses.delete(begun.id);
    await expect(openai.responses.retrieve(begun.id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  it('is cancelled, by a call and by a client that leaves', async () => {
    // A form that only the limit of the window ends.
    const endless = {
      ...{ model: 'ramify', input: 'Go on.', seed: 1 },
      text: {
        format: {
          ...{ type: 'json_schema' as const, name: 'long' },
          schema: { type: 'array', items: { type: 'integer' }, minItems: 2_000 },
        },
      },
    };
    const begun = await openai.responses.create({ ...endless, background: true });
    const cancelled = await openai.responses.cancel(begun.id);
    expect(cancelled.status).toBe('cancelled');
    const stream = await openai.responses.create({ ...endless, stream: true });
    let id = '';
    for await (const event of stream) {
      if (event.type === 'response.created') id = event.response.id;
      if (event.type === 'response.in_progress') break;
    }
    await expect
      .poll(
        async () =>
          openai.responses.retrieve(id).then(
            ({ status }) => status,
            () => 'none',
          ),
        {
          timeout: 10_000,
        },
      )
      .toBe('cancelled');
  });

  it('is refused with the errors of the client', async () => {
    await expect(openai.responses.create({ ...asking, model: 'gpt-4' })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );
    await expect(
      openai.responses.create({ ...asking, previous_response_id: 'resp_nothing' }),
    ).rejects.toMatchObject({ status: 400, code: 'previous_response_not_found' });
    await expect(
      openai.responses.create({ ...asking, tools: [{ type: 'web_search' }] }),
    ).rejects.toMatchObject({ status: 400, code: 'unsupported_parameter', param: 'tools[0].type' });
    await expect(
      openai.responses.create({
        ...asking,
        input: [{ role: 'user', content: [{ type: 'input_image', detail: 'auto' }] }],
      }),
    ).rejects.toMatchObject({ status: 400, param: 'input[0].content[0].type' });
  });
});
