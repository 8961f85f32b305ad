/**
 * A policy engine for HTTP tests: in this process, without a model. What the policy writes is
 * decided by a function of the text so far, so a test says in one line what it needs; everything
 * around it (windows, stop tokens, limits, cancelling, versions that drain) behaves as the port
 * demands.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { EngineStats, PolicyEngine } from '../../core/engine/types.ts';
import { must } from '../../core/assert.ts';
import { AppError } from '../../core/errors.ts';
import type {
  OpenOptions,
  SampledTokens,
  SampleRequest,
  SampleResult,
  Sequence,
} from '../../core/ports.ts';
import { uniform } from '../../core/prng.ts';
import { loadText } from '../../core/text/load-text.ts';
import type { TextLayer } from '../../core/text/load-text.ts';
import { StopScanner } from '../../core/text/stop-scanner.ts';
import { StreamDecoder } from '../../core/text/stream-decoder.ts';

/** The text that the policy writes next, control tokens included. */
export type Script = (text: string, version: number) => string;

const PIECE_TOKENS = 4;

interface Version {
  text: TextLayer;
  open: number;
  leaving: (() => void) | null;
}

export class ScriptedEngine implements PolicyEngine {
  /** The windows of versions, where they differ. */
  readonly windows = new Map<number, number>();
  script: Script;
  /** Pause before each piece of tokens. */
  pieceMs = 0;
  /** Thrown by every new sample while set. */
  sampleFault: AppError | null = null;
  /** Thrown by every load while set. */
  loadFault: AppError | null = null;
  state: EngineStats['state'] = 'ready';
  sequencesMax = 64;
  /** What the newest sample went on from. */
  promptTokens: readonly number[] = [];
  /** Samples that were ended by an abort. */
  cancelled = 0;
  private readonly versions = new Map<number, Version>();
  private readonly contextTokens: number;

  constructor(script: Script, contextTokens = 512) {
    this.script = script;
    this.contextTokens = contextTokens;
  }

  windowOf(version: number): number {
    return this.windows.get(version) ?? this.contextTokens;
  }

  async load(version: number, directory: string): Promise<void> {
    if (this.loadFault !== null) throw this.loadFault;
    this.versions.set(version, { text: loadText(directory), open: 0, leaving: null });
  }

  async unload(version: number): Promise<void> {
    const leaving = this.versions.get(version);
    this.versions.delete(version);
    if (leaving === undefined || leaving.open === 0) return;
    await new Promise<void>((resolve) => (leaving.leaving = resolve));
  }

  open({ policyVersion }: OpenOptions): Sequence {
    if (this.state !== 'ready') {
      throw new AppError('engine_unavailable', `the policy worker is ${this.state}`);
    }
    const version = this.versions.get(policyVersion);
    if (version === undefined) {
      throw new AppError('model_not_found', `policy version ${policyVersion} is not loaded`);
    }
    if (this.stats().openSequences >= this.sequencesMax) {
      throw new AppError('queue_full', `${this.sequencesMax} conversations are open already`);
    }
    return this.track(version, policyVersion);
  }

  /** @internal Used by sequences. */
  fork(policyVersion: number, tokens: readonly number[]): Sequence {
    if (this.stats().openSequences >= this.sequencesMax) {
      throw new AppError('queue_full', `${this.sequencesMax} conversations are open already`);
    }
    const version = must(this.versions.get(policyVersion), 'version of a sequence');
    const sequence = this.track(version, policyVersion);
    sequence.append(tokens);
    return sequence;
  }

  private track(version: Version, policyVersion: number): ScriptedSequence {
    version.open++;
    return new ScriptedSequence(this, version.text, policyVersion, () => {
      if (--version.open === 0) version.leaving?.();
    });
  }

  stats(): EngineStats {
    const openSequences = [...this.versions.values()].reduce((sum, { open }) => sum + open, 0);
    const versions = [...this.versions.keys()];
    const counts = { openSequences, queued: 0, running: openSequences };
    return { state: this.state, pid: null, versions, ...counts };
  }

  async stop(): Promise<void> {
    this.state = 'stopped';
  }
}

class ScriptedSequence implements Sequence {
  readonly policyVersion: number;
  private readonly engine: ScriptedEngine;
  private readonly text: TextLayer;
  private readonly onClose: () => void;
  private tokens: number[] = [];
  private closed = false;

  constructor(engine: ScriptedEngine, text: TextLayer, version: number, onClose: () => void) {
    this.engine = engine;
    this.text = text;
    this.policyVersion = version;
    this.onClose = onClose;
  }

  get length(): number {
    return this.tokens.length;
  }

  get contextTokens(): number {
    return this.engine.windowOf(this.policyVersion);
  }

  append(tokens: Uint32Array | readonly number[]): void {
    if (this.length + tokens.length >= this.contextTokens) {
      throw new AppError(
        'context_length_exceeded',
        `${this.length + tokens.length} tokens do not fit the window of ${this.contextTokens}`,
      );
    }
    this.tokens.push(...tokens);
  }

  async sample(request: SampleRequest): Promise<SampleResult> {
    if (this.engine.sampleFault !== null) throw this.engine.sampleFault;
    const { tokenizer } = this.text;
    this.engine.promptTokens = [...this.tokens];
    const reply = this.engine.script(tokenizer.decode(this.tokens), this.policyVersion);
    const wanted = forced(request) ?? tokenizer.encodeTemplate(reply);
    const decoder = new StreamDecoder(tokenizer);
    const scanner = new StopScanner(request.stopTexts ?? []);
    const stops = (token: number): boolean => {
      scanner.push(decoder.push([token]));
      return scanner.found || request.stopTokens.includes(token);
    };
    const sampled: number[] = [];
    let finish: SampleResult['finish'] | null = null;
    while (finish === null) {
      if (this.engine.pieceMs > 0) await delay(this.engine.pieceMs);
      else await new Promise((resolve) => setImmediate(resolve));
      const piece: number[] = [];
      while (finish === null && piece.length < PIECE_TOKENS) {
        finish = this.take(request, stops, wanted, sampled, piece);
      }
      const { likeliest } = request;
      if (piece.length > 0) {
        request.onTokens?.(figures(piece, sampled.length - piece.length, likeliest));
      }
    }
    if (finish === 'cancelled') this.engine.cancelled++;
    const cachedTokens = this.engine.promptTokens.length - 1;
    return { ...figures(sampled, 0, request.likeliest), cachedTokens, finish };
  }

  truncate(length: number): void {
    this.tokens.length = length;
  }

  fork(length: number): Sequence {
    return this.engine.fork(this.policyVersion, this.tokens.slice(0, length));
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.onClose();
  }

  /** Samples one token, or says why not. */
  private take(
    request: SampleRequest,
    stops: (token: number) => boolean,
    wanted: readonly number[],
    sampled: number[],
    piece: number[],
  ): SampleResult['finish'] | null {
    if (request.signal?.aborted === true) return 'cancelled';
    if (sampled.length >= request.maxTokens) return 'length';
    if (this.length >= this.contextTokens) return 'context';
    // A script without a stop token at its end goes on with it, as a policy that rambles.
    const token = wanted[sampled.length % wanted.length] as number;
    for (const list of [sampled, piece, this.tokens]) list.push(token);
    return stops(token) ? 'stop' : null;
  }
}

/** The tokens of a constraint that leaves no choice. */
function forced({ sampling: { constraint } }: SampleRequest): number[] | null {
  if (constraint === undefined) return null;
  const tokens = constraint.flatMap((part) => (part.kind === 'token' ? part.anyOf : []));
  return tokens.length === constraint.length ? tokens : null;
}

/** Plausible figures that depend only on the position. */
function figures(tokens: readonly number[], offset: number, likeliest = 0): SampledTokens {
  const logprobs = Float32Array.from(tokens, (_, i) => Math.log(uniform(1, offset + i)));
  // The sampled token leads; the others are its neighbours, each half as likely.
  const places = tokens.flatMap((token, i) =>
    Array.from({ length: likeliest }, (_, k) => ({
      token: Math.abs(token - k),
      logprob: (logprobs[i] as number) - k * Math.LN2,
    })),
  );
  return {
    ...(likeliest > 0 && {
      likeliest: {
        count: likeliest,
        tokens: Uint32Array.from(places, ({ token }) => token),
        logprobs: Float32Array.from(places, ({ logprob }) => logprob),
      },
    }),
    tokens: Uint32Array.from(tokens),
    logprobs,
    behaviourLogprobs: logprobs.slice(),
    entropies: Float32Array.from(tokens, (_, i) => 2 * uniform(2, offset + i)),
  };
}
