/**
 * The OpenAI Agents SDK in the form that it uses by default, the responses API, on a real server
 * with the embedded policy: its own loop over a function, plain and streamed, its way to go on
 * later, and tools of this server as its hosted MCP tools.
 */
import { Agent, hostedMcpTool, OpenAIResponsesModel, Runner, tool } from '@openai/agents';
import OpenAI from 'openai';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { fixture } from '../e2e/fixture.ts';
import type { TestServer } from '../support/server-process.ts';
import { expectCourse, logged, lookUp, someCourse, STEPS_MAX, Wire } from './kit.ts';
import type { Course } from './kit.ts';

const { path, launch } = fixture();
const wire = new Wire();
const runner = new Runner({ tracingDisabled: true });

let server: TestServer;
let course: Course;
let model: OpenAIResponsesModel;

beforeAll(async () => {
  server = await launch({ dataFolder: path('data') }).ready();
  course = await someCourse(server);
  const baseURL = `${server.url}/v1`;
  const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0, fetch: wire.fetch });
  model = new OpenAIResponsesModel(client, 'ramify');
});

beforeEach(() => wire.clear());

/** With the questions that its function was asked. */
function searcher() {
  const asked: string[] = [];
  const search = tool({
    name: 'search',
    description: 'Searches the knowledge base.',
    parameters: z.object({ query: z.string() }),
    execute: ({ query }) => {
      asked.push(query);
      return lookUp(query);
    },
  });
  const agent = new Agent({ name: 'a', model, modelSettings: { temperature: 0 }, tools: [search] });
  return { agent, asked };
}

describe('the Agents SDK', () => {
  it('takes the course of a plain client, each answer from the steps before it', async () => {
    const { agent, asked } = searcher();
    const { finalOutput } = await runner.run(agent, course.question, { maxTurns: STEPS_MAX });
    expect(finalOutput).toBe(course.answer);
    expect(asked).toEqual(course.lookups);
    await expectCourse(server, course, wire.trajectories);
  });

  it('takes it streamed, and goes on later by the response', async () => {
    const { agent, asked } = searcher();
    const stream = await runner.run(agent, course.question, {
      stream: true,
      maxTurns: STEPS_MAX,
    });
    let text = '';
    for await (const event of stream.toTextStream()) text += event;
    await stream.completed;
    expect(stream.finalOutput).toBe(course.answer);
    expect(text).toBe(course.answer);
    expect(asked).toEqual(course.lookups);
    await expectCourse(server, course, wire.trajectories);
    const previousResponseId = stream.lastResponseId ?? '';
    const before = await logged(server, wire.trajectories.at(-1) ?? '');
    await runner.run(agent, 'Sure?', { previousResponseId, maxTurns: STEPS_MAX });
    const after = await logged(server, wire.trajectories.at(-1) ?? '');
    const ids = (trajectory: { steps: { id: string }[] }) => trajectory.steps.map(({ id }) => id);
    expect(ids(after).slice(0, ids(before).length)).toEqual(ids(before));
  });

  it('leaves the tools of this server to it', async () => {
    const search = hostedMcpTool({ serverLabel: 'ramify', allowedTools: ['search'] });
    const modelSettings = { temperature: 0 };
    const agent = new Agent({ name: 'a', model, modelSettings, tools: [search] });
    const { newItems, finalOutput } = await runner.run(agent, course.question);
    expect(finalOutput).toBeTypeOf('string');
    const calls = newItems.flatMap(({ rawItem }) =>
      rawItem?.type === 'hosted_tool_call' ? rawItem.name : [],
    );
    expect(calls[0]).toBe('mcp_call');
    const { steps } = await logged(server, wire.trajectories[0] ?? '');
    const served = (steps as { tool_call?: { served: string } }[]).flatMap(
      ({ tool_call }) => tool_call?.served ?? [],
    );
    expect(served).toEqual(calls.map(() => 'live'));
  });
});
