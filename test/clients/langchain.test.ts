/**
 * LangChain's ChatOpenAI against the real server: a tool loop, plain and streamed, structured
 * output by each of its methods, batches, aborts and errors.
 */
import { HumanMessage, ToolMessage } from '@langchain/core/messages';
import type { AIMessageChunk, BaseMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import type { ChatOpenAIFields } from '@langchain/openai';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { must } from '../../core/assert.ts';
import { fixture } from '../e2e/fixture.ts';
import { testQuestions } from '../support/clients.ts';
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
  STEPS_MAX,
  Wire,
} from './kit.ts';
import type { Course } from './kit.ts';

/** LangChain has the seed as an option of a call only. */
const SEEDED = { modelKwargs: { seed: 1 } };

const setup = fixture();
const wire = new Wire();

let server: TestServer;
let course: Course;

beforeAll(async () => {
  server = await serverForClients(setup);
  course = await someCourse(server);
});

beforeEach(() => wire.clear());

/** `model` comes behind the fields, so that names of OpenAI's models are not assumed. */
function chat(model: string, fields: ChatOpenAIFields = {}, to = server): ChatOpenAI {
  return new ChatOpenAI({
    model,
    apiKey: 'none',
    maxRetries: 0,
    ...fields,
    configuration: { baseURL: `${to.url}/v1`, fetch: wire.fetch },
  });
}

const search = tool(async ({ query }) => lookUp(query), {
  name: 'search',
  description: 'Searches the knowledge base.',
  schema: z.object({ query: z.string() }),
});

/** Asks, calls what the policy calls, asks again: to the answer. */
async function toolLoop(
  ask: (messages: BaseMessage[]) => Promise<AIMessageChunk>,
): Promise<{ asked: unknown[]; answers: AIMessageChunk[] }> {
  const messages: BaseMessage[] = [new HumanMessage(course.question)];
  const asked: unknown[] = [];
  const answers: AIMessageChunk[] = [];
  for (let steps = 0; steps < STEPS_MAX; steps++) {
    const answer = await ask(messages);
    answers.push(answer);
    messages.push(answer);
    if ((answer.tool_calls ?? []).length === 0) break;
    for (const made of answer.tool_calls ?? []) {
      asked.push(made.args['query']);
      const result: unknown = await search.invoke(made);
      expect(result).toBeInstanceOf(ToolMessage);
      messages.push(result as ToolMessage);
    }
  }
  return { asked, answers };
}

describe('a tool loop', () => {
  const expectLoop = async (ran: Awaited<ReturnType<typeof toolLoop>>): Promise<void> => {
    expect(ran.asked).toEqual(course.lookups);
    expect(ran.answers.at(-1)?.text).toBe(course.answer);
    const reasons = ran.answers.map((answer) => answer.response_metadata['finish_reason']);
    expect(reasons).toEqual(course.finishReasons);
    const sampled = ran.answers.map((answer) => answer.usage_metadata?.output_tokens ?? NaN);
    expect(sampled.reduce((sum, count) => sum + count)).toBe(course.completionTokens);
    await expectCourse(server, course, wire.trajectories);
  };

  it('with invoke', async () => {
    const model = chat('ramify', { temperature: 0 }).bindTools([search]);
    await expectLoop(await toolLoop((messages) => model.invoke(messages)));
  });

  it('with stream, its chunks put together', async () => {
    const model = chat('ramify', { temperature: 0 }).bindTools([search]);
    const ran = await toolLoop(async (messages) => {
      let whole: AIMessageChunk | null = null;
      for await (const chunk of await model.stream(messages)) {
        whole = whole === null ? chunk : whole.concat(chunk);
      }
      return must(whole, 'a stream has chunks');
    });
    await expectLoop(ran);
    expect(wire.sent[0]).toMatchObject({ stream: true, stream_options: { include_usage: true } });
  });
});

describe('structured output', () => {
  const schema = z.object({
    city: z.enum(['Paris', 'Rome']).describe('Where it is.'),
    people: z.int().min(1).max(99_999),
    near: z.array(z.string().max(8)).max(2),
  });

  it('by jsonSchema', async () => {
    const model = chat('ramify', SEEDED).withStructuredOutput(schema, { method: 'jsonSchema' });
    const value = await model.invoke(course.question);
    expect(schema.parse(value)).toEqual(value);
    expect(wire.sent[0].response_format.type).toBe('json_schema');
  });

  it('by jsonSchema in a stream, whose last value is whole', async () => {
    const model = chat('ramify', SEEDED).withStructuredOutput(schema, { method: 'jsonSchema' });
    let last: unknown;
    for await (const value of await model.stream(course.question)) last = value;
    expect(schema.parse(last)).toEqual(last);
    expect(wire.sent[0].stream).toBe(true);
  });

  it('by functionCalling', async () => {
    const model = chat(HERMES, SEEDED).withStructuredOutput(schema, {
      method: 'functionCalling',
      name: 'note',
      strict: true,
    });
    const value = await model.invoke(course.question);
    expect(schema.parse(value)).toEqual(value);
    expect(wire.sent[0].tool_choice).toEqual({ type: 'function', function: { name: 'note' } });
  });

  it('by jsonMode: an object, which the schema then takes or not', async () => {
    const anything = z.record(z.string(), z.unknown());
    const model = chat('ramify', { ...SEEDED, maxTokens: 400 });
    const value = await model
      .withStructuredOutput(anything, { method: 'jsonMode' })
      .invoke(course.question);
    expect(value).toBeTypeOf('object');
    expect(wire.sent[0].response_format).toEqual({ type: 'json_object' });
  });
});

it('batch: each question has its own answer and trajectory', async () => {
  const questions = testQuestions.slice(0, 8).map(({ question }) => question);
  const model = chat('ramify', { temperature: 0, maxTokens: 24 });
  const answers = await model.batch(questions, { maxConcurrency: 4 });
  expect(answers).toHaveLength(8);
  expect(new Set(wire.trajectories).size).toBe(8);
  const rows = await Promise.all(wire.trajectories.map((id) => logged(server, id)));
  const prompts = rows.map((row) => row.steps[0].text as string);
  for (const question of questions) {
    expect(prompts.filter((text) => text.includes(question))).toHaveLength(1);
  }
  const alone = await Promise.all(questions.map((question) => model.invoke(question)));
  expect(answers.map(({ text }) => text)).toEqual(alone.map(({ text }) => text));
});

it('log-probabilities and fields that LangChain does not know', async () => {
  const model = chat('ramify', { logprobs: true, modelKwargs: { min_p: 0.2, seed: 7 } });
  const answer = await model.invoke(course.question);
  const { content } = answer.response_metadata['logprobs'] as { content: unknown[] };
  expect(content).toHaveLength(answer.usage_metadata?.output_tokens ?? NaN);
  expect(wire.sent[0]).toMatchObject({ min_p: 0.2, seed: 7 });
});

it('refusals have their status and code', async () => {
  await expect(chat('gpt-4').invoke('x')).rejects.toMatchObject({
    status: 404,
    code: 'model_not_found',
  });
  await expect(chat('ramify').invoke('word '.repeat(2_000))).rejects.toMatchObject({
    status: 400,
    code: 'context_length_exceeded',
  });
});

describe('an answer that is stopped', () => {
  let endless: TestServer;
  beforeAll(async () => {
    endless = await endlessServer(setup);
  });

  const readAll = async (stream: AsyncIterable<unknown>, onFirst: () => void): Promise<void> => {
    const pieces = stream[Symbol.asyncIterator]();
    await pieces.next();
    onFirst();
    while ((await pieces.next()).done !== true) continue;
  };

  it('an abort in the stream ends the sampling', async () => {
    const stop = new AbortController();
    const stream = await chat('ramify', {}, endless).stream(course.question, {
      signal: stop.signal,
    });
    const reading = readAll(stream, () => stop.abort());
    await expect(reading).rejects.toThrow(/abort/i);
    await expectCancelled(endless, wire.trajectories[0] ?? '');
  });

  it('a fault in the stream rejects, and a retry of the next call is answered', async () => {
    const stream = await chat('ramify', {}, endless).stream(course.question);
    const reading = readAll(stream, () => killPolicyWorker(endless));
    await expect(reading).rejects.toMatchObject({ code: 'engine_unavailable' });
    const answer = await chat('ramify', { maxRetries: 6, maxTokens: 2 }, endless).invoke(
      course.question,
    );
    expect(answer.response_metadata['finish_reason']).toBe('length');
  });
});
