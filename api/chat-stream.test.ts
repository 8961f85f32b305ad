/**
 * Chat over a real socket with OpenAI's own client: what it reads from plain and streamed answers,
 * that both leave equal rows, what it does with errors, and that leaving stops the sampling.
 */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import OpenAI from 'openai';
import type { ChatCompletionChunk } from 'openai/resources/chat/completions';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AppError } from '../core/errors.ts';
import { ANSWER_SCRIPT, CAPITAL_SCRIPT, startHarness, until } from './testing/harness.ts';
import type { Harness, PolicyProtocol } from './testing/harness.ts';

let h: Harness;
let server: Server;
let client: OpenAI;

async function listen(protocol: PolicyProtocol): Promise<void> {
  h = await startHarness({ protocol });
  server = serve({ fetch: h.app.fetch, hostname: '127.0.0.1', port: 0 }) as Server;
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const baseURL = `http://127.0.0.1:${port}/v1`;
  client = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 });
}

beforeEach(() => listen('tags'));

afterEach(async () => {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
  await h.close();
});

const messages = [{ role: 'user' as const, content: 'What is the capital of France?' }];
const CHAT = { model: 'ramify', messages };
const tools: OpenAI.ChatCompletionTool[] = [
  { type: 'function', function: { name: 'search', parameters: { type: 'object' } } },
];

async function chunksOf(
  stream: AsyncIterable<ChatCompletionChunk>,
): Promise<ChatCompletionChunk[]> {
  const chunks: ChatCompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const delta = (chunk: ChatCompletionChunk): Record<string, unknown> =>
  (chunk.choices[0]?.delta ?? {}) as Record<string, unknown>;

test('a plain answer, with the version and the trajectory in the headers', async () => {
  const { data, response } = await client.chat.completions.create(CHAT).withResponse();
  expect(data.choices[0]?.message.content).toBe('Paris');
  expect(data.model).toBe('ramify@1');
  expect(data.usage?.total_tokens).toBe(
    (data.usage?.prompt_tokens ?? 0) + (data.usage?.completion_tokens ?? 0),
  );
  const trajectory = response.headers.get('x-ramify-trajectory') as string;
  expect(h.deps.stores.trajectories.find(trajectory)?.answer).toBe('Paris');
});

test('a stream: role, thoughts, answer, finish_reason alone, usage, in this order', async () => {
  const stream_options = { include_usage: true };
  const stream = await client.chat.completions.create({ ...CHAT, stream: true, stream_options });
  const chunks = await chunksOf(stream);
  expect(delta(chunks[0] as ChatCompletionChunk)).toEqual({ role: 'assistant', content: '' });
  const text = (field: string): string =>
    chunks.map((chunk) => (delta(chunk)[field] ?? '') as string).join('');
  expect(text('reasoning_content')).toBe('I know it.');
  expect(text('content')).toBe('Paris');
  const [finish, usage] = chunks.slice(-2) as [ChatCompletionChunk, ChatCompletionChunk];
  expect(finish.choices).toEqual([{ index: 0, delta: {}, logprobs: null, finish_reason: 'stop' }]);
  expect(usage.choices).toEqual([]);
  expect(usage.usage?.completion_tokens).toBeGreaterThan(5);
  expect(new Set(chunks.map(({ id, model }) => `${id} ${model}`)).size).toBe(1);
  for (const chunk of chunks.slice(0, -1)) expect(chunk.usage).toBeNull();
});

test('without stream_options no chunk speaks of usage', async () => {
  const chunks = await chunksOf(await client.chat.completions.create({ ...CHAT, stream: true }));
  for (const chunk of chunks) expect('usage' in chunk).toBe(false);
  expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
});

test('tool fragments are put together by the client, and the run goes on with the result', async () => {
  h.engine.script = CAPITAL_SCRIPT;
  const runner = client.chat.completions.stream({ ...CHAT, tools });
  const { choices } = await runner.finalChatCompletion();
  expect(choices[0]?.finish_reason).toBe('tool_calls');
  const message = choices[0]?.message as OpenAI.ChatCompletionMessage;
  const call = message.tool_calls?.[0] as OpenAI.ChatCompletionMessageFunctionToolCall;
  expect(JSON.parse(call.function.arguments)).toEqual({ query: 'capital of France' });
  const answer = { role: 'tool' as const, tool_call_id: call.id, content: 'It is Paris.' };
  // The client sends its own message object back, with whatever fields it has.
  const next = await client.chat.completions.create({
    ...CHAT,
    messages: [...messages, message, answer],
    tools,
  });
  expect(next.choices[0]?.message.content).toBe('Paris');
});

test('plain and streamed calls with one seed leave equal rows', async () => {
  const seeded = { ...CHAT, seed: 5, logprobs: true };
  const plain = await client.chat.completions.create(seeded).withResponse();
  const streamed = await client.chat.completions.create({ ...seeded, stream: true }).withResponse();
  const chunks = await chunksOf(streamed.data);
  const rows = [plain, streamed].map(({ response }) => {
    const id = response.headers.get('x-ramify-trajectory') as string;
    return h.deps.stores.trajectories
      .get(id)
      .steps.map(({ kind, tokens, logprobs, entropies, sampling, text }) => ({
        ...{ kind, tokens, logprobs, entropies, sampling, text },
      }));
  });
  expect(rows[0]).toEqual(rows[1]);
  const figures = chunks.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? []);
  expect(figures).toEqual(plain.data.choices[0]?.logprobs?.content);
  expect(figures).toHaveLength(rows[0]?.[1]?.tokens.length ?? -1);
});

test('a client that leaves a stream stops the sampling; its rows are kept as cancelled', async () => {
  h.engine.pieceMs = 10;
  h.engine.script = () => '<think>capital of France '.repeat(20);
  const { data, response } = await client.chat.completions
    .create({ ...CHAT, stream: true })
    .withResponse();
  for await (const chunk of data) {
    if (delta(chunk)['reasoning_content'] !== undefined) break;
  }
  await until(() => h.engine.cancelled === 1);
  const id = response.headers.get('x-ramify-trajectory') as string;
  await until(() => h.deps.stores.trajectories.find(id)?.status === 'cancelled');
  await until(() => h.deps.lifecycle.active === 0);
  expect(h.engine.stats().openSequences).toBe(0);
});

test('a client that leaves a plain call stops the sampling too', async () => {
  h.engine.pieceMs = 10;
  h.engine.script = () => '<think>capital of France '.repeat(20);
  const abort = new AbortController();
  const call = client.chat.completions.create(CHAT, { signal: abort.signal });
  await until(() => h.engine.stats().openSequences === 1);
  abort.abort();
  await expect(call).rejects.toThrow(OpenAI.APIUserAbortError);
  await until(() => h.engine.cancelled === 1);
  await until(() => h.deps.stores.trajectories.list().items[0]?.status === 'cancelled');
});

test('a failure in mid-stream is an error to the client, with our message and no other', async () => {
  h.engine.script = ANSWER_SCRIPT;
  const { stepLog } = h.deps.stores;
  const stream = await client.chat.completions.create({ ...CHAT, stream: true });
  // The answer is sampled, but its rows cannot be stored.
  stepLog.close();
  await expect(chunksOf(stream)).rejects.toThrow(
    /^The data folder cannot be read or written; the log has it under req_/,
  );
});

test('errors arrive as the classes that the client has for them', async () => {
  const unknown = client.chat.completions.create({ ...CHAT, model: 'gpt-4' });
  await expect(unknown).rejects.toThrow(OpenAI.NotFoundError);
  const many = client.chat.completions.create({ ...CHAT, verbosity: 'low' });
  await expect(many).rejects.toMatchObject({ code: 'unsupported_parameter', param: 'verbosity' });
  h.engine.sampleFault = new AppError('engine_unavailable', 'the worker stopped');
  const down = client.chat.completions.create({ ...CHAT, stream: true });
  await expect(down).rejects.toMatchObject({ status: 503, code: 'engine_unavailable' });
});

test('the client repeats a call that was refused for now', async () => {
  h.engine.sequencesMax = 0;
  const call = client.chat.completions.create(CHAT, { maxRetries: 1 });
  setTimeout(() => (h.engine.sequencesMax = 1), 100);
  expect((await call).choices[0]?.message.content).toBe('Paris');
});

test('the models of the client', async () => {
  const models: string[] = [];
  for await (const { id } of client.models.list()) models.push(id);
  expect(models).toEqual(['ramify', 'ramify@1']);
});

async function listenAgain(protocol: PolicyProtocol): Promise<void> {
  server.close();
  await h.close();
  await listen(protocol);
}

const hermesCall = (query: string): string =>
  `<tool_call>\n{"name": "search", "arguments": {"query": "${query}"}}\n</tool_call>`;

test('parallel_tool_calls: false ends the answer behind its first call', async () => {
  const once = { ...CHAT, tools, parallel_tool_calls: false };
  // With the tag protocol a step has one call at most.
  await client.chat.completions.create(once);
  await listenAgain('hermes');
  h.engine.script = () => `Looking. ${hermesCall('a')}\n${hermesCall('b')}<|im_end|>`;
  const { data, response } = await client.chat.completions.create(once).withResponse();
  expect(data.choices[0]).toMatchObject({
    finish_reason: 'tool_calls',
    message: { content: 'Looking.', tool_calls: [{ function: { arguments: '{"query":"a"}' } }] },
  });
  expect(data.choices[0]?.message.tool_calls).toHaveLength(1);
  const id = response.headers.get('x-ramify-trajectory') as string;
  const sampled = h.deps.stores.trajectories.get(id).steps[1]?.text;
  expect(sampled).toBe(`Looking. ${hermesCall('a')}`);
  // Without functions there is nothing to call.
  h.engine.script = () => 'Paris<|im_end|>';
  const plain = { ...CHAT, parallel_tool_calls: false };
  expect((await client.chat.completions.create(plain)).choices[0]?.message.content).toBe('Paris');
});

test('parallel_tool_calls: false is refused where a call has no mark at its end', async () => {
  await listenAgain('llama');
  const call = client.chat.completions.create({ ...CHAT, tools, parallel_tool_calls: false });
  await expect(call).rejects.toMatchObject({
    code: 'unsupported_parameter',
    param: 'parallel_tool_calls',
  });
  expect(h.engine.stats().openSequences).toBe(0);
});

test('two calls in one step come as two tool calls, streamed', async () => {
  await listenAgain('hermes');
  h.engine.script = () => `Looking. ${hermesCall('a')}\n${hermesCall('b')}<|im_end|>`;
  const final = await client.chat.completions.stream({ ...CHAT, tools }).finalChatCompletion();
  const message = final.choices[0]?.message;
  expect(message?.content).toBe('Looking.');
  const calls = message?.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
  expect(calls.map((call) => JSON.parse(call.function.arguments).query)).toEqual(['a', 'b']);
});

/** The chunks of each choice. */
function byChoice(chunks: readonly ChatCompletionChunk[]): ChatCompletionChunk.Choice[][] {
  const choices: ChatCompletionChunk.Choice[][] = [];
  for (const choice of chunks.flatMap((chunk) => chunk.choices)) {
    (choices[choice.index] ??= []).push(choice);
  }
  return choices;
}

test('several choices, streamed: each in its order, usage once, rows as of a plain call', async () => {
  const several = { ...CHAT, n: 3, seed: 5, logprobs: true };
  const stream_options = { include_usage: true };
  const streamed = await client.chat.completions
    .create({ ...several, stream: true, stream_options })
    .withResponse();
  const chunks = await chunksOf(streamed.data);
  const choices = byChoice(chunks);
  expect(choices).toHaveLength(3);
  for (const own of choices) {
    expect(own[0]?.delta).toEqual({ role: 'assistant', content: '' });
    expect(own.map(({ delta: { content } }) => content ?? '').join('')).toBe('Paris');
    const ends = own.map(({ finish_reason }) => finish_reason);
    expect(ends).toEqual([...ends.slice(1).map(() => null), 'stop']);
  }
  expect(chunks.filter(({ usage }) => usage !== null)).toEqual([chunks.at(-1)]);
  const plain = await client.chat.completions.create(several).withResponse();
  expect(chunks.at(-1)?.usage).toEqual(plain.data.usage);
  const rows = [plain, streamed].map(({ response }) => {
    const ids = (response.headers.get('x-ramify-trajectory') as string).split(', ');
    return ids.map((id) =>
      h.deps.stores.trajectories.get(id).steps.map(({ tokens, logprobs, sampling, text }) => ({
        ...{ tokens, logprobs, sampling, text },
      })),
    );
  });
  expect(rows[0]).toEqual(rows[1]);
});

test('when one choice cannot be opened, none is, and nothing stays open', async () => {
  h.engine.sequencesMax = 2;
  const call = client.chat.completions.create({ ...CHAT, n: 3 });
  await expect(call).rejects.toMatchObject({ status: 503, code: 'queue_full' });
  expect(h.engine.stats().openSequences).toBe(0);
  expect(h.deps.stores.trajectories.list().items).toEqual([]);
});

test('a client that leaves several choices stops them all', async () => {
  h.engine.pieceMs = 10;
  h.engine.script = () => '<think>capital of France '.repeat(20);
  const stream = await client.chat.completions.create({ ...CHAT, n: 3, stream: true });
  for await (const chunk of stream) {
    if (delta(chunk)['reasoning_content'] !== undefined) break;
  }
  await until(() => h.deps.stores.trajectories.list().items.length === 3);
  const rows = h.deps.stores.trajectories.list().items;
  expect(rows.map(({ status }) => status)).toEqual(Array(3).fill('cancelled'));
  await until(() => h.engine.stats().openSequences === 0);
});

test('a failure in mid-stream with a key leaves the key free for another try', async () => {
  h.engine.pieceMs = 20;
  h.engine.script = () => '<think>capital of France '.repeat(20);
  const options = { headers: { 'Idempotency-Key': 'again' } };
  const stream = await client.chat.completions.create({ ...CHAT, stream: true }, options);
  for await (const chunk of stream) {
    if (delta(chunk)['reasoning_content'] !== undefined) break;
  }
  await until(() => h.engine.cancelled === 1);
  h.engine.pieceMs = 0;
  h.engine.script = ANSWER_SCRIPT;
  const again = await client.chat.completions.create({ ...CHAT, stream: true }, options);
  const chunks = await chunksOf(again);
  expect(chunks.map((chunk) => (delta(chunk)['content'] ?? '') as string).join('')).toBe('Paris');
});

test('of two equal calls with a key at once one is made, and both get its answer', async () => {
  h.engine.pieceMs = 20;
  const options = { headers: { 'Idempotency-Key': 'twice' } };
  const calls = [0, 1].map(() => client.chat.completions.create(CHAT, options));
  const [first, second] = await Promise.all(calls);
  expect(second).toEqual(first);
  expect(h.deps.stores.trajectories.list().items).toHaveLength(1);
});
