/**
 * Responses: made, read, followed, cancelled, deleted. One that is at work is in memory, with its
 * events, and for a while after its end; stored ones are in the database. A response in the
 * background goes on without its client, but not without this process.
 */
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { ResponseRecord } from '../../core/records.ts';
import type { AppDeps } from '../app.ts';
import { requireOneCall, requireWritable } from '../answer-form.ts';
import { samplingParams } from '../chat-request.ts';
import { openConversation } from '../continuation.ts';
import { conversationOf } from '../conversation.ts';
import type { FollowedEvent } from '../follow.ts';
import type { OpenedPolicy } from '../policy-service.ts';
import { givenItems, messagesOf } from './items.ts';
import type { Item, OutputItem } from './items.ts';
import {
  checkTogether,
  demandedForms,
  hasLogprobs,
  maxToolCalls,
  offeredTools,
  settingsOf,
} from './request.ts';
import type { Body } from './request.ts';
import { responseView } from './view.ts';
import { cutBatch, saveResponse, workOn } from './work.ts';
import type { Asked, LiveResponse, WorkDeps } from './work.ts';
import { ResponseWriter } from './writer.ts';
import type { ResponseEvent, ResponseView } from './writer.ts';

export type ResponsesDeps = WorkDeps & Pick<AppDeps, 'policies'>;

/** Who asks, and whose rows that shows; undefined: those of all. */
export interface Asker {
  keyId: string | null;
  tenant: string;
  seen: string | undefined;
}

/** What a response goes on from. */
interface Past {
  previousId: string | null;
  items: Item[];
  /** Of the response before it. */
  sessionId: string | null;
  conversationId: string | null;
}

export class Responses {
  private readonly deps: ResponsesDeps;
  /** At work, or ended lately; oldest first. */
  private readonly live = new Map<string, LiveResponse>();

  /** Ends what an earlier process left at work. */
  constructor(deps: ResponsesDeps) {
    this.deps = deps;
    const message = 'the server stopped before the response was whole';
    const { stores, clock, logger } = deps;
    const left = stores.responses.failUnfinished({ code: 'not_ready', message }, clock.now());
    if (left > 0) logger.warn({ responses: left }, 'responses of an earlier process have failed');
    this.logCut().catch((error: unknown) => {
      logger.error(
        { error },
        'steps of cut responses have no trajectory yet; the next start tries',
      );
    });
  }

  /** Durable steps of what an earlier process left get their trajectory. */
  private async logCut(): Promise<void> {
    const { stores, clock } = this.deps;
    const { stepLog, responses } = stores;
    for (const { record, hidden } of responses.cut()) {
      await Promise.all([
        stepLog.append(cutBatch(stores, record)),
        hidden ? responses.remove(record.id, clock.now()) : responses.settle(record.id),
      ]);
    }
  }

  /**
   * Begins a response. `signal`: of its request; one in the background goes on when that aborts.
   * @throws AppError invalid_request, previous_response_not_found, unknown_tool, model_not_found,
   *   queue_full, engine_unavailable: then nothing was recorded.
   */
  async create(
    body: Body,
    asker: Asker,
    { sessionId, signal }: { sessionId: string | null; signal: AbortSignal },
  ): Promise<LiveResponse> {
    checkTogether(body);
    const past = this.pastOf(body, asker);
    const { newId, stores } = this.deps;
    const findItem = (id: string) => stores.responses.findItem(id, asker.seen);
    const input = givenItems(body.input, { newId, findItem });
    const session = sessionId ?? past.sessionId;
    const asked = this.askedOf(body, [...past.items, ...input]);
    const { tenant } = asker;
    const history = { ...asked, tenant, tools: asked.tools.specs, sessionId: session };
    const { opened, continuation } = await openConversation(
      this.deps,
      body.model ?? 'ramify',
      history,
    );
    try {
      const { protocol } = opened.policy;
      for (const form of [asked.forms.first, asked.forms.later]) {
        if (form !== null) requireWritable(protocol, form, 'text.format');
      }
      if (asked.oneCall) requireOneCall(protocol);
      const named = await conversationOf(this.deps, { tenant, sessionId: session });
      const { policy } = opened;
      const sampling = samplingParams(body, policy.generation);
      const record = this.recordOf(body, asker, {
        previousId: past.previousId,
        conversationId: past.conversationId ?? named,
        sessionId: session,
        policyVersion: policy.version,
        settings: { ...settingsOf(body, sampling) },
      });
      return await this.begin(
        record,
        input,
        opened,
        { ...asked, keyId: asker.keyId, continuation, sampling },
        signal,
      );
    } catch (error) {
      opened.sequence.close();
      throw error;
    }
  }

  /** @throws AppError response_not_found */
  view(id: string, asker: Asker): ResponseView {
    const live = this.liveOf(id, asker);
    if (live !== null) return responseView(live.record, live.writer.output);
    const record = this.record(id, asker);
    const { output } = this.deps.stores.responses.items(id);
    return responseView(record, output as unknown as OutputItem[]);
  }

  /**
   * Events behind a sequence number (null: all), then new ones as they come.
   * @throws AppError response_not_found, invalid_request when they are not kept any more
   */
  follow(
    id: string,
    asker: Asker,
    after: number | null,
  ): (signal: AbortSignal) => AsyncIterable<FollowedEvent<ResponseEvent>> {
    const live = this.liveOf(id, asker);
    if (live !== null) return (signal) => live.writer.log.follow((after ?? -1) + 1, signal);
    this.record(id, asker);
    throw new AppError('invalid_request', `the events of ${id} are not kept any more; read it`, {
      param: 'stream',
    });
  }

  /** Ends a response and resolves when it has ended. @throws AppError response_not_found */
  async cancel(id: string, asker: Asker): Promise<ResponseView> {
    const live = this.liveOf(id, asker);
    if (live === null) return this.view(id, asker);
    live.abort();
    await live.done;
    return responseView(live.record, live.writer.output);
  }

  /** @throws AppError response_not_found */
  async remove(id: string, asker: Asker): Promise<void> {
    await this.cancel(id, asker);
    this.live.delete(id);
    // One that was not stored is gone now.
    if (this.deps.stores.responses.find(id, asker.seen) === null) return;
    await this.deps.stores.responses.remove(id, this.deps.clock.now());
  }

  /** All that a response was given, oldest first. @throws AppError response_not_found */
  inputItems(id: string, asker: Asker): Item[] {
    const { input, record } = this.liveOf(id, asker) ?? {
      record: this.record(id, asker),
      input: this.deps.stores.responses.items(id).input as unknown as Item[],
    };
    const past = record.previousId === null ? [] : this.chainItems(record.previousId);
    return [...past, ...input];
  }

  private record(id: string, { seen }: Asker): ResponseRecord {
    const found = this.deps.stores.responses.find(id, seen);
    if (found !== null) return found;
    throw new AppError('response_not_found', `no stored response has the id '${id}'`);
  }

  /** One that is not stored is known to nobody once it has ended. */
  private liveOf(id: string, { seen }: Asker): LiveResponse | null {
    const live = this.live.get(id);
    if (live === undefined || (seen !== undefined && live.record.tenant !== seen)) return null;
    // One that has ended and is no longer on record was removed with its trajectory.
    const { record, background } = live;
    if (background && record.completedAt !== null && !this.isStored(id)) {
      this.live.delete(id);
      return null;
    }
    return live;
  }

  private isStored(id: string): boolean {
    return this.deps.stores.responses.find(id, undefined) !== null;
  }

  private pastOf(body: Body, asker: Asker): Past {
    const previous = this.previousOf(body, asker);
    const conversationId = conversationIdOf(body);
    if (previous === null) return { previousId: null, items: [], sessionId: null, conversationId };
    const { id, sessionId, trajectoryId } = previous;
    if (trajectoryId !== null) this.deps.stores.recentUse.note(trajectoryId);
    return {
      previousId: id,
      items: this.chainItems(id),
      sessionId,
      conversationId: conversationId ?? previous.conversationId,
    };
  }

  /** @throws AppError previous_response_not_found, invalid_request */
  private previousOf(body: Body, { tenant }: Asker): ResponseRecord | null {
    const { responses } = this.deps.stores;
    const conversationId = conversationIdOf(body);
    if (conversationId !== null) {
      const newest = responses.newestOfConversation(conversationId, tenant);
      if (newest !== null) return newest;
      const message = `conversation: no completed response is stored in '${conversationId}'`;
      throw new AppError('invalid_request', message, { param: 'conversation' });
    }
    const id = body.previous_response_id ?? null;
    if (id === null) return null;
    const param = 'previous_response_id';
    const found = responses.find(id, tenant);
    if (found === null) {
      const message = `previous response with id '${id}' not found`;
      throw new AppError('previous_response_not_found', message, { param });
    }
    if (found.status === 'completed' || found.status === 'incomplete') return found;
    const message = `${param}: the response '${id}' is ${found.status}`;
    throw new AppError('invalid_request', message, { param });
  }

  private chainItems(id: string): Item[] {
    const chain = this.deps.stores.responses.chain(id, LIMITS.messagesMax);
    return chain.flatMap(({ input, output }) => [...input, ...output] as unknown as Item[]);
  }

  private askedOf(
    body: Body,
    items: readonly Item[],
  ): Omit<Asked, 'keyId' | 'continuation' | 'sampling'> {
    if (items.length > LIMITS.messagesMax) {
      const message = `the conversation has ${items.length} items; at most ${LIMITS.messagesMax}`;
      throw new AppError('context_length_exceeded', message, { param: 'input' });
    }
    const instructions = body.instructions ?? null;
    const tools = offeredTools(body, this.deps.tools);
    return {
      messages: [
        ...(instructions === null ? [] : [{ role: 'system' as const, content: instructions }]),
        ...messagesOf(items),
      ],
      tools,
      forms: demandedForms(body, tools),
      maxTokens: body.max_output_tokens ?? null,
      maxToolCalls: maxToolCalls(body),
      logprobs: hasLogprobs(body),
      topLogprobs: body.top_logprobs ?? 0,
      oneCall: body.parallel_tool_calls === false && tools.specs.length > 0,
      metadata: body.metadata ?? null,
      trajectoryId: this.deps.newId('trajectory'),
    };
  }

  private recordOf(
    body: Body,
    { tenant }: Asker,
    facts: Pick<
      ResponseRecord,
      'previousId' | 'conversationId' | 'sessionId' | 'policyVersion' | 'settings'
    >,
  ): ResponseRecord {
    return {
      id: this.deps.newId('response'),
      tenant,
      status: 'in_progress',
      ...facts,
      ...{ trajectoryId: null, leafStepId: null, usage: null, error: null, incompleteReason: null },
      createdAt: this.deps.clock.now(),
      completedAt: null,
    };
  }

  private async begin(
    record: ResponseRecord,
    input: readonly Item[],
    opened: OpenedPolicy,
    asked: Asked,
    requestSignal: AbortSignal,
  ): Promise<LiveResponse> {
    const { stores, lifecycle, newId } = this.deps;
    const { background, store } = record.settings as { background: boolean; store: boolean };
    if (background) await saveResponse(stores.responses, record, { input, output: [] });
    const activity = lifecycle.begin(background ? undefined : requestSignal);
    let onBegun = (): void => undefined;
    const live: LiveResponse = {
      ...{ record, input, background, stored: store, trajectoryId: asked.trajectoryId },
      writer: new ResponseWriter(newId, asked),
      begun: new Promise<void>((resolve) => (onBegun = resolve)),
      done: Promise.resolve(),
      failure: null,
      abort: activity.abort,
    };
    this.live.set(record.id, live);
    live.done = workOn(this.deps, live, opened, asked, {
      signal: activity.signal,
      onBegun,
    }).finally(() => {
      onBegun();
      activity.release();
      this.ended(live);
    });
    return live;
  }

  /** Those in the background are kept for followers, as far as there is room for them. */
  private ended(live: LiveResponse): void {
    if (!live.background) {
      this.live.delete(live.record.id);
      return;
    }
    const kept = [...this.live.values()].filter(({ record }) => record.completedAt !== null);
    const sizes = kept.map(sizeOf);
    let sum = sizes.reduce((before, size) => before + size, 0);
    for (const [i, { record }] of kept.entries()) {
      if (sum <= LIMITS.endedCharsMax) return;
      sum -= sizes[i] ?? 0;
      this.live.delete(record.id);
    }
  }
}

/** Characters of its JSON: of what was asked and of its events, which have all of the output. */
function sizeOf({ record, input, writer }: LiveResponse): number {
  return JSON.stringify([record.settings, input]).length + writer.size;
}

function conversationIdOf({ conversation }: Body): string | null {
  return typeof conversation === 'string' ? conversation : (conversation?.id ?? null);
}
