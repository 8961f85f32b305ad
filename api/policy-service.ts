/**
 * Which policy answers: names to versions, versions to loaded sessions and text layers, and the
 * moves between versions. A new version is loaded beside the old one, then the live pointer moves
 * in one step; requests that already run keep theirs, because the engine unloads a version only
 * when its last sequence is closed. Everything is keyed by version, nothing by "the current one".
 *
 * A canary is a second version that answers a share of new conversations. Which ones depends on a
 * hash of the session alone, so a client stays on one side for as long as the canary lasts.
 *
 * Loading is one at a time. At most LIMITS.policiesLoadedMax versions stay loaded; the live one and
 * the canary always. What was live before stays ready for a rollback where it costs little: an
 * adapter, or a small model. Every move is written with its reason and figures before it takes
 * effect; whether a move is wise is decided elsewhere (policy-releases.ts).
 */
import { must } from '../core/assert.ts';
import type { Clock } from '../core/clock.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type { Priority, Sequence } from '../core/ports.ts';
import type {
  CanaryTerms,
  PolicyDecision,
  PolicyDecisionKind,
  PolicyRecord,
} from '../core/records.ts';
import type { GenerationConfig } from '../core/text/generation-config.ts';
import type { Protocol, Tokenizer } from '../core/text/types.ts';
import type { PolicyStore } from '../db/policy-store.ts';
import { canaryDraw } from './canary-draw.ts';
import { directoryBytes, requireDirectory } from './policy-folder.ts';

export interface PolicyText {
  tokenizer: Tokenizer;
  protocol: Protocol;
  /** What applies where a request says nothing; absent: nothing. */
  generation?: GenerationConfig;
}

export interface ServedPolicy extends PolicyText {
  version: number;
}

/** A request's hold on one version: it cannot change or go away until the sequence is closed. */
export interface OpenedPolicy {
  policy: ServedPolicy;
  sequence: Sequence;
}

export interface PolicyServiceOptions {
  store: PolicyStore;
  engine: PolicyEngine;
  /** Reads the text layer of a policy directory; throws policy_invalid. */
  loadText: (directory: string) => PolicyText;
  clock: Clock;
  newId: NewId;
  logger: Logger;
}

/** Why a version moves, for the record. */
export type Why = Pick<PolicyDecision, 'cause' | 'reason'> &
  Partial<Pick<PolicyDecision, 'figures' | 'trainingRunId'>>;

export interface OpenPolicyOptions {
  /** What a canary's share is drawn by: a session, or a conversation; absent: no canary. */
  key?: string;
  priority?: Priority;
}

const NAME = 'ramify';

const BY_REQUEST: Why = { cause: 'request', reason: 'asked for by an operator' };

export class PolicyService {
  private readonly store: PolicyStore;
  private readonly engine: PolicyEngine;
  private readonly loadText: (directory: string) => PolicyText;
  private readonly clock: Clock;
  private readonly newId: NewId;
  private readonly logger: Logger;
  /** Loaded versions, least recently used first. */
  private readonly loaded = new Map<number, ServedPolicy>();
  private live: number | null = null;
  private trial: { version: number; share: number } | null = null;
  /** What was live before, loaded still. */
  private spare: number | null = null;
  /** Versions on their way out: the engine is done with one when its last sequence is closed. */
  private readonly leaving = new Map<number, Promise<void>>();
  /** The tail of the chain of loads and moves, so that they never overlap. */
  private moves: Promise<unknown> = Promise.resolve();

  constructor(options: PolicyServiceOptions) {
    this.store = options.store;
    this.engine = options.engine;
    this.loadText = options.loadText;
    this.clock = options.clock;
    this.newId = options.newId;
    this.logger = options.logger;
  }

  /** Loads the active version of the registry, and the canary. @throws AppError policy_invalid */
  async start(): Promise<ServedPolicy> {
    const active = must(this.store.active(), 'the registry has an active policy');
    const policy = await this.load(active);
    this.live = active.version;
    const canary = this.store.canary();
    if (canary !== null) await this.resumeCanary(canary);
    return policy;
  }

  /** The live version. @throws AppError not_ready before `start`. */
  get liveVersion(): number {
    if (this.live === null) throw new AppError('not_ready', 'no policy is loaded yet');
    return this.live;
  }

  /** The version that answers a share of new conversations. */
  get canaryVersion(): number | null {
    return this.trial?.version ?? null;
  }

  /** Whether the engine holds it, if only for requests that still run. */
  isLoaded(version: number): boolean {
    return this.loaded.has(version) || this.leaving.has(version);
  }

  /** Runs while nothing is loaded and no version moves. */
  betweenMoves<T>(work: () => Promise<T>): Promise<T> {
    return this.exclusive(work);
  }

  /**
   * Opens a sequence on the version that a model name means, loading a pinned one when needed.
   * @throws AppError model_not_found, queue_full, engine_unavailable.
   */
  async open(model: string, options: OpenPolicyOptions = {}): Promise<OpenedPolicy> {
    const { key, priority = 'live' } = options;
    let version = this.versionOf(model, key);
    this.forgetLost(version);
    if (!this.loaded.has(version)) {
      await this.exclusive(() => this.loadPinned(model, version));
      // The live version may have moved on meanwhile; a pinned one has not.
      version = this.versionOf(model, key);
    }
    const policy = this.loaded.get(version);
    if (policy === undefined) throw modelNotFound(model);
    // No await between the look-up and `open`: the version cannot be unloaded in between.
    this.touch(policy);
    return { policy, sequence: this.engine.open({ policyVersion: version, priority }) };
  }

  /**
   * Makes a version the live one. Another version's canary ends.
   * @throws AppError policy_not_found, policy_not_activatable, engine_unavailable.
   */
  activate(version: number, why: Why = BY_REQUEST): Promise<PolicyRecord> {
    return this.exclusive(async () => {
      const policy = await this.loadForMove(version);
      if (policy.status === 'active') return policy;
      this.endCanary(version);
      const before = this.liveVersion;
      const small =
        (await directoryBytes(this.store.get(before).path)) <= LIMITS.readyPolicyBytesMax;
      this.store.decide(this.decision('activated', version, before, why), [
        [before, 'retired'],
        [version, 'active'],
      ]);
      this.trial = null;
      return this.moved(version, before, { spare: small ? before : null });
    });
  }

  /**
   * Lets a version answer a share of new conversations, in the place of an earlier canary.
   * @throws AppError as activate.
   */
  startCanary(version: number, terms: CanaryTerms, why: Why): Promise<PolicyRecord> {
    return this.exclusive(async () => {
      await this.loadForMove(version);
      this.endCanary(version);
      const reason = { ...why, figures: { ...why.figures, canary: terms } };
      this.store.decide(this.decision('canary_started', version, this.liveVersion, reason), [
        [version, 'canary'],
      ]);
      this.trial = { version, share: terms.share };
      this.logger.info({ version, ...terms }, 'canary started');
      return this.store.get(version);
    });
  }

  /**
   * Takes back the canary, or else the live version; returns the one that is live then.
   * @throws AppError nothing_to_roll_back, as activate.
   */
  rollback(why: Why = BY_REQUEST): Promise<PolicyRecord> {
    return this.exclusive(() => this.takeBackNewest(why));
  }

  /** The same while this version is the one that would go, else null. @throws as rollback */
  takeBack(version: number, why: Why): Promise<PolicyRecord | null> {
    return this.exclusive(async () => {
      const newest = this.trial?.version ?? this.live;
      return newest === version ? this.takeBackNewest(why) : null;
    });
  }

  private async takeBackNewest(why: Why): Promise<PolicyRecord> {
    const live = this.liveVersion;
    if (this.trial !== null) {
      const { version } = this.trial;
      const row = this.decision('rolled_back', version, live, why);
      this.store.decide(row, [[version, 'rolled_back']]);
      this.trial = null;
      this.logger.warn({ version, live, reason: why.reason }, 'canary rolled back');
      this.unload(version);
      return this.store.get(live);
    }
    const { version } = await this.loadForMove(this.store.rollbackTarget().version);
    this.store.decide(this.decision('rolled_back', live, version, why), [
      [live, 'rolled_back'],
      [version, 'active'],
    ]);
    return this.moved(version, live, { spare: null });
  }

  /** A canary that gives way before it has a verdict may still be activated by hand. */
  private endCanary(successor: number): void {
    const version = this.trial?.version;
    if (version === undefined || version === successor) return;
    const why: Why = { cause: 'request', reason: `gave way to version ${successor}` };
    this.store.decide(this.decision('canary_ended', version, successor, why), [
      [version, 'candidate'],
    ]);
    this.trial = null;
    this.unload(version);
  }

  /** At start: what it serves by is in the row of its beginning. */
  private async resumeCanary(policy: PolicyRecord): Promise<void> {
    const { version } = policy;
    const row = this.store.decisions.newest(version, ['canary_started']);
    try {
      await this.load(policy);
      this.trial = { version, share: must(row?.figures.canary, 'terms of a canary').share };
    } catch (thrown) {
      const { message } = toAppError(thrown);
      const why: Why = { cause: 'live', reason: `it could not be loaded: ${message}` };
      const decision = this.decision('rolled_back', version, this.live, why);
      this.store.decide(decision, [[version, 'rolled_back']]);
      this.logger.error({ version, message }, 'the canary could not be loaded');
    }
  }

  private async loadForMove(version: number): Promise<PolicyRecord> {
    const policy = this.store.get(version);
    if (policy.status === 'rejected') {
      throw new AppError('policy_not_activatable', `policy ${version} was rejected by the gate`);
    }
    this.forgetLost(version);
    try {
      // Also when it is loaded: the next start must find it.
      await requireDirectory(policy.path);
      await this.load(policy);
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.code !== 'policy_invalid') throw error;
      throw new AppError('policy_not_activatable', `policy ${version}: ${error.message}`, {
        cause: error,
      });
    }
    return policy;
  }

  /**
   * The registry has changed: from here on new requests get the other version. What is neither live
   * nor spare any more is kept only while requests run on it; a pin loads it again.
   */
  private moved(
    version: number,
    before: number,
    { spare }: { spare: number | null },
  ): PolicyRecord {
    const leaving = new Set([before, this.spare]);
    this.live = version;
    this.spare = spare;
    this.logger.info({ version, before }, 'policy activated');
    for (const old of leaving) {
      if (old !== null && old !== version && old !== spare) this.unload(old);
    }
    return this.store.get(version);
  }

  private decision(
    kind: PolicyDecisionKind,
    version: number,
    otherVersion: number | null,
    why: Why,
  ): PolicyDecision {
    const id = this.newId('decision');
    const createdAt = this.clock.now();
    const empty = { figures: {}, trainingRunId: null };
    return { ...empty, ...why, id, kind, version, otherVersion, createdAt };
  }

  /** The version of `ramify` or `ramify@VERSION`; the version need not be loaded. */
  private versionOf(model: string, key: string | undefined): number {
    if (model === NAME) {
      const { trial } = this;
      const drawn =
        trial !== null && key !== undefined && canaryDraw(key, trial.version) < trial.share;
      return drawn ? trial.version : this.liveVersion;
    }
    const pinned = /^ramify@([1-9]\d{0,8})$/.exec(model);
    if (pinned === null) throw modelNotFound(model);
    const version = Number(pinned[1]);
    if (!this.loaded.has(version) && this.store.find(version) === null) throw modelNotFound(model);
    return version;
  }

  private async loadPinned(model: string, version: number): Promise<void> {
    if (this.loaded.has(version)) return;
    try {
      await this.load(this.store.get(version));
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.code !== 'policy_invalid') throw error;
      if (model !== NAME) throw modelNotFound(model, error);
      throw new AppError('engine_unavailable', `policy ${version}: ${error.message}`, {
        cause: error,
        retryAfterS: LIMITS.retryAfterS,
      });
    }
    for (const old of [...this.loaded.keys()]) {
      if (this.loaded.size <= LIMITS.policiesLoadedMax) break;
      if (old !== this.live && old !== this.trial?.version && old !== version) this.unload(old);
    }
  }

  /** One that a new worker could not load again: the next request tries to, or says why not. */
  private forgetLost(version: number): void {
    if (!this.loaded.has(version)) return;
    const { state, versions } = this.engine.stats();
    if (state === 'ready' && !versions.includes(version)) this.loaded.delete(version);
  }

  private async load({ version, path }: PolicyRecord): Promise<ServedPolicy> {
    const known = this.loaded.get(version);
    if (known !== undefined) return known;
    await requireDirectory(path);
    const text = this.loadText(path);
    await this.leaving.get(version);
    await this.engine.load(version, path);
    const policy = { version, ...text };
    this.loaded.set(version, policy);
    return policy;
  }

  /** Does not wait: requests on the version may run for minutes. */
  private unload(version: number): void {
    if (!this.loaded.delete(version)) return;
    const left = this.engine.unload(version).catch((error: unknown) => {
      // Serving goes on; the memory is freed when the worker ends.
      this.logger.warn({ version, error }, 'a policy version could not be unloaded');
    });
    this.leaving.set(
      version,
      left.finally(() => this.leaving.delete(version)),
    );
  }

  private touch(policy: ServedPolicy): void {
    this.loaded.delete(policy.version);
    this.loaded.set(policy.version, policy);
  }

  private exclusive<T>(work: () => Promise<T>): Promise<T> {
    const done = this.moves.then(work);
    this.moves = done.catch(() => undefined);
    return done;
  }
}

/** The name that pins a version. */
export function pinnedName(version: number): string {
  return `${NAME}@${version}`;
}

/** Whether a model name leaves the choice of the version open, or means this one. */
export function allowsVersion(model: string, version: number): boolean {
  return model === NAME || model === pinnedName(version);
}

function modelNotFound(model: string, cause?: unknown): AppError {
  const message = `no model '${model}'; use '${NAME}' or '${NAME}@VERSION' of a known policy`;
  return new AppError('model_not_found', message, { param: 'model', cause });
}
