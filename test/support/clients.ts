/**
 * Clients that ask a running server the shipped test questions, one after another: chat streams
 * through the official `openai` client, agent runs as one answer and as an event stream. Each notes
 * what it was told, so that a test can hold it against the log. Nothing is retried: a failure is to
 * be seen.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';
import type { components } from '../../api/contract/openapi.gen.ts';
import { AppError, toAppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';
import { mix, Prng } from '../../core/prng.ts';
import { serverSentEvents } from '../../scripts/demo/event-stream.ts';

type Schemas = components['schemas'];
type Run = Schemas['AgentRun'];

export const WAYS = ['chat stream', 'run', 'run stream'] as const;
export type Way = (typeof WAYS)[number];

/** What a client was told in one answer that it got whole. */
export interface Answer {
  way: Way;
  /** performance.now() of the request, of each piece of the answer, and of its end. */
  startedAt: number;
  pieces: number[];
  endedAt: number;
  /** The header x-ramify-policy. */
  version: number;
  /** Every version that the body names: `model` fields, and those of steps. */
  versionsInBody: Set<number>;
  trajectoryId: string;
  runId: string | null;
  /** Chat: the visible text. Runs: the text of each step. */
  texts: string[];
  /** Sampled tokens, as `usage` says. */
  tokens: number;
}

export interface AskOptions {
  /** Sampled tokens of an answer. */
  maxTokens: number;
  temperature: number;
}

interface Question {
  question: string;
  tools: string[];
}

/** Far above any answer under load; a hang must fail and not wait for vitest's own limit. */
const ANSWER_MS = 30_000;

export const testQuestions: readonly Question[] = readFileSync(
  join(packageRoot, 'corpus', 'tasks', 'test.jsonl'),
  'utf8',
)
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Question);

/**
 * One client. `ask` rejects when the answer did not come whole or named two versions in one place.
 */
export class Client {
  private readonly way: Way;
  private readonly url: string;
  private readonly openai: OpenAI;
  private readonly options: AskOptions;
  private readonly prng: Prng;

  constructor(url: string, way: Way, seed: number, options: AskOptions) {
    this.url = url;
    this.way = way;
    this.options = options;
    this.prng = new Prng(seed);
    this.openai = openaiClient(url);
  }

  ask(): Promise<Answer> {
    const question = this.prng.pick(testQuestions);
    const seed = this.prng.below(2 ** 31);
    if (this.way === 'chat stream') return this.chat(question, seed);
    return this.agentRun(question, seed, this.way === 'run stream');
  }

  private async chat({ question }: Question, seed: number): Promise<Answer> {
    const startedAt = performance.now();
    const { data: stream, response } = await this.openai.chat.completions
      .create({
        model: 'ramify',
        messages: [{ role: 'user', content: question }],
        max_completion_tokens: this.options.maxTokens,
        temperature: this.options.temperature,
        seed,
        stream: true,
        stream_options: { include_usage: true },
      })
      .withResponse();
    const answer = begin('chat stream', startedAt, response.headers);
    let finish: string | null = null;
    let text = '';
    for await (const chunk of stream) {
      answer.pieces.push(performance.now());
      answer.versionsInBody.add(versionOf(chunk.model));
      text += chunk.choices[0]?.delta.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      answer.tokens = chunk.usage?.completion_tokens ?? answer.tokens;
    }
    if (finish === null) throw new AppError('internal', 'the stream ended without its last chunk');
    answer.texts.push(text);
    answer.endedAt = performance.now();
    return answer;
  }

  private async agentRun(question: Question, seed: number, streamed: boolean): Promise<Answer> {
    const startedAt = performance.now();
    const response = await fetch(`${this.url}/v1/agent/runs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        input: question.question,
        tools: question.tools,
        max_tokens: this.options.maxTokens,
        temperature: this.options.temperature,
        seed,
        stream: streamed,
      }),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (!response.ok) throw new AppError('internal', `${response.status} ${await response.text()}`);
    const answer = begin(streamed ? 'run stream' : 'run', startedAt, response.headers);
    const run = streamed
      ? await lastRun(response, answer.pieces)
      : ((await response.json()) as Run);
    if (run.status !== 'completed') {
      throw new AppError('internal', `run ${run.id} is ${run.status}: ${run.error?.message}`);
    }
    answer.runId = run.id;
    answer.texts = run.steps.map((step) => step.text);
    answer.tokens = run.usage?.completion_tokens ?? 0;
    for (const version of [
      versionOf(run.model),
      run.policy_version,
      ...run.steps.map((step) => step.policy_version),
    ]) {
      answer.versionsInBody.add(version);
    }
    answer.endedAt = performance.now();
    return answer;
  }
}

export function openaiClient(url: string): OpenAI {
  return new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: 'none',
    maxRetries: 0,
    timeout: ANSWER_MS,
  });
}

/** `count` clients, the ways in turn. */
export function clients(url: string, count: number, seed: number, options: AskOptions): Client[] {
  return Array.from({ length: count }, (_, i) => {
    const way = WAYS[i % WAYS.length] as Way;
    return new Client(url, way, mix(seed, i), options);
  });
}

export interface Asked {
  answers: Answer[];
  failures: AppError[];
}

/**
 * Lets every client ask without a pause until `signal` aborts; the answers under way are waited
 * for. A client ends at its first failure. `onAnswer` is awaited before the client asks again.
 */
export async function keepAsking(
  asking: readonly Client[],
  signal: AbortSignal,
  onAnswer: (answer: Answer) => Promise<void> | void = () => undefined,
): Promise<Asked> {
  const asked: Asked = { answers: [], failures: [] };
  const run = async (client: Client): Promise<void> => {
    try {
      while (!signal.aborted) {
        const answer = await client.ask();
        asked.answers.push(answer);
        await onAnswer(answer);
      }
    } catch (thrown) {
      asked.failures.push(toAppError(thrown));
    }
  };
  await Promise.all(asking.map(run));
  return asked;
}

function begin(way: Way, startedAt: number, headers: Headers): Answer {
  return {
    way,
    startedAt,
    pieces: [],
    endedAt: NaN,
    version: Number(headers.get('x-ramify-policy')),
    versionsInBody: new Set(),
    trajectoryId: headers.get('x-ramify-trajectory') ?? '',
    runId: null,
    texts: [],
    tokens: 0,
  };
}

/** `ramify@3` -> 3. */
function versionOf(model: string): number {
  return Number(/^ramify@(\d+)$/.exec(model)?.[1]);
}

async function lastRun(response: Response, pieces: number[]): Promise<Run> {
  let last: Run | null = null;
  for await (const { event, data } of serverSentEvents(
    response.body as ReadableStream<Uint8Array>,
  )) {
    pieces.push(performance.now());
    if (event === 'error') throw new AppError('internal', `error frame: ${data}`);
    if (/^run\.(completed|failed|cancelled)$/.test(event)) {
      last = (JSON.parse(data) as { run: Run }).run;
    }
  }
  if (last === null) throw new AppError('internal', 'the stream ended without its last event');
  return last;
}
