/** Answers with the events of a run as a stream that can be resumed by Last-Event-ID. */
import { AppError } from '../core/errors.ts';
import { logFailure } from './failure-log.ts';
import type { AppDeps } from './app.ts';
import type { Activity } from './lifecycle.ts';
import { sseResponse } from './sse.ts';

export interface FollowOptions {
  requestId: string;
  activity: Activity;
  headers?: Record<string, string>;
  /** Called when the client leaves before the end. */
  onLeave?: (() => void) | undefined;
}

type FollowDeps = Pick<AppDeps, 'lifecycle' | 'logger'>;

/** What is sent, up to its end; it ends when the signal aborts. */
export type EventSource<T> = (
  signal: AbortSignal,
) => AsyncIterable<FollowedEvent<T>> | Iterable<FollowedEvent<T>>;

export interface FollowedEvent<T> {
  id: number | string;
  event: T;
}

export function followResponse<T extends { type: string }>(
  deps: FollowDeps,
  options: FollowOptions,
  source: EventSource<T>,
): Response {
  const { requestId, activity, headers } = options;
  return sseResponse(
    {
      requestId,
      activity,
      errorEvent: 'error',
      ...(headers !== undefined && { headers }),
      onError: (error, thrown) => logFailure(deps.logger, requestId, error, thrown),
    },
    async (stream, clientSignal) => {
      for await (const { id, event } of source(clientSignal)) {
        stream.send({ id, event: event.type, data: event });
        await stream.drained();
      }
      if (!clientSignal.aborted) return;
      options.onLeave?.();
      if (deps.lifecycle.aborted) {
        throw new AppError('not_ready', 'the server is stopping; the events can be resumed');
      }
    },
  );
}
