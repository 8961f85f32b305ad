/**
 * One KV sequence of a LocalEngine: the tokens, and as much of their keys and values as is cached.
 * What is not cached is prefilled before the next sample, so the engine may drop the cache of an
 * idle sequence when memory is short. It checks the order of calls and leaves the work to the
 * engine.
 */
import { assert } from '../assert.ts';
import type { Priority, SampleRequest, SampleResult, Sequence } from '../ports.ts';
import { requireRoom } from './refusals.ts';
import { emptyTokens } from './sampled-tokens.ts';
import type { SequenceKv } from './sequence-kv.ts';

/** What a sequence needs of its engine. */
export interface SequenceHost {
  submit(sequence: LocalSequence, request: SampleRequest): Promise<SampleResult>;
  fork(sequence: LocalSequence, length: number): Sequence;
  release(sequence: LocalSequence): void;
}

export interface LocalSequenceOptions {
  policyVersion: number;
  priority: Priority;
  contextTokens: number;
  kv: SequenceKv;
  tokens: number[];
}

export class LocalSequence implements Sequence {
  readonly policyVersion: number;
  readonly contextTokens: number;
  readonly priority: Priority;
  readonly tokens: number[];
  readonly kv: SequenceKv;
  private readonly host: SequenceHost;
  private state: 'idle' | 'sampling' | 'closed' = 'idle';

  constructor(host: SequenceHost, options: LocalSequenceOptions) {
    this.host = host;
    this.policyVersion = options.policyVersion;
    this.priority = options.priority;
    this.contextTokens = options.contextTokens;
    this.kv = options.kv;
    this.tokens = options.tokens;
  }

  get length(): number {
    return this.tokens.length;
  }

  get isIdle(): boolean {
    return this.state === 'idle';
  }

  /** Tokens to prefill: all but the last, which the decode run itself takes in. */
  get missing(): number {
    return this.tokens.length - 1 - this.kv.length;
  }

  append(tokens: Uint32Array | readonly number[]): void {
    this.requireIdle('append');
    const length = this.tokens.length + tokens.length;
    requireRoom(length, this.contextTokens);
    for (const token of tokens) this.tokens.push(token);
  }

  async sample(request: SampleRequest): Promise<SampleResult> {
    this.requireIdle('sample');
    assert(this.tokens.length > 0, 'sample: the sequence has no tokens');
    assert(request.maxTokens > 0, 'sample: maxTokens must be positive');
    if (request.signal?.aborted) return { ...emptyTokens(), finish: 'cancelled' };
    // The last token is always run again, as input of the decode graph.
    this.kv.truncate(this.tokens.length - 1);
    this.state = 'sampling';
    try {
      return await this.host.submit(this, request);
    } catch (error) {
      // A run may have cached what was sampled and never delivered.
      this.kv.truncate(this.tokens.length - 1);
      throw error;
    } finally {
      if (this.state === 'sampling') this.state = 'idle';
    }
  }

  truncate(length: number): void {
    this.requireIdle('truncate');
    assert(length >= 0 && length <= this.tokens.length, `truncate to ${length}`);
    this.tokens.length = length;
    this.kv.truncate(length);
  }

  fork(length: number): Sequence {
    this.requireIdle('fork');
    assert(length > 0 && length <= this.tokens.length, `fork at ${length}`);
    return this.host.fork(this, length);
  }

  close(): void {
    if (this.state === 'closed') return;
    assert(this.state === 'idle', 'close: the sequence is sampling');
    this.state = 'closed';
    this.kv.truncate(0);
    this.host.release(this);
  }

  private requireIdle(what: string): void {
    assert(this.state === 'idle', `${what}: the sequence is ${this.state}`);
  }
}
