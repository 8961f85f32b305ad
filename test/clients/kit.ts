/**
 * What the tests of client libraries share: a server, a question that takes the shipped policy
 * several look-ups, the function that looks up, and what went over the wire. The function runs in
 * the test, as a client's does, and reads the shipped documents; the server's tools are not asked.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { AppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';
import { call, dataFolderWithPolicies } from '../e2e/fixture.ts';
import type { Fixture } from '../e2e/fixture.ts';
import { testQuestions } from '../support/clients.ts';
import { writeHermesPolicy } from '../support/hermes-policy.ts';
import { writeScriptedPolicy } from '../support/policy-copies.ts';
import type { TestServer } from '../support/server-process.ts';

type Json = ReturnType<typeof JSON.parse>;

/** Random weights that can be made to call any function. */
export const HERMES = 'ramify@2';
/** Some seconds of text, so that who stops the answer comes before its end. */
const ENDLESS_TOKENS = 32_768;

const DOCUMENTS = new Map(
  readFileSync(join(packageRoot, 'corpus', 'documents.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { title: string; text: string })
    .map(({ title, text }) => [title, text]),
);

export const lookUp = (title: string): string => DOCUMENTS.get(title) ?? 'no results';

/** Version 1 is the shipped policy. */
export async function serverForClients({ path, launch }: Fixture): Promise<TestServer> {
  const dataFolder = path('data');
  await dataFolderWithPolicies(dataFolder, [writeHermesPolicy]);
  return launch({ dataFolder }).ready();
}

/** A server whose policy writes thoughts on and on, for tests that stop it. */
export async function endlessServer({ path, launch }: Fixture): Promise<TestServer> {
  const policy = path('endless');
  const contextTokens = ENDLESS_TOKENS;
  writeScriptedPolicy(policy, '<think>y', { after: { y: 'y' }, contextTokens });
  const environment = { RAMIFY_POLICY: policy };
  return launch({ dataFolder: path('endless-data'), environment }).ready();
}

/** One greedy conversation with the shipped policy, as every client should have it. */
export interface Course {
  question: string;
  /** The queries of its calls, at least two. */
  lookups: string[];
  /** By the choice of each answer. */
  finishReasons: string[];
  reasoning: (string | undefined)[];
  answer: string;
  /** Sampled in all answers together. */
  completionTokens: number;
}

/** The first test question that takes several look-ups, asked with nothing but HTTP. */
export async function someCourse(server: TestServer): Promise<Course> {
  for (const { question, tools } of testQuestions) {
    if (!tools.includes('search')) continue;
    const course = await courseOf(server, question);
    if (course !== null && course.lookups.length >= 2) return course;
  }
  throw new AppError('internal', 'no test question takes the policy several look-ups');
}

async function courseOf(server: TestServer, question: string): Promise<Course | null> {
  const messages: object[] = [{ role: 'user', content: question }];
  const tools = [{ type: 'function', function: { name: 'search' } }];
  const choices: Json[] = [];
  const lookups: string[] = [];
  let completionTokens = 0;
  for (let answers = 0; answers < STEPS_MAX; answers++) {
    const ask = { model: 'ramify', temperature: 0, messages, tools };
    const { body } = await call(server, 'POST', '/v1/chat/completions', ask);
    const [choice] = body.choices;
    const { message, finish_reason } = choice;
    choices.push(choice);
    completionTokens += body.usage.completion_tokens;
    if (finish_reason === 'stop') {
      const reasoning = choices.map((one) => one.message.reasoning_content);
      const finishReasons = choices.map((one) => one.finish_reason);
      const answer = message.content;
      return { question, lookups, finishReasons, reasoning, answer, completionTokens };
    }
    messages.push(message);
    for (const { id, function: made } of message.tool_calls ?? []) {
      const { query } = JSON.parse(made.arguments) as { query: string };
      lookups.push(query);
      messages.push({ role: 'tool', tool_call_id: id, content: lookUp(query) });
    }
  }
  return null;
}

/** Answers of a conversation; whoever asks longer goes round in circles. */
export const STEPS_MAX = 6;

/** Hand its `fetch` to a client: it notes what the client sent and the headers that came back. */
export class Wire {
  sent: Json[] = [];
  private received: Headers[] = [];

  readonly fetch: typeof fetch = async (input, init) => {
    if (typeof init?.body === 'string') this.sent.push(JSON.parse(init.body));
    const response = await fetch(input, init);
    this.received.push(response.headers);
    return response;
  };

  /** Of the answers so far, oldest first. */
  get trajectories(): string[] {
    return this.received.flatMap((headers) => headers.get('x-ramify-trajectory') ?? []);
  }

  clear(): void {
    this.sent = [];
    this.received = [];
  }
}

/** @returns the trajectory, as GET /v1/trajectories/ID has it. */
export async function logged(server: TestServer, id: string): Promise<Json> {
  const { status, body } = await call(server, 'GET', `/v1/trajectories/${id}`);
  expect({ id, status }).toEqual({ id, status: 200 });
  return body;
}

/** The log of a course: each answer went on from the very steps of those before it. */
export async function expectCourse(
  server: TestServer,
  course: Course,
  ids: readonly string[],
): Promise<Json[]> {
  const rows = await Promise.all(ids.map((id) => logged(server, id)));
  expect(rows.map((row) => row.end_reason)).toEqual([
    ...course.lookups.map(() => 'tool_calls'),
    'answer',
  ]);
  const last = rows.at(-1);
  expect(last).toMatchObject({ status: 'completed', answer: course.answer, format_ok: true });
  const steps = (row: { steps: { id: string }[] }): string[] => row.steps.map(({ id }) => id);
  for (const row of rows) expect(steps(last).slice(0, row.steps.length)).toEqual(steps(row));
  return rows;
}

/** A client went away: the row comes when the server has noticed. */
export async function expectCancelled(server: TestServer, id: string): Promise<void> {
  const row = await vi.waitFor(() => logged(server, id), { timeout: 20_000, interval: 50 });
  expect(row).toMatchObject({ status: 'cancelled', end_reason: 'cancelled' });
  expect(row.sampled_tokens).toBeLessThan(ENDLESS_TOKENS / 2);
}

/** The process that computes dies, as in a lack of memory; answers under way fail. */
export function killPolicyWorker({ child: { pid } }: TestServer): void {
  const list = `/proc/${pid}/task/${pid}/children`;
  const children = existsSync(list)
    ? readFileSync(list, 'utf8')
    : execFileSync('pgrep', ['-P', String(pid)], { encoding: 'utf8' });
  const [worker, ...others] = children.trim().split(/\s+/);
  expect(others).toEqual([]);
  process.kill(Number(worker), 'SIGKILL');
}
