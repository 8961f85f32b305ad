/**
 * Responses over a real socket: clients that leave, servers that stop or start again, a disk that
 * fails, tenants, and steps that call a tool of this server and a client's function at once.
 */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import OpenAI from 'openai';
import type { ResponseStreamEvent } from 'openai/resources/responses/responses';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { createApp } from '../app.ts';
import { startHarness, until } from '../testing/harness.ts';
import type { Harness } from '../testing/harness.ts';
import { Responses } from './responses.ts';

let h: Harness;
let server: Server;
let client: OpenAI;

async function listen(protocol: 'tags' | 'hermes'): Promise<void> {
  h = await startHarness({ protocol, contextTokens: 2_048 });
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

const ASKED = { model: 'ramify', input: 'What is the capital of France?' };
const SLOW = `<think>${'I need to search for France. '.repeat(30)}</think>`;

function slowly(): void {
  h.engine.pieceMs = 20;
  h.engine.script = () => SLOW;
}

const statusOf = (id: string): string | undefined =>
  h.deps.stores.responses.find(id, undefined)?.status;

test('a client that leaves its stream cancels the response, whose rows are kept', async () => {
  slowly();
  let id = '';
  for await (const event of await client.responses.create({ ...ASKED, stream: true })) {
    if (event.type === 'response.created') id = event.response.id;
    if (event.type === 'response.reasoning_text.delta') break;
  }
  await until(() => statusOf(id) === 'cancelled');
  const { trajectoryId } = h.deps.stores.responses.find(id, undefined) ?? {};
  expect(h.deps.stores.trajectories.get(trajectoryId ?? '').trajectory.status).toBe('cancelled');
  const { output } = await client.responses.retrieve(id);
  expect(output).toMatchObject([{ type: 'reasoning', status: 'incomplete' }]);
  expect(h.engine.cancelled).toBe(1);
});

test('one in the background goes on when its client leaves, and the stream is taken up', async () => {
  h.engine.pieceMs = 10;
  const stream = await client.responses.create({ ...ASKED, stream: true, background: true });
  let id = '';
  for await (const event of stream) {
    if (event.type === 'response.created') id = event.response.id;
    if (event.type === 'response.reasoning_text.delta') break;
  }
  const rest: ResponseStreamEvent[] = [];
  const again = await client.responses.retrieve(id, { stream: true, starting_after: 1 });
  for await (const event of again) rest.push(event);
  expect(rest[0]).toMatchObject({ type: 'response.output_item.added', sequence_number: 2 });
  expect(rest.at(-1)).toMatchObject({ type: 'response.completed' });
});

test('the server stops: the stream says so, and the response has failed', async () => {
  slowly();
  const events: ResponseStreamEvent[] = [];
  const stopped: Promise<void>[] = [];
  const read = followed(events, ({ type }) => {
    if (type === 'response.reasoning_text.delta' && stopped.length === 0) {
      stopped.push(h.deps.lifecycle.stop(50));
    }
  });
  await expect(read).rejects.toMatchObject({ code: 'not_ready' });
  await Promise.all(stopped);
  expect(h.deps.stores.responses.find(idOf(events), undefined)).toMatchObject({
    status: 'failed',
    error: { code: 'not_ready' },
  });
});

test('a disk that fails at the end: the error, and no response that is stored nowhere', async () => {
  h.engine.pieceMs = 10;
  const events: ResponseStreamEvent[] = [];
  const read = followed(events, () => {
    h.fault.thrown = new AppError('storage_failed', 'no disk in /secret');
  });
  const error: unknown = await read.catch((thrown: unknown) => thrown);
  h.fault.thrown = null;
  expect(error).toMatchObject({ code: 'storage_failed' });
  expect(JSON.stringify([error, events])).not.toContain('secret');
  expect(statusOf(idOf(events))).toBeUndefined();
});

/** Streams a response into `events`; throws as the client does. */
async function followed(
  events: ResponseStreamEvent[],
  onEvent: (event: ResponseStreamEvent) => void,
): Promise<void> {
  for await (const event of await client.responses.create({ ...ASKED, stream: true })) {
    events.push(event);
    onEvent(event);
  }
}

function idOf([created]: readonly ResponseStreamEvent[]): string {
  return created?.type === 'response.created' ? created.response.id : '';
}

test('what an earlier process left at work has failed after the next start', async () => {
  slowly();
  const { id } = await client.responses.create({ ...ASKED, background: true });
  expect(statusOf(id)).toBe('in_progress');
  // The next process on the same data, while nothing of this one is asked any more.
  createApp(h.deps);
  expect(h.deps.stores.responses.find(id, undefined)).toMatchObject({
    status: 'failed',
    error: { code: 'not_ready' },
  });
  await client.responses.cancel(id);
});

test('steps of a killed process have a trajectory after the next start, of a response that is not stored too', async () => {
  const found = 'Paris is the capital';
  h.engine.pieceMs = 20;
  h.engine.script = (text) => (text.includes(found) ? SLOW : '<search>France</search>');
  const tools = [{ type: 'mcp' as const, server_label: 'ramify', allowed_tools: ['search'] }];
  const { trajectories, responses } = h.deps.stores;
  const leave = new AbortController();
  const asked = { ...ASKED, tools, stream: true as const };
  const streams = [
    await client.responses.create({ ...asked, background: true }, { signal: leave.signal }),
    await client.responses.create({ ...asked, store: false }, { signal: leave.signal }),
  ];
  for (const stream of streams) {
    for await (const { type } of stream) if (type === 'response.mcp_call.completed') break;
  }
  const cutRecords = () => responses.cut().map(({ record }) => record);
  // The call's result is durable a moment after it is told.
  await until(
    () =>
      cutRecords().filter(({ leafStepId }) => trajectories.path(leafStepId ?? '').length === 3)
        .length === 2,
  );
  const cut = cutRecords();
  // The next process on the same data, while nothing of this one is asked any more.
  createApp(h.deps);
  await until(() => responses.cut().length === 0);
  for (const { trajectoryId } of cut) {
    const { trajectory, steps } = trajectories.get(trajectoryId ?? '');
    expect(trajectory).toMatchObject({ status: 'cancelled', reward: null, toolCalls: 1 });
    expect(steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy', 'tool']);
    expect(steps[2]?.toolCall?.result).toContain(found);
  }
  expect(cut.map(({ id }) => statusOf(id))).toEqual(['failed', undefined]);
  leave.abort();
});

test('another tenant finds nothing of a response, stored or at work', async () => {
  const responses = new Responses(h.deps);
  const ann = { keyId: null, tenant: 'ann', seen: 'ann' };
  const bob = { keyId: null, tenant: 'bob', seen: 'bob' };
  const { signal } = new AbortController();
  const facts = { sessionId: null, signal };
  const live = await responses.create(ASKED, ann, facts);
  const { id } = live.record;
  const missing = { code: 'response_not_found' };
  expect(() => responses.view(id, bob)).toThrow(expect.objectContaining(missing));
  await live.done;
  expect(responses.view(id, ann).status).toBe('completed');
  expect(responses.view(id, { keyId: null, tenant: 'root', seen: undefined }).status).toBe(
    'completed',
  );
  for (const read of [
    () => responses.view(id, bob),
    () => responses.inputItems(id, bob),
    () => responses.follow(id, bob, null),
  ]) {
    expect(read).toThrow(expect.objectContaining(missing));
  }
  await expect(responses.cancel(id, bob)).rejects.toMatchObject(missing);
  await expect(responses.remove(id, bob)).rejects.toMatchObject(missing);
  const next = { ...ASKED, previous_response_id: id };
  await expect(responses.create(next, bob, facts)).rejects.toMatchObject({
    code: 'previous_response_not_found',
  });
  const [item] = live.writer.output;
  const input = [{ type: 'item_reference' as const, id: item?.id }];
  await expect(responses.create({ ...ASKED, input }, bob, facts)).rejects.toMatchObject({
    param: 'input[0].id',
  });
});

test('calls of this server and of the client in one step: the first run, the others are asked', async () => {
  server.close();
  server.closeAllConnections();
  await h.close();
  await listen('hermes');
  const call = (name: string, args: object): string =>
    `<tool_call>\n${JSON.stringify({ name, arguments: args })}\n</tool_call>`;
  h.engine.script = (text) =>
    text.includes('It rains.')
      ? 'Paris, in the rain.<|im_end|>'
      : `Wait.${call('weather', { city: 'Paris' })}${call('search', { query: 'France' })}<|im_end|>`;
  const tools: OpenAI.Responses.Tool[] = [
    { type: 'mcp', server_label: 'ramify', allowed_tools: ['search'] },
    { type: 'function', name: 'weather', parameters: { type: 'object' }, strict: false },
  ];
  const first = await client.responses.create({ ...ASKED, tools });
  expect(first.output).toMatchObject([
    { type: 'message', content: [{ text: 'Wait.' }] },
    { type: 'mcp_call', name: 'search', output: expect.stringContaining('Paris is the capital') },
    { type: 'function_call', name: 'weather', arguments: '{"city":"Paris"}' },
  ]);
  const [, , weather] = first.output;
  const call_id = weather?.type === 'function_call' ? weather.call_id : '';
  const next = await client.responses.create({
    ...{ model: 'ramify', tools, previous_response_id: first.id },
    input: [{ type: 'function_call_output', call_id, output: 'It rains.' }],
  });
  expect(next.output_text).toBe('Paris, in the rain.');
});

/** Large, and not shown to the policy. */
const LARGE = {
  ...ASKED,
  ...{ background: true, tool_choice: 'none' as const },
  tools: [{ type: 'function' as const, name: 'f', parameters: { title: 'x'.repeat(5_000_000) } }],
};
const NOBODY = { keyId: null, tenant: 'default', seen: undefined };

test('ended responses are kept for followers up to a size, what they repeat of the request once', async () => {
  const responses = new Responses(h.deps);
  const facts = { sessionId: null, signal: new AbortController().signal };
  const ids: string[] = [];
  for (let size = 0; size <= LIMITS.endedCharsMax; size += 5_000_000) {
    const live = await responses.create(LARGE, NOBODY, facts);
    await live.done;
    ids.push(live.record.id);
  }
  expect(() => responses.follow(ids[0] ?? '', NOBODY, null)).toThrow('not kept');
  const { signal } = facts;
  const tools = new Set<unknown>();
  for await (const { event } of responses.follow(ids.at(-1) ?? '', NOBODY, null)(signal)) {
    if ('response' in event) tools.add(event.response.tools);
  }
  expect(tools.size).toBe(1);
});
