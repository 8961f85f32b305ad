/**
 * The Vercel AI SDK against the real server, as a user would set it up: several steps with a tool,
 * plain and streamed, objects by a zod schema, our own fields both ways, aborts and errors.
 */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import type { OpenAICompatibleProvider } from '@ai-sdk/openai-compatible';
import {
  APICallError,
  generateObject,
  generateText,
  NoObjectGeneratedError,
  Output,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from 'ai';
import type { LanguageModel } from 'ai';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
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
  STEPS_MAX,
  Wire,
} from './kit.ts';
import type { Course } from './kit.ts';

const setup = fixture();
const wire = new Wire();

let server: TestServer;
let course: Course;
let ramify: OpenAICompatibleProvider;

beforeAll(async () => {
  server = await serverForClients(setup);
  course = await someCourse(server);
  ramify = provider(server);
});

beforeEach(() => wire.clear());

function provider(of: TestServer): OpenAICompatibleProvider {
  return createOpenAICompatible({
    name: 'ramify',
    baseURL: `${of.url}/v1`,
    apiKey: 'none',
    includeUsage: true,
    supportsStructuredOutputs: true,
    fetch: wire.fetch,
    metadataExtractor: {
      extractMetadata: async ({ parsedBody }) => ({ ramify: { model: modelIn(parsedBody) } }),
      createStreamExtractor: () => {
        let model = '';
        return {
          processChunk: (chunk) => void (model = modelIn(chunk)),
          buildMetadata: () => ({ ramify: { model } }),
        };
      },
    },
  });
}

const modelIn = (body: unknown): string => (body as { model: string }).model;

/** As the SDK spells them. */
const finishReasons = (): string[] =>
  course.finishReasons.map((reason) => reason.replace('_', '-'));

/** With the questions that it was asked. */
function searchTool() {
  const asked: string[] = [];
  const search = tool({
    description: 'Searches the knowledge base.',
    inputSchema: z.object({ query: z.string().describe('Words to look for.') }),
    execute: async ({ query }) => {
      asked.push(query);
      return lookUp(query);
    },
  });
  return { asked, tools: { search } };
}

describe('several steps with a tool', () => {
  it('generateText', async () => {
    const { asked, tools } = searchTool();
    const finished: string[] = [];
    const result = await generateText({
      model: ramify('ramify'),
      prompt: course.question,
      tools,
      temperature: 0,
      stopWhen: stepCountIs(STEPS_MAX),
      headers: { 'x-session-id': 'vercel' },
      onStepFinish: ({ finishReason }) => void finished.push(finishReason),
    });
    expect(asked).toEqual(course.lookups);
    expect(result.text).toBe(course.answer);
    expect(finished).toEqual(finishReasons());
    expect(result.warnings).toEqual([]);
    const [first] = result.steps;
    expect(result.steps.map(({ reasoningText }) => reasoningText)).toEqual(course.reasoning);
    expect(first?.toolCalls).toMatchObject([
      { toolName: 'search', input: { query: course.lookups[0] } },
    ]);
    expect(first?.toolResults).toMatchObject([{ output: lookUp(course.lookups[0] ?? '') }]);
    for (const { response, providerMetadata, usage } of result.steps) {
      expect(response.modelId).toBe('ramify@1');
      expect(response.headers?.['x-ramify-policy']).toBe('1');
      expect(providerMetadata).toEqual({ ramify: { model: 'ramify@1' } });
      expect(usage.inputTokens).toBeGreaterThan(0);
    }
    const ids = result.steps.map(({ response }) => response.headers?.['x-ramify-trajectory'] ?? '');
    const rows = await expectCourse(server, course, ids);
    expect(new Set(rows.map((row) => row.conversation_id)).size).toBe(1);
    expect(rows[0].conversation_id).not.toBeNull();
    expect(result.totalUsage.outputTokens).toBe(course.completionTokens);
  });

  it('streamText', async () => {
    const { asked, tools } = searchTool();
    const result = streamText({
      model: ramify('ramify'),
      prompt: course.question,
      tools,
      temperature: 0,
      stopWhen: stepCountIs(STEPS_MAX),
    });
    const parts: string[] = [];
    let text = '';
    for await (const part of result.fullStream) {
      if (parts.at(-1) !== part.type) parts.push(part.type);
      if (part.type === 'text-delta') text += part.text;
    }
    expect(asked).toEqual(course.lookups);
    expect(text).toBe(course.answer);
    expect(await result.text).toBe(course.answer);
    expect(parts).toContain('reasoning-delta');
    expect(await result.finishReason).toBe('stop');
    const steps = await result.steps;
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(finishReasons());
    for (const { usage, providerMetadata } of steps) {
      expect(usage.totalTokens).toBe((usage.inputTokens ?? NaN) + (usage.outputTokens ?? NaN));
      expect(providerMetadata).toEqual({ ramify: { model: 'ramify@1' } });
    }
    await expectCourse(server, course, wire.trajectories);
  });
});

describe('objects by a zod schema', () => {
  const schema = z.object({
    city: z.enum(['Paris', 'Rome']),
    people: z.int().min(1).max(99_999),
    near: z.array(z.object({ name: z.string().max(8), far: z.boolean().nullable() })).max(2),
  });

  it('generateObject', async () => {
    const { object, finishReason, warnings } = await generateObject({
      model: ramify('ramify'),
      prompt: course.question,
      schema,
      seed: 1,
    });
    expect(schema.parse(object)).toEqual(object);
    expect({ finishReason, warnings }).toEqual({ finishReason: 'stop', warnings: [] });
    expect(wire.sent[0].response_format).toMatchObject({
      type: 'json_schema',
      json_schema: { strict: true, schema: { required: ['city', 'people', 'near'] } },
    });
  });

  it('streamObject gives in the end what generateObject gives', async () => {
    const ask = { model: ramify('ramify'), prompt: course.question, schema, seed: 2 };
    const { object: plain } = await generateObject(ask);
    const { partialObjectStream, object } = streamObject(ask);
    let last: unknown;
    for await (const partial of partialObjectStream) last = partial;
    expect(await object).toEqual(plain);
    expect(last).toEqual(plain);
  });

  it('an array and a choice, without a schema of their own', async () => {
    const base = { model: ramify('ramify'), prompt: course.question, seed: 3 };
    const choice = await generateObject({ ...base, output: 'enum', enum: ['yes', 'no'] });
    expect(['yes', 'no']).toContain(choice.object);
    const list = await generateObject({ ...base, output: 'array', schema: z.enum(['a', 'b']) });
    expect(['a', 'b']).toEqual(expect.arrayContaining(list.object));
  });

  it('Output.object beside a tool', async () => {
    const { tools } = searchTool();
    const { output, finishReason } = await generateText({
      model: ramify('ramify'),
      prompt: course.question,
      tools,
      seed: 4,
      stopWhen: stepCountIs(STEPS_MAX),
      output: Output.object({ schema: z.object({ sure: z.boolean() }) }),
    });
    expect(finishReason).toBe('stop');
    expect(output.sure).toBeTypeOf('boolean');
    expect(wire.sent[0]).toMatchObject({ response_format: { type: 'json_schema' } });
    expect(wire.sent[0].tools).toHaveLength(1);
  });

  it('an object that the token limit cut is no object', async () => {
    const cut = generateObject({
      model: ramify('ramify'),
      prompt: 'x',
      schema,
      seed: 5,
      maxOutputTokens: 3,
    });
    const error = await cut.catch((thrown: unknown) => thrown);
    expect(NoObjectGeneratedError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ finishReason: 'length' });
  });
});

describe('a tool that must be called', () => {
  it.each([{ type: 'tool', toolName: 'rate' } as const, 'required' as const])(
    '%j',
    async (toolChoice) => {
      const rate = tool({ inputSchema: z.object({ stars: z.int().min(1).max(5) }) });
      const result = streamText({
        model: ramify(HERMES),
        prompt: course.question,
        tools: { rate },
        toolChoice,
        seed: 4,
      });
      const [made, ...others] = await result.toolCalls;
      expect(others).toEqual([]);
      expect(made?.toolName).toBe('rate');
      expect([1, 2, 3, 4, 5]).toContain((made?.input as { stars: number }).stars);
      expect(await result.finishReason).toBe('tool-calls');
    },
  );
});

it('passes what the SDK does not know into the body', async () => {
  await generateText({
    model: ramify('ramify'),
    prompt: course.question,
    temperature: 0,
    stopSequences: ['>'],
    providerOptions: { ramify: { min_p: 0.5, user: 'someone', metadata: { from: 'test' } } },
  });
  expect(wire.sent[0]).toMatchObject({ min_p: 0.5, user: 'someone', stop: ['>'] });
  const row = await logged(server, wire.trajectories[0] ?? '');
  expect(row.end_reason).toBe('stop');
});

describe('what goes wrong', () => {
  const failure = (ask: PromiseLike<unknown>): Promise<APICallError> =>
    Promise.resolve(ask).then(
      () => expect.fail('it was answered'),
      (thrown: unknown) => {
        expect(APICallError.isInstance(thrown), String(thrown)).toBe(true);
        return thrown as APICallError;
      },
    );

  it('refusals have their status, code and message, and are not tried again', async () => {
    const missing = await failure(generateText({ model: ramify('gpt-4'), prompt: 'x' }));
    expect(missing).toMatchObject({
      statusCode: 404,
      isRetryable: false,
      data: { error: { code: 'model_not_found' } },
    });
    expect(missing.message).toContain('gpt-4');
    const long = await failure(
      generateText({ model: ramify('ramify'), prompt: 'word '.repeat(2_000) }),
    );
    expect(long).toMatchObject({
      statusCode: 400,
      data: { error: { code: 'context_length_exceeded' } },
    });
    const schema = z.object({ code: z.string().regex(/^a+$/) });
    const form = await failure(generateObject({ model: ramify('ramify'), prompt: 'x', schema }));
    expect(form).toMatchObject({ statusCode: 400, data: { error: { param: 'response_format' } } });
    expect(form.message).toContain('pattern');
    expect(wire.sent).toHaveLength(3);
  });
});

describe('an answer that is stopped', () => {
  let endless: TestServer;
  let model: LanguageModel;
  beforeAll(async () => {
    endless = await endlessServer(setup);
    model = provider(endless)('ramify');
  });

  it('an abort in the stream ends the sampling', async () => {
    const stop = new AbortController();
    const result = streamText({
      model,
      prompt: course.question,
      abortSignal: stop.signal,
    });
    const types = new Set<string>();
    for await (const part of result.fullStream) {
      types.add(part.type);
      if (part.type === 'reasoning-delta') stop.abort();
    }
    expect(types).toContain('abort');
    await expectCancelled(endless, wire.trajectories[0] ?? '');
  });

  it('a fault in the stream is an error part, and the next answer comes', async () => {
    const errors: unknown[] = [];
    const result = streamText({
      model,
      prompt: course.question,
      onError: ({ error }) => void errors.push(error),
    });
    let killed = false;
    for await (const part of result.fullStream) {
      if (part.type !== 'reasoning-delta' || killed) continue;
      killPolicyWorker(endless);
      killed = true;
    }
    expect(errors).toMatchObject([{ code: 'engine_unavailable' }]);
    expect(await result.finishReason).toBe('error');
    const { finishReason } = await generateText({
      model,
      prompt: course.question,
      maxOutputTokens: 2,
      maxRetries: 6,
    });
    expect(finishReason).toBe('length');
  });
});
