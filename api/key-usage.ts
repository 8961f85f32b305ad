/**
 * How much each key uses, and what it may: requests a minute (a bucket that fills evenly, so a
 * minute's worth may come at once), requests under way, open streams, tokens a day. Requests are
 * counted in memory, which a restart forgets; tokens are written with the answer that they are of
 * and are read back at the start.
 */
import type { Clock } from '../core/clock.ts';
import { AppError, toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type { ApiKeyRecord, TokenUsage } from '../core/key-records.ts';
import type { KeyStore } from '../db/key-store.ts';

export interface KeyUsageDeps {
  store: KeyStore;
  clock: Clock;
  logger: Logger;
}

interface State {
  /** Requests left in the bucket at a time; null: it was not looked at yet. */
  bucket: { level: number; at: number } | null;
  /** Requests and background runs under way. */
  active: number;
  streams: number;
  /** Of `day`. */
  tokens: number;
}

const DAY_MS = 86_400_000;

export class KeyUsage {
  private readonly deps: KeyUsageDeps;
  /** At most one a key. */
  private readonly states = new Map<string, State>();
  private streams = 0;
  /** Whose tokens are in `states`. */
  private day: number;

  constructor(deps: KeyUsageDeps) {
    this.deps = deps;
    this.day = this.today();
    for (const [keyId, usage] of deps.store.usageOn(this.day)) {
      this.stateOf(keyId).tokens = total(usage);
    }
    this.forgetOldDays();
  }

  /**
   * Takes one of the key's requests of a minute and one of its places; gives back how the place is
   * left. @throws AppError rate_limit_exceeded
   */
  enter(key: ApiKeyRecord): () => void {
    this.takeRequest(key);
    const { active } = this.stateOf(key.id);
    if (key.concurrency !== null && active >= key.concurrency) {
      throw new AppError(
        'rate_limit_exceeded',
        `the key ${key.prefix} has ${active} requests under way, as many as it may`,
      );
    }
    return this.hold(key.id);
  }

  /** @throws AppError insufficient_quota */
  requireTokens({ id, prefix, tokensPerDay: quota }: ApiKeyRecord): void {
    const used = this.tokensToday(id);
    if (quota === null || used < quota) return;
    const retryAfterS = Math.ceil(this.untilTomorrowMs() / 1000);
    throw new AppError(
      'insufficient_quota',
      `the key ${prefix} has used ${used} of its ${quota} tokens a day (UTC)`,
      { retryAfterS },
    );
  }

  /** A request or background run is under way until what is given back is called. */
  hold(keyId: string | null): () => void {
    return this.take(keyId, 'active');
  }

  /**
   * Takes one of the streams of the server, and of the key's; gives back how it is left.
   * @throws AppError queue_full, rate_limit_exceeded
   */
  enterStream(keyId: string | null): () => void {
    if (this.streams >= LIMITS.eventStreamsMax) {
      throw new AppError('queue_full', `${this.streams} streams are open; no more fit`);
    }
    if (keyId !== null && this.stateOf(keyId).streams >= LIMITS.keyStreamsMax) {
      const message = `the key has ${LIMITS.keyStreamsMax} streams open, as many as it may`;
      throw new AppError('rate_limit_exceeded', message);
    }
    const leave = this.take(keyId, 'streams');
    this.streams++;
    return () => {
      this.streams--;
      leave();
    };
  }

  /**
   * Adds what was sampled and read for a key; to be called where an answer is logged. Resolves when
   * it is durable. Null: nobody's.
   */
  async count(keyId: string | null, usage: TokenUsage): Promise<void> {
    if (keyId === null || total(usage) === 0) return;
    this.turnDay();
    this.stateOf(keyId).tokens += total(usage);
    await this.deps.store.count(keyId, this.day, usage);
  }

  tokensToday(keyId: string): number {
    this.turnDay();
    return this.states.get(keyId)?.tokens ?? 0;
  }

  /** How the key stands with its limits, as OpenAI names them. */
  headers(key: ApiKeyRecord): Record<string, string> {
    const out: Record<string, string> = {};
    const { requestsPerMinute: rate, tokensPerDay: quota } = key;
    if (rate !== null) {
      const level = this.bucketLevel(key.id, rate);
      out['x-ratelimit-limit-requests'] = String(rate);
      out['x-ratelimit-remaining-requests'] = String(Math.floor(level));
      out['x-ratelimit-reset-requests'] = duration(((rate - level) * 60_000) / rate);
    }
    if (quota !== null) {
      out['x-ratelimit-limit-tokens'] = String(quota);
      out['x-ratelimit-remaining-tokens'] = String(Math.max(0, quota - this.tokensToday(key.id)));
      out['x-ratelimit-reset-tokens'] = duration(this.untilTomorrowMs());
    }
    return out;
  }

  private takeRequest({ id, prefix, requestsPerMinute: rate }: ApiKeyRecord): void {
    if (rate === null) return;
    const level = this.bucketLevel(id, rate);
    if (level < 1) {
      const retryAfterS = Math.ceil(((1 - level) * 60) / rate);
      throw new AppError(
        'rate_limit_exceeded',
        `the key ${prefix} may send ${rate} requests a minute; the next one in ${retryAfterS} s`,
        { retryAfterS },
      );
    }
    this.stateOf(id).bucket = { level: level - 1, at: this.deps.clock.now() };
  }

  private bucketLevel(keyId: string, rate: number): number {
    const { bucket } = this.stateOf(keyId);
    if (bucket === null) return rate;
    const elapsedMs = Math.max(0, this.deps.clock.now() - bucket.at);
    return Math.min(rate, bucket.level + (elapsedMs * rate) / 60_000);
  }

  private take(keyId: string | null, what: 'active' | 'streams'): () => void {
    if (keyId === null) return () => undefined;
    const state = this.stateOf(keyId);
    state[what]++;
    return () => {
      state[what]--;
    };
  }

  private stateOf(keyId: string): State {
    const known = this.states.get(keyId);
    if (known !== undefined) return known;
    const state: State = { bucket: null, active: 0, streams: 0, tokens: 0 };
    this.states.set(keyId, state);
    return state;
  }

  private today(): number {
    return Math.floor(this.deps.clock.now() / DAY_MS);
  }

  private turnDay(): void {
    if (this.today() <= this.day) return;
    this.day = this.today();
    for (const state of this.states.values()) state.tokens = 0;
    this.forgetOldDays();
  }

  private forgetOldDays(): void {
    const { store, logger } = this.deps;
    store.forgetUsageBefore(this.day - LIMITS.usageDaysKept).catch((thrown: unknown) => {
      logger.error({ message: toAppError(thrown).message }, 'old counts of tokens stay');
    });
  }

  private untilTomorrowMs(): number {
    return (this.today() + 1) * DAY_MS - this.deps.clock.now();
  }
}

const total = ({ promptTokens, completionTokens }: TokenUsage): number =>
  promptTokens + completionTokens;

/** As OpenAI writes times: `1s`, `6m0s`, `120ms`. */
function duration(ms: number): string {
  if (ms <= 999) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 1000);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  if (h > 0) return `${h}h${m}m${s}s`;
  return m > 0 ? `${m}m${s}s` : `${s}s`;
}
