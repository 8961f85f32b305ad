/**
 * OpenAI-compatible serving. The order of a stream's chunks and the fields in them are what
 * OpenAI's own client and others rely on: role first, text or tool fragments, finish_reason in a
 * chunk of its own, usage with empty choices when asked for, then `[DONE]`. With several choices
 * their chunks come as they are sampled, told apart by their index. The version and the
 * trajectories are in the headers, so they are fixed before the first byte.
 */
import { anySignal } from '../../core/any-signal.ts';
import { AppError } from '../../core/errors.ts';
import type { PolicyRecord } from '../../core/records.ts';
import { logFailure } from '../failure-log.ts';
import { answerForm, chosenTools, requireOneCall, requireWritable } from '../answer-form.ts';
import type { AppDeps } from '../app.ts';
import { runCompletion } from '../chat-completion.ts';
import type {
  CompletedChoice,
  CompletionPiece,
  CompletionRequest,
  OnPiece,
} from '../chat-completion.ts';
import { chatMessages, clientTools, requestedTokens, stopTexts } from '../chat-request.ts';
import { openConversation } from '../continuation.ts';
import { conversationOf } from '../conversation.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { pinnedName } from '../policy-service.ts';
import type { OpenedPolicy } from '../policy-service.ts';
import { sseResponse } from '../sse.ts';
import type { SseStream } from '../sse.ts';

type Chunk = Schemas['ChatCompletionChunk'];
type Choice = Chunk['choices'][number];

/** How long a stream waits for its first token, so that an early failure still gets its status. */
const FIRST_TOKEN_MS = 500;

export function chatRoutes(
  deps: AppDeps,
): Pick<Handlers, 'createChatCompletion' | 'listModels' | 'getModel'> {
  return {
    createChatCompletion: (input) => createChatCompletion(deps, input),
    getModel: ({ path }) => {
      const found = models(deps).find(({ id }) => id === path.model);
      if (found !== undefined) return json<Schemas['Model']>(found);
      throw new AppError('model_not_found', `no model has the name ${path.model}`, {
        param: 'model',
      });
    },
    listModels: () => json<Schemas['ModelList']>({ object: 'list', data: models(deps) }),
  };
}

async function createChatCompletion(
  deps: AppDeps,
  input: Input<'createChatCompletion'>,
): Promise<Response> {
  const { body } = input;
  const request = completionRequest(deps, input);
  const [trajectoryId] = request.trajectoryIds;
  const history = { ...request, trajectoryId };
  const { opened, continuation } = await openConversation(deps, body.model, history);
  request.continuation = continuation;
  try {
    const { protocol } = opened.policy;
    if (request.form !== null) requireWritable(protocol, request.form);
    if (request.oneCall) requireOneCall(protocol);
    request.conversationId = await conversationOf(deps, request);
  } catch (error) {
    opened.sequence.close();
    throw error;
  }
  const answer = new ChatAnswer(deps, input, opened, request);
  return body.stream === true ? answer.streamed() : answer.plain();
}

function completionRequest(
  deps: AppDeps,
  { body, header, principal, activity }: Input<'createChatCompletion'>,
): CompletionRequest {
  const sent = body.tool_choice === 'none' ? [] : clientTools(body.tools ?? []);
  const { tools, choice } = chosenTools(body.tool_choice, sent);
  const form = answerForm({ ...body, tool_choice: choice }, tools);
  return {
    tenant: principal.tenant,
    keyId: principal.keyId,
    messages: chatMessages(body.messages),
    tools,
    form,
    sampling: body,
    maxTokens: requestedTokens(body),
    stops: stopTexts(body.stop),
    // A demanded form has one call at most.
    oneCall: body.parallel_tool_calls === false && tools.length > 0 && form === null,
    logprobs: body.logprobs === true,
    topLogprobs: topLogprobs(body),
    sessionId: header['x-session-id'] ?? null,
    metadata: body.metadata ?? null,
    continuation: null,
    conversationId: null,
    trajectoryIds: trajectoryIds(deps, body.n ?? 1),
    signal: activity.signal,
  };
}

function topLogprobs({ logprobs, top_logprobs: count }: Schemas['ChatCompletionRequest']): number {
  if ((count ?? 0) > 0 && logprobs !== true) {
    throw new AppError('invalid_request', 'top_logprobs: logprobs must be true to go with it', {
      param: 'top_logprobs',
    });
  }
  return count ?? 0;
}

function trajectoryIds({ newId }: AppDeps, count: number): [string, ...string[]] {
  const first = newId('trajectory');
  return [first, ...Array.from({ length: count - 1 }, () => newId('trajectory'))];
}

/** One answer in one of its two forms. */
class ChatAnswer {
  private readonly deps: AppDeps;
  private readonly input: Input<'createChatCompletion'>;
  private readonly opened: OpenedPolicy;
  private readonly request: CompletionRequest;
  private readonly id: string;
  private readonly created: number;
  private readonly model: string;

  constructor(
    deps: AppDeps,
    input: Input<'createChatCompletion'>,
    opened: OpenedPolicy,
    request: CompletionRequest,
  ) {
    this.deps = deps;
    this.input = input;
    this.opened = opened;
    this.request = request;
    this.id = deps.newId('completion');
    this.created = Math.floor(deps.clock.now() / 1000);
    this.model = pinnedName(opened.policy.version);
  }

  async plain(): Promise<Response> {
    const pieces = this.request.trajectoryIds.map((): CompletionPiece[] => []);
    const completion = await runCompletion(this.deps, this.opened, this.request, (piece, i) =>
      pieces[i]?.push(piece),
    );
    const { choices, usage } = completion;
    const body: Schemas['ChatCompletion'] = {
      id: this.id,
      object: 'chat.completion',
      created: this.created,
      model: this.model,
      choices: choices.map((choice, i) => this.choice(i, choice, pieces[i] ?? [])),
      usage,
    };
    return json(body, { headers: this.headers() });
  }

  private choice(
    index: number,
    { finishReason, toolCalls }: CompletedChoice,
    pieces: readonly CompletionPiece[],
  ): Schemas['ChatCompletion']['choices'][number] {
    const reasoning = pieces.map((piece) => piece.reasoning).join('');
    const content = pieces.map((piece) => piece.content).join('');
    const message = {
      role: 'assistant' as const,
      content: content === '' && toolCalls.length > 0 ? null : content,
      refusal: null,
      ...(reasoning !== '' && { reasoning_content: reasoning }),
      ...(toolCalls.length > 0 && { tool_calls: toolCalls }),
    };
    const logprobs = this.request.logprobs
      ? { content: pieces.flatMap((piece) => piece.logprobs), refusal: null }
      : null;
    return { index, message, logprobs, finish_reason: finishReason };
  }

  async streamed(): Promise<Response> {
    // What comes before the stream is open waits here; from then on pieces go straight out.
    const waiting: [CompletionPiece, number][] = [];
    let deliver: OnPiece = (piece, choice) => void waiting.push([piece, choice]);
    let begun = (): void => undefined;
    const first = new Promise<void>((resolve) => (begun = resolve));
    const gone = new AbortController();
    const signal = anySignal([this.request.signal, gone.signal]);
    const request = { ...this.request, signal };
    const done = runCompletion(this.deps, this.opened, request, (piece, choice) => {
      deliver(piece, choice);
      begun();
    });
    // A failure before the first token is an HTTP error: it rejects the race.
    await Promise.race([done, first, wait(FIRST_TOKEN_MS)]);
    const { deps, input } = this;
    return sseResponse(
      {
        requestId: input.requestId,
        activity: input.activity,
        headers: this.headers(),
        onError: (error, thrown) => logFailure(deps.logger, input.requestId, error, thrown),
      },
      async (stream, clientSignal) => {
        clientSignal.addEventListener('abort', () => gone.abort(), { once: true });
        for (const index of this.request.trajectoryIds.keys()) {
          this.chunk(stream, index, { role: 'assistant', content: '' });
        }
        deliver = (piece, index) => this.textChunks(stream, index, piece);
        for (const [piece, index] of waiting.splice(0)) deliver(piece, index);
        const { choices, usage } = await done;
        for (const [index, choice] of choices.entries()) this.lastChunks(stream, index, choice);
        if (this.includeUsage) this.send(stream, { ...this.base(), choices: [], usage });
        stream.send({ data: '[DONE]' });
      },
    );
  }

  private textChunks(stream: SseStream, index: number, piece: CompletionPiece): void {
    // The tokens' figures go with the first chunk of their text, or alone where no text came of
    // them.
    let { logprobs } = piece;
    if (piece.reasoning !== '') {
      this.chunk(stream, index, { reasoning_content: piece.reasoning }, null, logprobs);
      logprobs = [];
    }
    if (piece.content !== '' || logprobs.length > 0) {
      this.chunk(stream, index, { content: piece.content }, null, logprobs);
    }
  }

  private lastChunks(
    stream: SseStream,
    choice: number,
    { finishReason, toolCalls }: CompletedChoice,
  ): void {
    toolCalls.forEach(({ id, type, function: { name, arguments: text } }, index) => {
      const call = { index, id, type, function: { name, arguments: '' } };
      this.chunk(stream, choice, { tool_calls: [call] });
      this.chunk(stream, choice, { tool_calls: [{ index, function: { arguments: text } }] });
    });
    this.chunk(stream, choice, {}, finishReason);
  }

  private chunk(
    stream: SseStream,
    index: number,
    delta: Choice['delta'],
    finishReason: Choice['finish_reason'] = null,
    logprobs: CompletionPiece['logprobs'] = [],
  ): void {
    const figures = logprobs.length > 0 ? { content: logprobs, refusal: null } : null;
    this.send(stream, {
      ...this.base(),
      choices: [{ index, delta, logprobs: figures, finish_reason: finishReason }],
      ...(this.includeUsage && { usage: null }),
    });
  }

  private send(stream: SseStream, chunk: Chunk): void {
    stream.send({ data: chunk });
  }

  private base(): Pick<Chunk, 'id' | 'object' | 'created' | 'model'> {
    const { id, created, model } = this;
    return { id, object: 'chat.completion.chunk', created, model };
  }

  private get includeUsage(): boolean {
    return this.input.body.stream_options?.include_usage === true;
  }

  private headers(): Record<string, string> {
    return {
      'x-ramify-policy': String(this.opened.policy.version),
      'x-ramify-trajectory': this.request.trajectoryIds.join(', '),
    };
  }
}

/** The live name first, then every version that can be pinned, newest first. */
function models(deps: AppDeps): Schemas['Model'][] {
  const policies: PolicyRecord[] = [];
  let cursor: string | null = null;
  do {
    const page = deps.stores.policies.list(cursor === null ? {} : { cursor });
    policies.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== null);
  const model = (id: string, policy: PolicyRecord): Schemas['Model'] => ({
    id,
    object: 'model',
    created: Math.floor(policy.createdAt / 1000),
    owned_by: 'ramify',
    root: pinnedName(policy.version),
    parent: policy.parentVersion === null ? null : pinnedName(policy.parentVersion),
  });
  const live = policies.find(({ version }) => version === deps.policies.liveVersion);
  return [
    ...(live === undefined ? [] : [model('ramify', live)]),
    ...policies.map((policy) => model(pinnedName(policy.version), policy)),
  ];
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
