/**
 * OpenAI's responses API. A failure before the first piece of output is an HTTP error; later ones
 * are events of the stream.
 */
import { AppError } from '../../core/errors.ts';
import type { AppDeps } from '../app.ts';
import { tenantSeen } from '../auth.ts';
import { logFailure } from '../failure-log.ts';
import { followResponse } from '../follow.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import type { Item } from '../responses/items.ts';
import { Responses } from '../responses/responses.ts';
import type { Asker } from '../responses/responses.ts';
import type { LiveResponse } from '../responses/work.ts';
import { responseView } from '../responses/view.ts';
import { sseResponse } from '../sse.ts';
import type { SseOptions } from '../sse.ts';

type ResponseOperation =
  'createResponse' | 'getResponse' | 'deleteResponse' | 'cancelResponse' | 'listResponseInputItems';

/** How long a stream waits for its first piece, so that an early failure still gets its status. */
const FIRST_PIECE_MS = 500;

export function responseRoutes(deps: AppDeps): Pick<Handlers, ResponseOperation> {
  const responses = new Responses(deps);
  const view = (body: Schemas['ResponseObject']): Response => json(body);
  return {
    createResponse: async (input) => {
      const asker = askerOf(input);
      const sessionId = input.header['x-session-id'] ?? null;
      const { signal } = input.activity;
      const live = await responses.create(input.body, asker, { sessionId, signal });
      return answer(deps, input, live);
    },
    getResponse: (input) => {
      const { path, query, requestId, activity } = input;
      const asker = askerOf(input);
      if (query.stream !== true) return view(responses.view(path.response_id, asker));
      const after = query.starting_after ?? null;
      const source = responses.follow(path.response_id, asker, after);
      return followResponse(deps, { requestId, activity }, source);
    },
    deleteResponse: async (input) => {
      const id = input.path.response_id;
      await responses.remove(id, askerOf(input));
      return json<Schemas['DeletedResponse']>({ id, object: 'response', deleted: true });
    },
    cancelResponse: async (input) =>
      view(await responses.cancel(input.path.response_id, askerOf(input))),
    listResponseInputItems: (input) => {
      const items = responses.inputItems(input.path.response_id, askerOf(input));
      return json<Schemas['ResponseItemList']>(pageOf(items, input.query));
    },
  };
}

/** The stream, what has begun in the background, or the end. */
async function answer(
  deps: AppDeps,
  { body, requestId, principal, activity }: Input<'createResponse'>,
  live: LiveResponse,
): Promise<Response> {
  const headers = {
    'x-ramify-policy': String(live.record.policyVersion),
    'x-ramify-trajectory': live.trajectoryId,
  };
  // Of one in the foreground the request itself is under way.
  if (live.background) void live.done.then(deps.usage.hold(principal.keyId));
  if (body.stream === true) {
    await Promise.race([live.begun, wait(FIRST_PIECE_MS)]);
    if (live.failure !== null && live.writer.output.length === 0) throw live.failure;
    return streamed(deps, { requestId, activity, headers }, live);
  }
  if (!live.background) {
    await live.done;
    if (live.failure !== null) throw live.failure;
  }
  const view = responseView(live.record, live.writer.output);
  return json<Schemas['ResponseObject']>(view, { headers });
}

/** A server that stops ends the work, and so the stream, with its last event. */
function streamed(
  deps: AppDeps,
  options: Pick<SseOptions, 'requestId' | 'activity' | 'headers'>,
  live: LiveResponse,
): Response {
  const { requestId } = options;
  return sseResponse(
    {
      ...options,
      errorEvent: 'error',
      onError: (error, thrown) => logFailure(deps.logger, requestId, error, thrown),
    },
    async (stream, signal) => {
      const left = new AbortController();
      const leave = (): void => {
        if (deps.lifecycle.aborted) return;
        left.abort();
        if (!live.background) live.abort();
      };
      signal.addEventListener('abort', leave, { once: true });
      if (signal.aborted) leave();
      for await (const { event } of live.writer.log.follow(0, left.signal)) {
        stream.send({ event: event.type, data: event });
        await stream.drained();
      }
    },
  );
}

function askerOf({ principal }: Pick<Input<'getResponse'>, 'principal'>): Asker {
  const { keyId, tenant } = principal;
  return { keyId, tenant, seen: tenantSeen(principal) };
}

/** @throws AppError invalid_request when `after` is no item of the list. */
function pageOf(
  items: readonly Item[],
  { limit = 20, order, after }: { limit?: number; order?: 'asc' | 'desc'; after?: string },
): Schemas['ResponseItemList'] {
  const sorted = order === 'asc' ? items : items.toReversed();
  const at = after === undefined ? -1 : sorted.findIndex(({ id }) => id === after);
  if (after !== undefined && at === -1) {
    throw new AppError('invalid_request', `after: '${after}' is no item of this response`, {
      param: 'after',
    });
  }
  const data = sorted.slice(at + 1, at + 1 + limit);
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: at + 1 + data.length < sorted.length,
  };
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
