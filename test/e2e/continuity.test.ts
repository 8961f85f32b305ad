/**
 * A tool conversation through the `openai` client is the same trajectory as an agent run: with
 * equal seeds both sample the same tokens, although the client sends back neither thoughts nor
 * tokens, and although each chat request prefills its path anew. The real server, engine, policy
 * and tools.
 */
import { join } from 'node:path';
import type OpenAI from 'openai';
import { afterAll, expect, it } from 'vitest';
import { systemClock } from '../../core/clock.ts';
import { LIMITS } from '../../core/limits.ts';
import { packageRoot } from '../../core/paths.ts';
import { javascriptTool } from '../../core/tools/javascript-tool.ts';
import { createToolRegistry } from '../../core/tools/registry.ts';
import { searchTool } from '../../core/tools/search-tool.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { openaiClient, testQuestions } from '../support/clients.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture } from './fixture.ts';

const { path, launch } = fixture();

const QUESTIONS = 12;
/** All, whatever the question needs: a call of a tool that is not offered ends a chat answer. */
const TOOLS = ['search', 'javascript'];

const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
const javascript = javascriptTool();
const tools = createToolRegistry([searchTool(index), javascript], { clock: systemClock });
afterAll(async () => {
  await javascript.stop();
  index.close();
});

type Question = (typeof testQuestions)[number];

/** The trajectory's id. */
async function asAgentRun(server: TestServer, question: Question, seed: number): Promise<string> {
  const { status, body } = await call(server, 'POST', '/v1/agent/runs', {
    model: 'ramify',
    input: question.question,
    tools: TOOLS,
    seed,
  });
  expect(status).toBe(200);
  return body.trajectory_id as string;
}

/** The id of the last request's trajectory. */
async function asChat(openai: OpenAI, question: Question, seed: number): Promise<string> {
  const offered = tools.specs(TOOLS).map(({ name, description, parameters }) => ({
    type: 'function' as const,
    function: { name, description, parameters },
  }));
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: 'user', content: question.question },
  ];
  // An agent run ends at the step that calls once too often; so does this one.
  for (let calls = 0; ;) {
    const { data, response } = await openai.chat.completions
      .create({ model: 'ramify', messages, tools: offered, seed })
      .withResponse();
    const wanted = (data.choices[0]?.message.tool_calls ??
      []) as OpenAI.ChatCompletionMessageFunctionToolCall[];
    calls += wanted.length;
    if (wanted.length === 0 || calls > LIMITS.toolCallsDefault) {
      return response.headers.get('x-ramify-trajectory') as string;
    }
    messages.push({ role: 'assistant', content: null, tool_calls: wanted });
    for (const { id, function: fn } of wanted) {
      const { result } = await tools.call(fn.name, fn.arguments);
      messages.push({ role: 'tool', tool_call_id: id, content: result });
    }
  }
}

it('chat with equal seeds samples the tokens of the agent run, step for step', async () => {
  const server = await launch({ dataFolder: path('data') }).ready();
  const openai = openaiClient(server.url);
  const every = Math.floor(testQuestions.length / QUESTIONS);
  let withTools = 0;
  for (let i = 0; i < QUESTIONS; i++) {
    const question = testQuestions[i * every] as Question;
    const ids = [await asAgentRun(server, question, i + 1), await asChat(openai, question, i + 1)];
    const [agent, chat] = await Promise.all(
      ids.map(async (id) => {
        const { body } = await call(server, 'GET', `/v1/trajectories/${id}?include=tokens`);
        return (body.steps as { kind: string; text: string; tokens: number[] }[]).map(
          ({ kind, text, tokens }) => ({ kind, text, tokens }),
        );
      }),
    );
    expect(chat, question.question).toEqual(agent);
    if (agent !== undefined && agent.length > 2) withTools++;
  }
  // Else this has shown nothing.
  expect(withTools).toBeGreaterThan(QUESTIONS / 3);
});
