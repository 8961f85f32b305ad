/**
 * A sequence of the policy worker, as the server holds it: it knows the length and the window, so
 * that what cannot work is refused at once, and asks by message for everything else.
 */
import { assert } from '../assert.ts';
import type { SampleRequest, SampleResult, Sequence } from '../ports.ts';
import { requireRoom } from './refusals.ts';
import { emptyTokens } from './sampled-tokens.ts';
import type { ToWorker } from './worker-protocol.ts';

/** What a sequence asks of the engine that it belongs to. */
export interface RemoteEngine {
  /** A sequence number. Throws queue_full or engine_unavailable. */
  claimSequence(): number;
  releaseSequence(epoch: number, id: number): void;
  /** Sends a message to the worker `epoch`. Throws engine_unavailable when that one is gone. */
  sendFor(epoch: number, message: ToWorker): void;
  sample(epoch: number, sequence: number, request: SampleRequest): Promise<SampleResult>;
}

export class RemoteSequence implements Sequence {
  readonly policyVersion: number;
  readonly contextTokens: number;
  private readonly engine: RemoteEngine;
  private readonly epoch: number;
  private readonly id: number;
  private held: number;
  private state: 'idle' | 'sampling' | 'closed' = 'idle';

  constructor(
    engine: RemoteEngine,
    epoch: number,
    id: number,
    policyVersion: number,
    contextTokens: number,
    held: number,
  ) {
    this.engine = engine;
    this.epoch = epoch;
    this.id = id;
    this.policyVersion = policyVersion;
    this.contextTokens = contextTokens;
    this.held = held;
  }

  get length(): number {
    return this.held;
  }

  append(tokens: Uint32Array | readonly number[]): void {
    this.requireIdle('append');
    const length = this.held + tokens.length;
    requireRoom(length, this.contextTokens);
    const message = {
      type: 'append',
      sequence: this.id,
      tokens: Uint32Array.from(tokens),
    } as const;
    this.engine.sendFor(this.epoch, message);
    this.held = length;
  }

  async sample(request: SampleRequest): Promise<SampleResult> {
    this.requireIdle('sample');
    if (request.signal?.aborted) return { ...emptyTokens(), finish: 'cancelled' };
    this.state = 'sampling';
    try {
      const result = await this.engine.sample(this.epoch, this.id, request);
      this.held += result.tokens.length;
      return result;
    } finally {
      if (this.state === 'sampling') this.state = 'idle';
    }
  }

  truncate(length: number): void {
    this.requireIdle('truncate');
    this.engine.sendFor(this.epoch, { type: 'truncate', sequence: this.id, length });
    this.held = length;
  }

  fork(length: number): Sequence {
    this.requireIdle('fork');
    const id = this.engine.claimSequence();
    this.engine.sendFor(this.epoch, { type: 'fork', sequence: id, from: this.id, length });
    const { policyVersion, contextTokens } = this;
    return new RemoteSequence(this.engine, this.epoch, id, policyVersion, contextTokens, length);
  }

  close(): void {
    if (this.state === 'closed') return;
    assert(this.state === 'idle', 'close: the sequence is sampling');
    this.state = 'closed';
    this.engine.releaseSequence(this.epoch, this.id);
  }

  private requireIdle(what: string): void {
    assert(this.state === 'idle', `${what}: the sequence is ${this.state}`);
  }
}
