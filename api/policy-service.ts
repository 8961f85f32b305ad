/**
 * Which policy answers: names to versions, versions to loaded sessions and text layers, and the
 * moves between versions. A new version is loaded beside the old one, then the live pointer moves
 * in one step; requests that already run keep theirs, because the engine unloads a version only
 * when its last sequence is closed. Everything is keyed by version, nothing by "the current one".
 *
 * Loading is one at a time. At most LIMITS.policiesLoadedMax versions stay loaded; the live one
 * always.
 */
import { stat } from 'node:fs/promises';
import { must } from '../core/assert.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { AppError, toAppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type { Priority, Sequence } from '../core/ports.ts';
import type { PolicyRecord } from '../core/records.ts';
import type { GenerationConfig } from '../core/text/generation-config.ts';
import type { Protocol, Tokenizer } from '../core/text/types.ts';
import type { PolicyStore } from '../db/policy-store.ts';

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
  logger: Logger;
}

const NAME = 'ramify';

export class PolicyService {
  private readonly store: PolicyStore;
  private readonly engine: PolicyEngine;
  private readonly loadText: (directory: string) => PolicyText;
  private readonly logger: Logger;
  /** Loaded versions, least recently used first. */
  private readonly loaded = new Map<number, ServedPolicy>();
  private live: number | null = null;
  /** Versions on their way out: the engine is done with one when its last sequence is closed. */
  private readonly leaving = new Map<number, Promise<void>>();
  /** The tail of the chain of loads and moves, so that they never overlap. */
  private moves: Promise<unknown> = Promise.resolve();

  constructor(options: PolicyServiceOptions) {
    this.store = options.store;
    this.engine = options.engine;
    this.loadText = options.loadText;
    this.logger = options.logger;
  }

  /** Loads the active version of the registry. @throws AppError policy_invalid */
  async start(): Promise<ServedPolicy> {
    const active = must(this.store.active(), 'the registry has an active policy');
    const policy = await this.load(active);
    this.live = active.version;
    return policy;
  }

  /** The live version. @throws AppError not_ready before `start`. */
  get liveVersion(): number {
    if (this.live === null) throw new AppError('not_ready', 'no policy is loaded yet');
    return this.live;
  }

  /**
   * Opens a sequence on the version that a model name means, loading a pinned one when needed.
   * @throws AppError model_not_found, queue_full, engine_unavailable.
   */
  async open(model: string, priority: Priority = 'live'): Promise<OpenedPolicy> {
    let version = this.versionOf(model);
    if (!this.loaded.has(version)) {
      await this.exclusive(() => this.loadPinned(model, version));
      // The live version may have moved on meanwhile; a pinned one has not.
      version = this.versionOf(model);
    }
    const policy = this.loaded.get(version);
    if (policy === undefined) throw modelNotFound(model);
    // No await between the look-up and `open`: the version cannot be unloaded in between.
    this.touch(policy);
    return { policy, sequence: this.engine.open({ policyVersion: version, priority }) };
  }

  /**
   * Makes a version the live one.
   * @throws AppError policy_not_found, policy_not_activatable, engine_unavailable.
   */
  activate(version: number): Promise<PolicyRecord> {
    return this.exclusive(() => this.moveTo(version));
  }

  /**
   * Goes back to the parent of the live version.
   * @throws AppError nothing_to_roll_back, as activate.
   */
  rollback(): Promise<PolicyRecord> {
    return this.exclusive(() => this.moveTo(this.store.rollbackTarget().version));
  }

  private async moveTo(version: number): Promise<PolicyRecord> {
    const policy = this.store.get(version);
    if (policy.status === 'rejected') {
      throw new AppError('policy_not_activatable', `policy ${version} was rejected by the gate`);
    }
    try {
      await this.load(policy);
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.code !== 'policy_invalid') throw error;
      throw new AppError('policy_not_activatable', `policy ${version}: ${error.message}`, {
        cause: error,
      });
    }
    const { active } = this.store.activate(version);
    const before = this.live;
    this.live = version;
    this.logger.info({ version, before }, 'policy activated');
    // What was live before is kept only while requests run on it; a pin loads it again.
    if (before !== null && before !== version) this.unload(before);
    return active;
  }

  /** The version of `ramify` or `ramify@VERSION`; the version need not be loaded. */
  private versionOf(model: string): number {
    if (model === NAME) return this.liveVersion;
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
      throw modelNotFound(model, error);
    }
    for (const old of [...this.loaded.keys()]) {
      if (this.loaded.size <= LIMITS.policiesLoadedMax) break;
      if (old !== this.live && old !== version) this.unload(old);
    }
  }

  private async load({ version, path }: PolicyRecord): Promise<ServedPolicy> {
    const known = this.loaded.get(version);
    if (known !== undefined) return known;
    const isDirectory = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (!isDirectory) {
      throw new AppError('policy_invalid', `the policy directory ${path} is missing`);
    }
    const text = this.loadText(path);
    await this.leaving.get(version);
    await this.engine.load(version, path);
    const policy = { version, ...text };
    this.loaded.set(version, policy);
    return policy;
  }

  /** Does not wait: requests on the version may run for minutes. */
  private unload(version: number): void {
    this.loaded.delete(version);
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
