/**
 * Demanded forms over the real server: policies that know nothing of JSON answer in it, because
 * every other token is masked. Both protocols, streamed and plain, through the `openai` client.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import type OpenAI from 'openai';
import { beforeAll, describe, expect, it } from 'vitest';
import { must } from '../../core/assert.ts';
import { Prng } from '../../core/prng.ts';
import { randomObjectSchema, withDefinitions } from '../../core/text/testing/random-schema.ts';
import { openaiClient } from '../support/clients.ts';
import { writeHermesPolicy } from '../support/hermes-policy.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, dataFolderWithPolicies, fixture } from './fixture.ts';

const { path, launch } = fixture();
const ajv = new Ajv2020({ strict: false });
const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Go on.' }];

let server: TestServer;
let openai: OpenAI;

beforeAll(async () => {
  const dataFolder = path('data');
  await dataFolderWithPolicies(dataFolder, [(directory) => writeHermesPolicy(directory)]);
  server = await launch({ dataFolder }).ready();
  openai = openaiClient(server.url);
});

const functionTool = (name: string, parameters: Record<string, unknown>) => ({
  type: 'function' as const,
  function: { name, parameters },
});

function calls({ choices }: OpenAI.ChatCompletion): OpenAI.ChatCompletionMessageFunctionToolCall[] {
  const [choice] = choices;
  expect(choice?.finish_reason).toBe('tool_calls');
  return (choice?.message.tool_calls ?? []) as OpenAI.ChatCompletionMessageFunctionToolCall[];
}

describe.each(['ramify@1', 'ramify@2'])('%s', (model) => {
  it('answers in 50 random JSON schemas', async () => {
    const prng = new Prng(50);
    for (let seed = 0; seed < 50; seed++) {
      const schema = withDefinitions(randomObjectSchema(prng, 2));
      const json_schema = { name: 'answer', schema, strict: true };
      const { choices } = await openai.chat.completions.create({
        ...{ model, messages, seed, temperature: 1.2, top_p: 0.95 },
        response_format: { type: 'json_schema', json_schema },
      });
      const { message, finish_reason } = must(choices[0], 'choice');
      expect(finish_reason).toBe('stop');
      const value: unknown = JSON.parse(message.content ?? '');
      expect(ajv.validate(schema, value), `${JSON.stringify(schema)}\n${message.content}`).toBe(
        true,
      );
    }
  });

  it('streams the same JSON that it answers plainly', async () => {
    const schema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };
    const request = {
      ...{ model, messages, seed: 3 },
      response_format: {
        type: 'json_schema' as const,
        json_schema: { name: 'answer', schema },
      },
    };
    const plain = await openai.chat.completions.create(request);
    let text = '';
    for await (const chunk of await openai.chat.completions.create({ ...request, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? '';
    }
    expect(text).toBe(plain.choices[0]?.message.content);
    expect(Number.isInteger((JSON.parse(text) as { n: number }).n)).toBe(true);
  });

  it('calls the function that is forced, and logs what was demanded', async () => {
    const parameters = {
      type: 'object',
      properties: { query: { enum: ['rome', 'paris', 'a "b" town'] } },
      required: ['query'],
      additionalProperties: false,
    };
    const tools = [functionTool('search', parameters), functionTool('javascript', {})];
    for (let seed = 0; seed < 5; seed++) {
      const { data, response } = await openai.chat.completions
        .create({
          ...{ model, messages, tools, seed },
          tool_choice: { type: 'function', function: { name: 'search' } },
        })
        .withResponse();
      const [made, ...others] = calls(data);
      expect(others).toEqual([]);
      expect(made?.function.name).toBe('search');
      expect(ajv.validate(parameters, JSON.parse(made?.function.arguments ?? ''))).toBe(true);
      const id = response.headers.get('x-ramify-trajectory');
      const { body } = await call(server, 'GET', `/v1/trajectories/${id}?include=tokens`);
      expect(body.steps[1].kind).toBe('policy');
      expect(body.steps[1].logprobs).toHaveLength(body.steps[1].tokens.length);
    }
  });

  it('calls one of the functions when a call is required, in a stream too', async () => {
    const parameters = { properties: { query: { const: 'x' }, code: { const: 'y' } } };
    const tools = [functionTool('search', parameters), functionTool('javascript', parameters)];
    const seen = new Set<string>();
    for (let seed = 0; seed < 12; seed++) {
      const stream = openai.chat.completions.stream({
        ...{ model, messages, tools, seed, tool_choice: 'required', temperature: 2 },
      });
      const [made] = calls(await stream.finalChatCompletion());
      seen.add(made?.function.name ?? '');
      expect(JSON.parse(made?.function.arguments ?? '')).toBeTypeOf('object');
    }
    expect([...seen].every((name) => ['search', 'javascript'].includes(name))).toBe(true);
  });

  it('ends a form that a limit cuts with length', async () => {
    const schema = { type: 'string', minLength: 40 };
    const { choices } = await openai.chat.completions.create({
      ...{ model, messages, seed: 1, max_tokens: 4 },
      response_format: { type: 'json_schema', json_schema: { name: 'long', schema } },
    });
    expect(choices[0]?.finish_reason).toBe('length');
  });

  it('ends at a stop text, and refuses a bias of a token that there is not', async () => {
    const free = await openai.chat.completions.create({ model, messages, seed: 9, max_tokens: 60 });
    const text = must(free.choices[0], 'choice').message;
    const shown = `${(text as { reasoning_content?: string }).reasoning_content ?? ''}${text.content}`;
    const stop = shown.slice(6, 9);
    const cut = await openai.chat.completions.create({
      ...{ model, messages, seed: 9, max_tokens: 60, stop },
    });
    expect(JSON.stringify(cut.choices[0]?.message)).not.toContain(
      JSON.stringify(stop).slice(1, -1),
    );
    expect(cut.choices[0]?.finish_reason).toBe('stop');
    expect(must(cut.usage, 'usage').completion_tokens).toBeLessThan(60);
    await expect(
      openai.chat.completions.create({ model, messages, logit_bias: { 999999: 1 } }),
    ).rejects.toMatchObject({ status: 400, param: 'logit_bias', code: 'invalid_request' });
  });
});
