/**
 * The OpenAI Agents SDK against the real server, over each of OpenAI's two protocols: an agent with
 * a function runs to its answer, plain and streamed, goes on in a later turn, hands over to another
 * agent, answers by a schema, and is told what went wrong.
 */
import {
  Agent,
  hostedMcpTool,
  MaxTurnsExceededError,
  OpenAIProvider,
  OpenAIResponsesModel,
  run,
  Runner,
  setDefaultOpenAIClient,
  setOpenAIAPI,
  setTracingDisabled,
  tool,
  user,
} from '@openai/agents';
import OpenAI from 'openai';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
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
  STEPS_MAX,
  Wire,
} from './kit.ts';
import type { Course } from './kit.ts';

/** Into the body as it is. */
const SEED = { seed: 1 };

const setup = fixture();
const wire = new Wire();

let server: TestServer;
let course: Course;

beforeAll(async () => {
  server = await serverForClients(setup);
  course = await someCourse(server);
  setDefaultOpenAIClient(clientOf(server));
  setTracingDisabled(true);
});

beforeEach(() => wire.clear());

const clientOf = ({ url }: TestServer): OpenAI =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 6, fetch: wire.fetch });

/** With the questions that it was asked. */
function searchAgent() {
  const asked: string[] = [];
  const search = tool({
    name: 'search',
    description: 'Searches the knowledge base.',
    parameters: z.object({ query: z.string() }),
    execute: async ({ query }) => {
      asked.push(query);
      return lookUp(query);
    },
  });
  const agent = new Agent({
    name: 'Finder',
    model: 'ramify',
    modelSettings: { temperature: 0 },
    tools: [search],
  });
  return { asked, agent, search };
}

/** The answer on the wire went on from the very steps of an earlier trajectory. */
async function expectGoesOn(
  answered: { steps: { id: string }[] },
  question: string,
): Promise<void> {
  const { steps } = await logged(server, wire.trajectories[0] ?? '');
  const ids = (list: { id: string }[]): string[] => list.map(({ id }) => id);
  expect(ids(steps).slice(0, answered.steps.length)).toEqual(ids(answered.steps));
  expect(steps.at(-2).text).toContain(question);
}

describe.each(['chat_completions', 'responses'] as const)('over %s', (api) => {
  beforeEach(() => setOpenAIAPI(api));
  afterEach(() => {
    const field = api === 'responses' ? 'input' : 'messages';
    expect(wire.sent.filter((body) => body[field] === undefined)).toEqual([]);
  });

  describe('an agent with a function', () => {
    it('runs to its answer', async () => {
      const { agent, asked } = searchAgent();
      const result = await run(agent, course.question, { maxTurns: STEPS_MAX });
      expect(asked).toEqual(course.lookups);
      expect(result.finalOutput).toBe(course.answer);
      const { usage } = result.state;
      expect(usage.requests).toBe(course.finishReasons.length);
      expect(usage.outputTokens).toBe(course.completionTokens);
      await expectCourse(server, course, wire.trajectories);
    });

    it('streams the same', async () => {
      const { agent, asked } = searchAgent();
      const result = await run(agent, course.question, { stream: true, maxTurns: STEPS_MAX });
      let text = '';
      const items: string[] = [];
      for await (const event of result) {
        if (event.type === 'run_item_stream_event') items.push(event.name);
        if (event.type !== 'raw_model_stream_event') continue;
        if (event.data.type === 'output_text_delta') text += event.data.delta;
      }
      await result.completed;
      expect(asked).toEqual(course.lookups);
      expect(text).toBe(course.answer);
      expect(result.finalOutput).toBe(course.answer);
      const calls = course.lookups.flatMap(() => ['tool_called', 'tool_output']);
      expect(items.filter((name) => !name.startsWith('reasoning'))).toEqual([
        ...calls,
        'message_output_created',
      ]);
      expect(result.state.usage.outputTokens).toBe(course.completionTokens);
      await expectCourse(server, course, wire.trajectories);
    });

    it.each([false, true])('goes on from its answer (streamed: %s)', async (stream) => {
      const { agent } = searchAgent();
      const first = stream
        ? await run(agent, course.question, { stream: true })
        : await run(agent, course.question);
      if ('completed' in first) await first.completed;
      const answered = await logged(server, wire.trajectories.at(-1) ?? '');
      wire.clear();
      // What the policy then says is its affair; that it is asked with all before it is ours.
      await run(agent, [...first.history, user(course.question)], { maxTurns: 1 }).catch(
        (thrown: unknown) => expect(thrown).toBeInstanceOf(MaxTurnsExceededError),
      );
      await expectGoesOn(answered, course.question);
    });
  });

  it('hands over to the agent that is chosen', async () => {
    const second = new Agent({
      name: 'Second',
      model: HERMES,
      modelSettings: { maxTokens: 4, providerData: SEED },
    });
    const first = new Agent({
      name: 'First',
      instructions: 'Hand over.',
      model: HERMES,
      modelSettings: { toolChoice: 'required', providerData: SEED },
      handoffs: [second],
    });
    const result = await run(first, course.question);
    expect(result.lastAgent?.name).toBe('Second');
    expect(wire.sent.map(({ tool_choice: choice }) => choice)).toEqual(['required', undefined]);
  });

  it('answers by a zod schema', async () => {
    const outputType = z.object({ city: z.enum(['Paris', 'Rome']), people: z.int().min(1).max(9) });
    const agent = new Agent({
      name: 'Former',
      model: 'ramify',
      modelSettings: { providerData: SEED },
      outputType,
    });
    for (const stream of [false, true] as const) {
      const result = stream
        ? await run(agent, course.question, { stream: true })
        : await run(agent, course.question);
      if ('completed' in result) await result.completed;
      expect(outputType.parse(result.finalOutput)).toEqual(result.finalOutput);
    }
    const { response_format: form, text } = wire.sent[0];
    expect(form?.json_schema ?? text.format).toMatchObject({ strict: true });
  });

  describe('what goes wrong', () => {
    it('refusals come as the errors of the openai client', async () => {
      const agent = new Agent({ name: 'Lost', model: 'gpt-4' });
      await expect(run(agent, 'x')).rejects.toBeInstanceOf(OpenAI.NotFoundError);
      await expect(run(agent, 'x')).rejects.toMatchObject({ code: 'model_not_found' });
      const long = new Agent({ name: 'Long', model: 'ramify' });
      await expect(run(long, 'word '.repeat(2_000))).rejects.toMatchObject({
        status: 400,
        code: 'context_length_exceeded',
      });
    });
  });
});

describe('what only responses have', () => {
  beforeEach(() => setOpenAIAPI('responses'));

  it.each([false, true])('goes on from a response by its id (streamed: %s)', async (stream) => {
    const { agent } = searchAgent();
    const first = stream
      ? await run(agent, course.question, { stream: true })
      : await run(agent, course.question);
    if ('completed' in first) {
      let text = '';
      for await (const piece of first.toTextStream()) text += piece;
      await first.completed;
      expect(text).toBe(course.answer);
    }
    const answered = await logged(server, wire.trajectories.at(-1) ?? '');
    wire.clear();
    await run(agent, course.question, {
      previousResponseId: must(first.lastResponseId, 'the id of the answer'),
      maxTurns: 1,
    }).catch((thrown: unknown) => expect(thrown).toBeInstanceOf(MaxTurnsExceededError));
    expect(wire.sent[0].input).toHaveLength(1);
    await expectGoesOn(answered, course.question);
  });

  it.each([false, true])('the server runs its own tools (streamed: %s)', async (stream) => {
    const agent = new Agent({
      name: 'Asker',
      model: new OpenAIResponsesModel(clientOf(server), 'ramify'),
      modelSettings: { temperature: 0 },
      tools: [hostedMcpTool({ serverLabel: 'ramify', allowedTools: ['search'] })],
    });
    const result = stream
      ? await run(agent, course.question, { stream: true })
      : await run(agent, course.question);
    if ('completed' in result) await result.completed;
    expect(wire.sent).toHaveLength(1);
    const row = await logged(server, wire.trajectories[0] ?? '');
    expect(row.tool_calls).toBeGreaterThan(0);
    expect(result.finalOutput).toBe(row.answer);
    const calls = result.newItems.filter(({ type }) => type === 'tool_call_item');
    expect(calls).toHaveLength(row.tool_calls);
    const served = row.steps.flatMap((step: { tool_call?: { served: string } }) =>
      step.tool_call === undefined ? [] : step.tool_call.served,
    );
    expect(served).toEqual(calls.map(() => 'live'));
    const kinds = calls.map(({ rawItem }) => rawItem.type === 'hosted_tool_call' && rawItem.name);
    expect(kinds).toEqual(calls.map(() => 'mcp_call'));
  });
});

describe.each(['chat_completions', 'responses'] as const)('stopped over %s', (api) => {
  const agent = new Agent({ name: 'Endless', model: 'ramify' });
  let endless: TestServer;
  let runner: Runner;
  beforeAll(async () => {
    endless = await endlessServer(setup);
    const openAIClient = clientOf(endless);
    runner = new Runner({
      modelProvider: new OpenAIProvider({ openAIClient, useResponses: api === 'responses' }),
    });
  });

  const start = (signal?: AbortSignal) =>
    runner.run(agent, course.question, { stream: true, maxTurns: 1, ...(signal && { signal }) });
  /** Calls `onText` at the first thoughts. */
  const read = async (
    result: Awaited<ReturnType<typeof start>>,
    onText: () => void,
  ): Promise<void> => {
    let seen = false;
    for await (const event of result) {
      if (seen || event.type !== 'raw_model_stream_event') continue;
      if (!JSON.stringify(event.data).includes('"y')) continue;
      onText();
      seen = true;
    }
    await result.completed;
  };

  it('an abort ends the sampling', async () => {
    const stop = new AbortController();
    await read(await start(stop.signal), () => stop.abort()).catch(() => undefined);
    await expectCancelled(endless, wire.trajectories[0] ?? '');
  });

  it('a fault is told, and the next run is answered', async () => {
    const failed = read(await start(), () => killPolicyWorker(endless));
    await expect(failed).rejects.toMatchObject({ code: 'engine_unavailable' });
    wire.clear();
    const short = agent.clone({ modelSettings: { maxTokens: 2 } });
    await runner.run(short, course.question, { maxTurns: 1 }).catch(() => undefined);
    expect(wire.trajectories).toHaveLength(1);
  });
});
