/**
 * The streams of bench/load.ts, each from its request to its closing event. Chats, responses and
 * agent runs with the server's tools are answered at once. The others are the long ones: their
 * client follows the events of a background run that calls a function of its own, thinks for a
 * while (a person, a slow system), sends the result and follows on to the end; some leave meanwhile
 * and come back by Last-Event-ID. A stream that ends without its closing event is a fault.
 */
import type { IncomingMessage } from 'node:http';
import type { components } from '../api/contract/openapi.gen.ts';
import { STATUS } from '../api/problem.ts';
import { AppError, type ErrorCode } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Prng } from '../core/prng.ts';
import { serverSentEvents, type ServerSentEvent } from '../scripts/demo/event-stream.ts';
import { testQuestions } from '../test/support/clients.ts';
import type { Asking, LoadClient } from './load-client.ts';

type Schemas = components['schemas'];
type Run = Schemas['AgentRun'];

export const KINDS = ['chat', 'response', 'agent run', 'waiting run'] as const;
export type Kind = (typeof KINDS)[number];

/** The closing event of a stream, and what was sampled for it. */
interface Ending {
  tokens: number;
}

export interface ChatRequest {
  question: string;
  seed: number;
}

export interface ChatOptions {
  maxTokens: number;
  temperature: number;
}

const MAX_TOKENS = 100;
/** How long a run waits for its client. */
const THINK_MS = { min: 10_000, max: 50_000 };
/** One in so many of those clients leaves while it thinks. */
const LEAVERS = 4;
const SEARCH_RESULT = 'Finland is a country in Europe with 338424 square km.';
const SEARCH = {
  type: 'function',
  function: {
    name: 'search',
    description: 'Finds documents.',
    parameters: {
      type: 'object',
      properties: { query: { type: 'string' } },
      required: ['query'],
    },
  },
};
const SEARCHES = testQuestions.filter(({ tools }) => tools.includes('search'));

/** One stream of a kind, to its end. */
export async function oneStream(client: LoadClient, kind: Kind, prng: Prng): Promise<void> {
  const seed = prng.below(2 ** 31);
  const { question, tools } = prng.pick(testQuestions);
  if (kind === 'chat') {
    await chatStream(client, { question, seed }, { maxTokens: MAX_TOKENS, temperature: 1 });
  } else if (kind === 'response') {
    const body = { model: 'ramify', input: question, max_output_tokens: MAX_TOKENS, stream: true };
    await stream(client, '/v1/responses', { body }, responseEnd);
  } else if (kind === 'agent run') {
    const body = { input: question, tools, max_tokens: MAX_TOKENS, seed, stream: true };
    await stream(client, '/v1/agent/runs', { body }, runEnd);
  } else {
    await waitingRun(client, prng.pick(SEARCHES).question, prng);
  }
}

export function chatStream(
  client: LoadClient,
  { question, seed }: ChatRequest,
  { maxTokens, temperature }: ChatOptions,
): Promise<void> {
  const body = {
    model: 'ramify',
    messages: [{ role: 'user', content: question }],
    ...{ max_completion_tokens: maxTokens, temperature, seed, stream: true },
    stream_options: { include_usage: true },
  };
  let tokens = 0;
  return stream(client, '/v1/chat/completions', { body }, ({ data }) => {
    if (data === '[DONE]') return { tokens };
    // The clients share two cores with the server: what they need not read they leave.
    if (!data.includes('"completion_tokens"')) return null;
    const chunk = JSON.parse(data) as Schemas['ChatCompletionChunk'];
    tokens = chunk.usage?.completion_tokens ?? tokens;
    return null;
  });
}

async function stream(
  client: LoadClient,
  path: string,
  asking: Asking,
  endOf: (event: ServerSentEvent) => Ending | null,
): Promise<void> {
  const response = await client.ask('POST', path, asking);
  const ending = await read(client, response, endOf);
  if (ending === null) throw new AppError('internal', `${path}: no closing event`);
}

/** Reads a stream to its end; null when that came without a closing event. */
async function read(
  client: LoadClient,
  response: IncomingMessage,
  endOf: (event: ServerSentEvent) => Ending | null,
): Promise<Ending | null> {
  const { tally } = client;
  let ending: Ending | null = null;
  tally.openStreams++;
  try {
    for await (const event of serverSentEvents(response as AsyncIterable<Uint8Array>)) {
      tally.pieces++;
      const refusal = refusalOf(event);
      if (refusal !== null) {
        tally.answer(`${STATUS[refusal]} in a stream`);
        await client.pause(LIMITS.retryAfterS * 1000);
        return { tokens: 0 };
      }
      ending = endOf(event) ?? ending;
    }
  } finally {
    tally.openStreams--;
  }
  if (ending !== null) {
    tally.endedStreams++;
    tally.tokens += ending.tokens;
  }
  return ending;
}

/** The code of an error frame that says "later". @throws AppError internal on any other one */
function refusalOf({ event, data }: ServerSentEvent): ErrorCode | null {
  if (event !== 'error' && !data.startsWith('{"error":')) return null;
  const code = /"code": ?"(\w+)"/.exec(data)?.[1] as ErrorCode;
  if (STATUS[code] === 503 || STATUS[code] === 429) return code;
  throw new AppError('internal', `error frame: ${data}`);
}

function responseEnd({ event, data }: ServerSentEvent): Ending | null {
  if (event === 'response.failed') throw new AppError('internal', data);
  if (event !== 'response.completed' && event !== 'response.incomplete') return null;
  const { response } = JSON.parse(data) as { response: Schemas['ResponseObject'] };
  return { tokens: response.usage?.output_tokens ?? 0 };
}

function runEnd({ event, data }: ServerSentEvent): Ending | null {
  if (event === 'run.failed' || event === 'run.cancelled') throw new AppError('internal', data);
  if (event !== 'run.completed') return null;
  const { run } = JSON.parse(data) as { run: Run };
  return { tokens: run.usage?.completion_tokens ?? 0 };
}

async function waitingRun(client: LoadClient, input: string, prng: Prng): Promise<void> {
  const asked = { input, tools: [SEARCH], tool_choice: 'required', background: true };
  const body = { ...asked, max_tokens: MAX_TOKENS, seed: prng.below(2 ** 31) };
  const { id } = await client.json<Run>('POST', '/v1/agent/runs', { body });
  const follower = new Follower(client, id, prng);
  while (!(await follower.visit()));
}

/** Who follows one run, in one visit or more. */
class Follower {
  private readonly client: LoadClient;
  private readonly id: string;
  private readonly prng: Prng;
  private lastEvent: string | null = null;

  constructor(client: LoadClient, id: string, prng: Prng) {
    this.client = client;
    this.id = id;
    this.prng = prng;
  }

  /** Whether the run is over. */
  async visit(): Promise<boolean> {
    const path = `/v1/agent/runs/${this.id}`;
    const response = await this.client.ask('GET', `${path}/events`, {
      headers: { ...(this.lastEvent !== null && { 'last-event-id': this.lastEvent }) },
    });
    let left = false;
    const leave = (): void => {
      left = true;
      response.destroy();
    };
    try {
      const ending = await read(this.client, response, (event) => {
        if (event.id === this.lastEvent) {
          throw new AppError('internal', `${path}: the event ${event.id} came again`);
        }
        this.lastEvent = event.id;
        if (event.event === 'run.requires_action') {
          this.think((JSON.parse(event.data) as { run: Run }).run, leave);
        }
        return runEnd(event);
      });
      if (ending !== null) return true;
    } catch (thrown) {
      if (!left) throw thrown;
    }
    if (!left) throw new AppError('internal', `${path}/events: no closing event`);
    return false;
  }

  private think(run: Run, leave: () => void): void {
    const ms = THINK_MS.min + this.prng.below(THINK_MS.max - THINK_MS.min);
    if (this.prng.below(LEAVERS) === 0) void this.client.pause(ms / 2).then(leave);
    const calls = run.required_action?.tool_calls ?? [];
    const outputs = calls.map((call) => ({ tool_call_id: call.id, output: SEARCH_RESULT }));
    const path = `/v1/agent/runs/${this.id}/submit_tool_outputs`;
    void this.client.once(async () => {
      await this.client.pause(ms);
      await this.client.json('POST', path, { body: { tool_outputs: outputs } });
    });
  }
}
