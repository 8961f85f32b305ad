/**
 * Streams of the server as async generators. A chat stream is one answer and cannot be resumed; the
 * events of a run can be, from the last one seen, so a broken connection is not seen by who reads
 * them.
 */
import type { RamifyClient, Schemas } from './client.ts';
import { problemOf, RamifyError, StreamBrokenError, unwrap } from './errors.ts';
import { readEvents } from './events.ts';

/** Errors inside a stream of events after which the server goes on with it for who comes back. */
const RESUMABLE = new Set<string>(['not_ready', 'request_timeout']);
/** Connections that fail in a row, with no new event between them. */
const RETRIES_MAX = 5;
const RETRY_FIRST_MS = 250;
const RETRY_LONGEST_MS = 8_000;

type ChatRequest = Omit<Schemas['ChatCompletionRequest'], 'stream'>;
type AgentRunRequest = Omit<Schemas['AgentRunRequest'], 'stream' | 'background'>;

/**
 * The chunks of a chat completion.
 * @throws RamifyError, also for an error inside the stream; StreamBrokenError.
 */
export async function* streamChat(
  client: RamifyClient,
  request: ChatRequest,
  options: { signal?: AbortSignal; sessionId?: string } = {},
): AsyncGenerator<Schemas['ChatCompletionChunk']> {
  const { signal, sessionId } = options;
  const body = await opened(
    client.POST('/v1/chat/completions', {
      // openapi-fetch's types leave out fields that can only be null.
      body: { ...request, stream: true } as never,
      params: { header: { ...(sessionId !== undefined && { 'x-session-id': sessionId }) } },
      parseAs: 'stream',
      ...(signal && { signal }),
    }),
  );
  for await (const { data } of readEvents(body)) {
    if (data === '[DONE]') return;
    yield parse<Schemas['ChatCompletionChunk']>(data);
  }
  throw new StreamBrokenError('the answer broke off before its end');
}

export interface FollowOptions {
  /** Id of the last event seen; only later ones come. */
  after?: string;
  /** Stops reading; the run goes on. */
  signal?: AbortSignal;
}

/** Starts an agent run in the background; `followAgentRun` reads its events. */
export async function startAgentRun(
  client: RamifyClient,
  request: AgentRunRequest,
  options: { sessionId?: string } = {},
): Promise<Schemas['AgentRun']> {
  const { sessionId } = options;
  return unwrap(
    client.POST('/v1/agent/runs', {
      body: { ...request, stream: false, background: true },
      params: { header: { ...(sessionId !== undefined && { 'x-session-id': sessionId }) } },
    }),
  );
}

/** The events of an agent run until it has ended; while it waits for its client, none comes. */
export function followAgentRun(
  client: RamifyClient,
  runId: string,
  options: FollowOptions = {},
): AsyncGenerator<Schemas['AgentRunEvent']> {
  const path = { run_id: runId };
  return follow(options, {
    open: (after, signal) =>
      opened(
        client.GET('/v1/agent/runs/{run_id}/events', {
          params: { path, header: { ...(after !== null && { 'Last-Event-ID': after }) } },
          parseAs: 'stream',
          ...(signal && { signal }),
        }),
      ),
    hasEnded: async () => {
      const run = await unwrap(client.GET('/v1/agent/runs/{run_id}', { params: { path } }));
      return run.ended_at !== null;
    },
  });
}

/** The events of a training run until it has ended. */
export function followTrainingRun(
  client: RamifyClient,
  runId: string,
  options: FollowOptions = {},
): AsyncGenerator<Schemas['TrainingRunEvent']> {
  const path = { run_id: runId };
  return follow(options, {
    open: (after, signal) =>
      opened(
        client.GET('/v1/admin/training-runs/{run_id}/events', {
          params: { path, header: { ...(after !== null && { 'Last-Event-ID': Number(after) }) } },
          parseAs: 'stream',
          ...(signal && { signal }),
        }),
      ),
    hasEnded: async () => {
      const run = await unwrap(
        client.GET('/v1/admin/training-runs/{run_id}', { params: { path } }),
      );
      return run.ended_at !== null && run.status !== 'interrupted';
    },
  });
}

interface Source {
  open: (after: string | null, signal?: AbortSignal) => Promise<ReadableStream<Uint8Array>>;
  /** Asked when a stream ends: a server that stops ends it too. */
  hasEnded: () => Promise<boolean>;
}

/** @throws RamifyError where a retry cannot help; StreamBrokenError after too many. */
async function* follow<E>({ after, signal }: FollowOptions, source: Source): AsyncGenerator<E> {
  let last = after ?? null;
  for (let failures = 0; failures <= RETRIES_MAX; failures++) {
    let waitMs = Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** failures);
    try {
      for await (const { id, data } of readEvents(await source.open(last, signal))) {
        const event = parse<E>(data);
        failures = 0;
        last = id ?? last;
        yield event;
      }
      if (await source.hasEnded()) return;
    } catch (error) {
      if (
        (error instanceof RamifyError && !canResume(error)) ||
        signal?.aborted === true ||
        failures === RETRIES_MAX
      )
        throw error;
      if (error instanceof RamifyError) waitMs = Math.max(waitMs, (error.retryAfterS ?? 0) * 1_000);
    }
    await sleep(waitMs, signal);
  }
  throw new StreamBrokenError(`${RETRIES_MAX + 1} connections in a row ended without an event`);
}

function canResume({ code, status, retryAfterS }: RamifyError): boolean {
  return retryAfterS !== null || (status === null && RESUMABLE.has(code));
}

/** With `parseAs: 'stream'` the data is the body, whatever the contract says of its content. */
function opened(
  call: Promise<{ data?: unknown; error?: unknown; response: Response }>,
): Promise<ReadableStream<Uint8Array>> {
  return unwrap(call) as Promise<ReadableStream<Uint8Array>>;
}

/** The data of an event. @throws RamifyError when it is an error. */
function parse<E>(data: string): E {
  const value: unknown = JSON.parse(data);
  const problem = problemOf(value);
  if (problem !== null) throw new RamifyError(problem);
  return value as E;
}

async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
  signal?.throwIfAborted();
}
